"""The values inside a graph: which there are, and which the whole network flows through."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from models.errors import InputError
from models.graph.shapes import Known, Shape


@dataclass(frozen=True)
class Value:
    """A value between input and logits. whole: every path to the logits leads through it."""

    name: str
    op: str
    shape: Shape
    whole: bool

    @property
    def width(self) -> int:
        """Channels."""
        return self.shape[1] or 0


def tap_values(graph: onnx.GraphProto, known: Known, source: str, target: str) -> list[Value]:
    """What can be a tap, in the graph's order: [batch, D] or [batch, D, x, y, z] on the way."""
    on_the_way = between(graph, source, target)
    found = []
    for node in graph.node:
        for name in node.output:
            shape = known.shapes.get(name, ())
            if name not in on_the_way or name == target or not _fits(shape):
                continue
            found.append(Value(name, node.op_type, shape, _whole(graph, source, target, name)))
    return found


def _fits(shape: Shape) -> bool:
    return len(shape) in (2, 5) and shape[0] is None and None not in shape[1:]


def between(graph: onnx.GraphProto, source: str, target: str) -> set[str]:
    """Values on a path from `source` to `target`, both ends included."""
    ahead = reached(graph, source)
    behind = {target}
    for node in reversed(graph.node):
        if any(o in behind for o in node.output):
            behind.update(node.input)
    return ahead & behind


def reached(graph: onnx.GraphProto, source: str, without: str = "") -> set[str]:
    """Values that follow from `source`, not counting ways through the value `without`."""
    found = {source}
    for node in graph.node:
        if any(i in found for i in node.input):
            found.update(o for o in node.output if o and o != without)
    return found


def carrying(graph: onnx.GraphProto, source: str, without: str = "") -> set[str]:
    """Values that depend on the source's numbers, not only on its shape."""
    pixels = onnx.GraphProto()
    pixels.node.extend(n for n in graph.node if n.op_type not in ("Shape", "Size"))
    return reached(pixels, source, without)


def fold(model: onnx.ModelProto, constants: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """A copy in which these values are constants, and nobody computes them any more."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [n for n in copy.graph.node if not all(o in constants for o in n.output if o)]
    used = {i for n in kept for i in n.input} | {o.name for o in copy.graph.output}
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    made = {o for n in kept for o in n.output}
    copy.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, order="C"), name)
        for name, value in constants.items()
        if name in used and name not in made
    )
    return copy


def _whole(graph: onnx.GraphProto, source: str, target: str, name: str) -> bool:
    return target not in carrying(graph, source, without=name)


def find(graph: onnx.GraphProto, asked: str, known: Iterable[str], field: str) -> str:
    """The value called `asked`, or the first output of the node called so.

    Raises InputError unknown_value with the names that come nearest.
    """
    values = {o for n in graph.node for o in n.output if o}
    if asked in values:
        return asked
    nodes = {n.name: n.output[0] for n in graph.node if n.name and n.output}
    if asked in nodes:
        return nodes[asked]
    raise InputError(
        "no such value in the graph",
        code="unknown_value",
        field=field,
        found=asked,
        expected=_near(asked, list(known) or sorted(values)),
    )


def _near(asked: str, names: Sequence[str]) -> str:
    """The likeliest of the names, for a person who mistyped one or a part of one."""

    def likeness(name: str) -> float:
        parts = [name, *re.split(r"[/.]", name)]
        return max(difflib.SequenceMatcher(None, asked.lower(), p.lower()).ratio() for p in parts)

    best = sorted(names, key=likeness, reverse=True)[:4]
    return "; ".join(n for n in best if likeness(n) > 0.6) or "one of those that --list-taps shows"
