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
