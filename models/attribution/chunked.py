"""Batches of a fixed size through a model, so that numbers never depend on who shared a batch.

The chunks are a function of the number of rows alone: an explanation computed in-process and one
computed through a busy server see the same shapes and give the same numbers. Between two requests a
job tells how far it is and can be cancelled, so a recipe is asked for in parts of about a second on
a network of the published size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.model import Model
from models.recipes import CHUNK, Draw, Line, joined

PASSES = 32  # rows of a request for passes
EVALUATIONS = 32  # gradients of a request for paths

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
        found = model.gradients(rows, tiled, wanted)
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
        parts.append(model.gradients(rows, stacked, [wanted])[wanted])
    return np.concatenate(parts)


def passes(
    model: Model,
    draw: Draw,
    outputs: Sequence[str],
    weights: Mapping[str, NDArray[np.float32]],
    tick: Tick | None = None,
) -> dict[str, NDArray[np.float32]]:
    """`model.passes` in requests of at most PASSES passes."""
    parts = []
    for start in range(0, draw.count, PASSES):
        if tick:
            tick(start / draw.count)
        count = min(PASSES, draw.count - start)
        part = replace(draw, first=draw.first + start, count=count)
        parts.append(model.passes(part, outputs, weights))
    return joined(parts, outputs)


def paths(
    model: Model,
    x: NDArray[np.float32],
    baselines: Sequence[NDArray[np.float32]],
    weights: Sequence[Mapping[str, NDArray]],
    steps: int,
    tick: Tick | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`model.paths`, a row a goal: mean gradients [G, P, K, K, K] and changes [G].

    weights: of each goal's target. Goals of one request weigh the same outputs; those with one
    comparison stand side by side, since they share its forwards.
    """
    gradient = np.empty((len(weights), *x.shape), np.float32)
    change = np.empty(len(weights), np.float32)
    requests = _requests(baselines, weights, steps)
    for number, goals in enumerate(requests):
        stacked = {
            name: np.stack([np.asarray(weights[g][name], np.float32) for g in goals])
            for name in weights[goals[0]]
        }
        images = np.stack([baselines[g] for g in goals])
        parts = []
        for start in range(0, steps, EVALUATIONS):
            if tick:
                tick((number + start / steps) / len(requests))
            count = min(EVALUATIONS, steps - start)
            parts.append((count, model.paths(Line(x, images, steps, start, count), stacked)))
        mean: NDArray[np.floating] = parts[0][1]["gradient"]
        if len(parts) > 1:
            mean = np.zeros(images.shape, np.float64)
            for count, found in parts:
                mean += found["gradient"].astype(np.float64) * (count / steps)
        gradient[goals], change[goals] = mean, parts[-1][1]["change"]
    return gradient, change


def _requests(
    baselines: Sequence[NDArray[np.float32]], weights: Sequence[Mapping[str, NDArray]], steps: int
) -> list[list[int]]:
    """Goals by request, of at most EVALUATIONS evaluations where one goal does not take more."""
    kinds: dict[tuple[str, ...], dict[bytes, list[int]]] = {}
    for goal, (baseline, row) in enumerate(zip(baselines, weights, strict=True)):
        alike = kinds.setdefault(tuple(row), {})
        alike.setdefault(baseline.tobytes(), []).append(goal)
    size = max(1, EVALUATIONS // steps)
    found = []
    for alike in kinds.values():
        order = [goal for same in alike.values() for goal in same]
        found += [order[start : start + size] for start in range(0, len(order), size)]
    return found
