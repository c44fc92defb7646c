"""Occlusion: how much does the target fall when a cube of one phase is made like the baseline?

    map = (target at x - target with the cube from the baseline) / voxels of the cube

averaged over the cubes that hold a voxel. Source: Zeiler & Fergus 2014 (arXiv 1311.2901). Forwards
only, shared by all goals with the same baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from models.attribution import chunked
from models.attribution.goal import Attribution, Goal, Settings, changes
from models.model import Model
from models.recipes import CHUNK


def occlusion(
    model: Model,
    x: NDArray[np.float32],
    goals: Sequence[Goal],
    settings: Settings = Settings(),  # noqa: B008 - frozen
    tick: chunked.Tick | None = None,
) -> list[Attribution]:
    """A map for each goal. x: [P, K, K, K]. A phase that was not acquired is not occluded."""
    places = _places(x, settings)
    outputs = list(dict.fromkeys(name for goal in goals for name in goal.weights))
    groups: dict[bytes, list[int]] = {}
    for i, goal in enumerate(goals):
        key = b"" if goal.baseline is None else goal.baseline.tobytes()
        groups.setdefault(key, []).append(i)
    maps = [np.zeros(x.shape) for _ in goals]
    whole = model.forward(x[None], outputs)
    for number, members in enumerate(groups.values()):
        start = goals[members[0]].reference(x)
        count = np.zeros(x.shape)
        for first in range(0, len(places), CHUNK):
            if tick:
                tick((number + first / len(places)) / len(groups))
            batch = places[first : first + CHUNK]
            images = np.repeat(x[None], len(batch), axis=0)
            for image, place in zip(images, batch, strict=True):
                image[place] = start[place]
            found = model.forward(images, outputs)
            for row, place in enumerate(batch):
                count[place] += 1
                size = x[place].size
                for i in members:
                    fall = sum(
                        float(np.asarray(w, np.float64) @ (whole[n][0] - found[n][row]))
                        for n, w in goals[i].weights.items()
                    )
                    maps[i][place] += fall / size
        for i in members:
            maps[i] /= np.maximum(count, 1)
    return [
        Attribution(image.astype(np.float32), change, complete=False)
        for image, change in zip(maps, changes(model, x, goals), strict=True)
    ]


def _places(x: NDArray[np.float32], settings: Settings) -> list[tuple[int | slice, ...]]:
    """Cubes that cover each acquired phase, the last ones flush with the border."""
    axes = []
    for edge in x.shape[1:]:
        window = min(settings.window, edge)
        starts = sorted({*range(0, edge - window + 1, settings.stride), edge - window})
        axes.append([slice(s, s + window) for s in starts])
    return [(p, *cube) for p in range(len(x)) if x[p].any() for cube in product(*axes)]
