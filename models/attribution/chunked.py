"""Batches of a fixed size through a model, so that numbers never depend on who shared a batch.

The chunks are a function of the number of rows alone: an explanation computed in-process and one
computed through a busy server see the same shapes and give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.model import Model

CHUNK = 8

Tick = Callable[[float], None]


def forward(
    model: Model,
    x: NDArray[np.float32],
    outputs: Sequence[str],
    tick: Tick | None = None,
) -> dict[str, NDArray[np.float32]]:
    """`model.forward` over x [n, P, K, K, K] in chunks; `tick(fraction)` before each may raise."""
    parts = []
    for start in range(0, len(x), CHUNK):
        if tick:
            tick(start / len(x))
        parts.append(model.forward(x[start : start + CHUNK], outputs))
    return {name: np.concatenate([part[name] for part in parts]) for name in outputs}


def gradients(
    model: Model,
    x: NDArray[np.float32],
    weights: Mapping[str, NDArray],
    wanted: Sequence[str],
    tick: Tick | None = None,
) -> dict[str, NDArray[np.float32]]:
    """`model.gradients` over x [n, P, K, K, K] with the same weights ([C] or [D]) for every row.

    wanted: of 'input' and tap names. Returns each as [n, ...].
    """
    parts: list[dict[str, NDArray[np.float32]]] = []
    for start in range(0, len(x), CHUNK):
        if tick:
            tick(start / len(x))
        rows = x[start : start + CHUNK]
        tiled = {
            name: np.tile(np.asarray(w, np.float32), (len(rows), 1)) for name, w in weights.items()
        }
        found = model.gradients(rows, tiled)
        parts.append({name: found[name] for name in wanted})
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}


def row_gradients(
    model: Model,
    x: NDArray[np.float32],
    weights: Sequence[Mapping[str, NDArray]],
    tick: Tick | None = None,
    wanted: str = "input",
) -> NDArray[np.float32]:
    """`model.gradients` over x [n, P, K, K, K], row i with the weights i. Returns `wanted`."""
    names = dict.fromkeys(name for row in weights for name in row)
    nothing = {n: np.zeros_like(next(row[n] for row in weights if n in row)) for n in names}
    parts = []
    for start in range(0, len(x), CHUNK):
        if tick:
            tick(start / len(x))
        some = weights[start : start + CHUNK]
        stacked = {
            name: np.stack([row.get(name, zero) for row in some]).astype(np.float32)
            for name, zero in nothing.items()
        }
        rows = np.ascontiguousarray(x[start : start + CHUNK])
        parts.append(model.gradients(rows, stacked)[wanted])
    return np.concatenate(parts)
