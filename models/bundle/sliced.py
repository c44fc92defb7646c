"""Shorter ways through a bundle's graphs, cut out of them when it is loaded.

    heads   scores, taps and the gradients of late taps in one go: what passes ask for needs no way
            back through the network
    paths   mean gradients along straight ways (models.graph.split): the first convolution once a
            path, the forward half shared by goals with one comparison

The numbers are those of the whole graphs, node by node; along a path the sum is taken behind the
first convolution, which changes its rounding alone. A network that cannot be cut has no such ways,
and the whole graphs serve.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from models.graph.first_block import Windows, add_slope, pooled
from models.graph.slices import Whole
from models.graph.split import Split, split
from models.recipes import CHUNK, GRADIENT_COST, Found, Line, Weights, chunks, difference

FLOAT = "tensor(float)"


class Session(Protocol):
    """What is used of onnxruntime's session."""

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]: ...
    def get_inputs(self) -> list[Any]: ...
    def get_outputs(self) -> list[Any]: ...


Open = Callable[[bytes], Session]


class Heads:
    """Graphs that give some outputs and tap gradients and nothing else, made when first asked."""

    def __init__(self, whole: Whole, open_session: Open) -> None:
        self._whole, self._open = whole, open_session
        self._known = frozenset(whole.outputs)
        self._made: dict[tuple[str, ...], tuple[Session, frozenset[str]]] = {}
        self._lock = threading.Lock()

    def run(self, x: NDArray[np.float32], names: Sequence[str], weights: Weights) -> Found | None:
        """The named outputs ('logits', taps, 'grad_<tap>') of x [B, ...]; weights: 'w_...' -> rows.

        None where one of the names cannot be had like this.
        """
        key = tuple(sorted(set(names)))
        if not self._known.issuperset(key):
            return None
        with self._lock:
            if key not in self._made:
                session = self._open(self._whole.cut(key))
                self._made[key] = (session, frozenset(i.name for i in session.get_inputs()))
            session, inputs = self._made[key]
        feed = {k: v for k, v in {"x": x, **weights}.items() if k in inputs}
        return dict(zip(key, session.run(key, feed), strict=True))


