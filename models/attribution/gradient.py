"""Gradient times input, and SmoothGrad.

    gradient x input   map = (x - b) * gradient of the target at x
    SmoothGrad         map = (x - b) * mean over noisy copies of the gradient at x + noise

b: the goal's baseline. Sources: Shrikumar et al. 2016 (arXiv 1605.01713); Smilkov et al. 2017
(arXiv 1706.03825), times the input so that a voxel like the baseline gets nothing. Neither promises
that its sum is the target's change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.attribution import chunked
from models.attribution.goal import Attribution, Goal, Settings, changes
from models.model import Model


def gradient_x_input(
    model: Model,
    x: NDArray[np.float32],
    goals: Sequence[Goal],
    settings: Settings = Settings(),  # noqa: B008 - frozen
    tick: chunked.Tick | None = None,
) -> list[Attribution]:
    """A map for each goal. x: [P, K, K, K]. All goals share the batches."""
    copies = np.broadcast_to(x, (len(goals), *x.shape))
    slopes = chunked.row_gradients(model, copies, [g.weights for g in goals], tick)
    return [
        Attribution((slope * (x - goal.reference(x))).astype(np.float32), change, complete=False)
        for slope, goal, change in zip(slopes, goals, changes(model, x, goals), strict=True)
    ]


def smoothgrad(
    model: Model,
    x: NDArray[np.float32],
    goals: Sequence[Goal],
    settings: Settings = Settings(),  # noqa: B008 - frozen
    tick: chunked.Tick | None = None,
) -> list[Attribution]:
    """A map for each goal, over `settings.steps` noisy copies that all goals share.

    A phase that was not acquired (zero throughout) gets no noise.
    """
    rng = np.random.default_rng([settings.seed, 0x5306])
    noise = rng.standard_normal((settings.steps, *x.shape), dtype=np.float32)
    noise *= np.float32(settings.noise * np.ptp(x))
    for p, plane in enumerate(x):
        if not plane.any():
            noise[:, p] = 0
    found = []
    for i, (goal, change) in enumerate(zip(goals, changes(model, x, goals), strict=True)):

        def part(fraction: float, i: int = i) -> None:
            if tick:
                tick((i + fraction) / len(goals))

        slopes = chunked.gradients(model, x[None] + noise, goal.weights, ["input"], part)["input"]
        slope = slopes.mean(axis=0, dtype=np.float64)
        image = (slope * (x - goal.reference(x))).astype(np.float32)
        found.append(Attribution(image, change, complete=False))
    return found
