"""Many evaluations as one request: a recipe says how to make the inputs, the model makes them.

    Draw   one lesion's base -> stochastic passes       -> outputs and tap gradients, a row a pass
    Line   one image, comparisons -> points on the ways -> mean input gradient and change, a row a
           goal

`Composed` answers both from `forward` and `gradients`; a model that knows a shorter way overrides
it (models.bundle.sliced). Chunks are a function of the number of rows alone, so that numbers never
depend on who shared a batch, or on where the model runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.passes import PassRecipe, views
from models.turns import make_way
from models.voi import Preprocessing

CHUNK = 8
GRADIENT_COST = 3
"""What a row of gradients costs in rows of the classifier, as measured (docs/architecture.md)."""

Weights = Mapping[str, NDArray[np.float32]]
Found = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Draw:
    """Passes first to first + count - 1 of a lesion. base: [P, M, M, M] (models.voi.normalise).

    Pass i depends on (seed, i) alone, so passes can be asked for in parts.
    """

    base: NDArray[np.float32]
    spec: Preprocessing
    recipe: PassRecipe
    count: int
    seed: int
    first: int = 0

    def views(self) -> NDArray[np.float32]:
        """[count, P, K, K, K]"""
        return views(self.base, self.spec, self.recipe, self.count, self.seed, self.first)


@dataclass(frozen=True)
class Line:
    """Straight ways from comparisons to one image, and points on them.

    x: [P, K, K, K]. baselines: [G, P, K, K, K], a row a goal. The points are (k + 1/2) / steps for
    k from first to first + count - 1.
    """

    x: NDArray[np.float32]
    baselines: NDArray[np.float32]
    steps: int
    first: int = 0
    count: int | None = None

    @property
    def points(self) -> NDArray[np.float32]:
        """Share of the way, [count]."""
        count = self.steps - self.first if self.count is None else self.count
        return ((np.arange(self.first, self.first + count) + 0.5) / self.steps).astype(np.float32)

    def groups(self) -> list[list[int]]:
        """Goals with the very same comparison, which share everything but the way back."""
        seen: dict[bytes, list[int]] = {}
        for i, baseline in enumerate(self.baselines):
            seen.setdefault(baseline.tobytes(), []).append(i)
        return list(seen.values())


class _Plain(Protocol):
    """What recipes are composed from."""

    def forward(self, x: NDArray[np.float32], outputs: Sequence[str]) -> Found: ...

    def gradients(
        self,
        x: NDArray[np.float32],
        weights: Weights,
        wanted: Sequence[str] | None = None,
    ) -> Found: ...


class Composed:
    """models.model.Model.passes and .paths from forward and gradients: the plain way."""

    def passes(self: _Plain, draw: Draw, outputs: Sequence[str], weights: Weights) -> Found:
        """As models.model.Model.passes."""
        x = draw.views()
        taps = [name.removeprefix("grad_") for name in outputs if name.startswith("grad_")]
        plain = [name for name in outputs if not name.startswith("grad_")]
        parts: list[Found] = []
        for rows in chunks(x):
            found = dict(self.forward(rows, plain)) if plain else {}
            if taps:
                tiled = {k: np.tile(w, (len(rows), 1)) for k, w in weights.items()}
                slopes = self.gradients(rows, tiled, taps)
                found |= {f"grad_{tap}": slopes[tap] for tap in taps}
            parts.append(found)
        return joined(parts, outputs)

    def paths(self: _Plain, line: Line, weights: Weights) -> Found:
        """As models.model.Model.paths."""
        x, points = line.x, line.points[:, None, None, None, None]
        names = list(weights)
        end = self.forward(x[None], names)
        mean = np.empty(line.baselines.shape, np.float32)
        change = np.empty(len(line.baselines), np.float32)
        for group in line.groups():
            start = line.baselines[group[0]]
            begin = self.forward(start[None], names)
            images = start[None] + points * (x - start)[None]
            for goal in group:
                slopes = [
                    self.gradients(
                        rows,
                        {k: np.tile(w[goal], (len(rows), 1)) for k, w in weights.items()},
                        ["input"],
                    )["input"]
                    for rows in chunks(images, GRADIENT_COST)
                ]
                mean[goal] = np.concatenate(slopes).mean(axis=0, dtype=np.float64)
                change[goal] = difference(end, begin, weights, goal)
        return {"gradient": mean, "change": change}


def chunks(x: NDArray[np.float32], cost: int = 1) -> Iterator[NDArray[np.float32]]:
    """x [n, ...] in parts of CHUNK rows, the last one shorter; makes way before each.

    cost: of a row, in rows of the classifier.
    """
    for start in range(0, len(x), CHUNK):
        rows = x[start : start + CHUNK]
        make_way(len(rows) * cost)
        yield rows


def joined(parts: Sequence[Found], names: Sequence[str]) -> Found:
    """The rows of all parts, by name."""
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def difference(end: Found, begin: Found, weights: Weights, goal: int) -> float:
    """Target at the end of the way less that at its beginning; both of one row."""
    return sum(
        float(w[goal].astype(np.float64) @ (end[k][0].astype(np.float64) - begin[k][0]))
        for k, w in weights.items()
    )