class Paths:
    """A network split behind its first convolution."""

    def __init__(
        self,
        whole: Whole,
        places: Split,
        lengths: Mapping[str, int],
        input_shape: Sequence[int],
        open_session: Open,
    ) -> None:
        """lengths: 'logits' and taps -> length. Raises BundleError where the parts don't fit."""
        self._places = p = places
        self._lengths = {k: n for k, n in lengths.items() if k in ("logits", *p.taps)}
        self._stem = open_session(whole.cut([p.stem]))
        zero = np.zeros((1, *input_shape), np.float32)
        stem = self._stem.run([p.stem], {"x": zero})[0]
        self._windows: Windows | None = None
        if p.window is not None:
            try:
                self._windows = Windows(stem.shape[1:], p.window)
            except ValueError as fault:
                raise BundleError(str(fault), code="no_split", field="gradients") from None
        self._at_cut = at_cut = self._windows.pooled if self._windows else stem.shape[1:]
        inner: dict[str, tuple[str, Sequence[int | None]]] = {p.cut: (FLOAT, [None, *at_cut])}
        targets = list(self._lengths)
        self._ahead = open_session(whole.cut(p.kept, inner))
        # Without what only the way back reads: pooling indices cost as much as a convolution.
        self._targets = open_session(whole.cut(targets, inner))
        kinds = {o.name: o.type for o in self._ahead.get_outputs()}
        sample = self._ahead.run(list(p.kept), {p.cut: np.zeros((1, *at_cut), np.float32)})
        # A kept value with rows has any number of them; a shape has its own length.
        shapes: dict[str, tuple[str, Sequence[int | None]]] = {
            name: (kinds[name], [None] * value.ndim)
            for name, value in zip(p.kept, sample, strict=True)
        }
        self._back = open_session(whole.cut([p.at_cut], shapes | inner))
        self._asked = frozenset(i.name for i in self._back.get_inputs())
        at_stem: dict[str, tuple[str, Sequence[int | None]]] = {
            p.at_stem: (FLOAT, [None, *stem.shape[1:]])
        }
        self._return = open_session(whole.cut(["grad_input"], at_stem))

    def serves(self, names: Sequence[str]) -> bool:
        """Whether targets of these outputs can be had: all that lie behind the first block."""
        return set(names) <= self._lengths.keys()

    def run(self, line: Line, weights: Weights) -> Found:
        """As models.model.Model.paths, for targets that it serves."""
        names = list(weights)
        end = self._stemmed(line.x)
        last = self._ends(end, names)
        # Fresh memory of this size is mapped page by page, so one path uses it again and again.
        room = np.empty((min(len(line.points), CHUNK) + 2, *end.shape), np.float32)
        change = np.empty(len(line.baselines), np.float32)
        mean = np.empty(line.baselines.shape, np.float32)
        for group in line.groups():
            begin = self._stemmed(line.baselines[group[0]])
            first = self._ends(begin, names)
            slopes = self._slopes(begin, end, line.points, group, weights, room)
            for goal, slope in zip(group, slopes, strict=True):
                mean[goal] = self._returned(slope)
                change[goal] = difference(last, first, weights, goal)
        return {"gradient": mean, "change": change}

    def _slopes(
        self,
        begin: NDArray[np.float32],
        end: NDArray[np.float32],
        points: NDArray[np.float32],
        group: Sequence[int],
        weights: Weights,
        room: NDArray[np.float32],
    ) -> list[NDArray[np.float32]]:
        """Mean gradient behind the stem for each goal of a group, laid out as `begin`. room: to
        work in."""
        p = self._places
        scratch, way, *blends = room
        np.subtract(end, begin, out=way)
        totals = [np.zeros_like(begin) for _ in group]
        for some in chunks(points, GRADIENT_COST * len(group)):
            rows = np.empty((len(some), *self._at_cut), np.float32)
            for share, blend, row in zip(some, blends, rows, strict=False):
                np.multiply(way, share, out=blend)
                blend += begin
                self._forward(blend, row)
            kept = dict(zip(p.kept, self._ahead.run(list(p.kept), {p.cut: rows}), strict=True))
            for goal, total in zip(group, totals, strict=True):
                feed = kept | {p.cut: rows} | self._rows(weights, goal, len(rows))
                found = self._back.run(
                    [p.at_cut], {k: v for k, v in feed.items() if k in self._asked}
                )[0]
                found /= np.float32(len(points))
                for blend, row, slope in zip(blends, rows, found, strict=False):
                    if self._windows is None:
                        total += slope
                    else:
                        add_slope(total, blend, row, slope, scratch)
        return totals

    def _rows(self, weights: Weights, goal: int, count: int) -> Found:
        return {
            f"w_{name}": np.tile(
                np.asarray(weights[name][goal] if name in weights else np.zeros(n), np.float32),
                (count, 1),
            )
            for name, n in self._lengths.items()
        }

    def _stemmed(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """x -> s, laid out by windows."""
        found: NDArray[np.float32] = self._stem.run([self._places.stem], {"x": image[None]})[0][0]
        return found if self._windows is None else self._windows.lay(found)

    def _forward(self, laid: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """s -> c, into `out`."""
        if self._windows is None:
            out[:] = laid
        else:
            pooled(laid, out)

    def _ends(self, laid: NDArray[np.float32], names: Sequence[str]) -> Found:
        rows = np.empty((1, *self._at_cut), np.float32)
        self._forward(laid, rows[0])
        found = self._targets.run(list(names), {self._places.cut: rows})
        return dict(zip(names, found, strict=True))

    def _returned(self, slope: NDArray[np.float32]) -> NDArray[np.float32]:
        """Gradient at s -> gradient at x."""
        whole = slope if self._windows is None else self._windows.back(slope)
        found: NDArray[np.float32] = self._return.run(
            ["grad_input"], {self._places.at_stem: whole[None]}
        )[0][0]
        return found


def slices(
    classifier: bytes,
    gradients: bytes,
    lengths: Mapping[str, int],
    input_shape: Sequence[int],
    open_session: Open,
) -> tuple[Heads | None, Paths | None]:
    """What can be cut out of a bundle's two graphs. Raises BundleError for what is no graph."""
    whole = Whole.read(gradients).joined(Whole.read(classifier))
    if whole is None or not whole.plain:
        return None, None
    heads = Heads(whole, open_session)
    places = split(whole, [name for name in lengths if name != "logits"])
    if places is None:
        return heads, None
    try:
        return heads, Paths(whole, places, lengths, input_shape, open_session)
    except BundleError:
        return heads, None
