"""Integrated gradients: from a baseline to the lesion.

    map = (x - b) * integral over a in [0, 1] of the gradient of the target at b + a (x - b)

Source: Sundararajan et al. 2017 (arXiv 1703.01365). The baseline is zero, which the preprocessing
defines as the parenchyma's intensity: the map says what each voxel's difference from parenchyma
adds to the target. Or it is the lesion itself with a feature edited out (models.imaging): the map
then says what the voxels that make the feature add. Its sum is the target's change (completeness),
so zero and scale mean something. The integral is a midpoint sum: the gradient of a network of ReLUs
jumps along the path, and Gauss-Legendre nodes came no nearer (16 steps: 2 to 4 % against 1 to 3 %
of the map's norm on six lesions).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.attribution import chunked
from models.attribution.goal import Attribution, Goal, Settings, changes
from models.model import Model


def integrated_gradients(
    model: Model,
    x: NDArray[np.float32],
    goals: Sequence[Goal],
    settings: Settings = Settings(),  # noqa: B008 - frozen
    tick: chunked.Tick | None = None,
) -> list[Attribution]:
    """A map for each goal. x: [P, K, K, K]. `settings.steps` points on each path."""
    steps = settings.steps
    path = ((np.arange(steps) + 0.5) / steps).astype(np.float32)[:, None, None, None, None]
    found = []
    for i, (goal, change) in enumerate(zip(goals, changes(model, x, goals), strict=True)):

        def part(fraction: float, i: int = i) -> None:
            if tick:
                tick((i + fraction) / len(goals))

        start = goal.reference(x)
        images = start[None] + path * (x - start)[None]
        slopes = chunked.gradients(model, images, goal.weights, ["input"], part)["input"]
        mean = slopes.mean(axis=0, dtype=np.float64)
        found.append(Attribution((mean * (x - start)).astype(np.float32), change))
    return found
