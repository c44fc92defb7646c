"""Enhancement: how bright each layer is in each phase, and what changes between phases."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from models.imaging.layers import GRID, Layers, Measurement

Array = NDArray[np.float64]

# Layers by radius over the border.
LAYERS = {
    "hub": (0.0, 0.25), "core": (0.25, 0.5), "middle": (0.5, 0.72), "outer": (0.72, 0.9),
    "rim": (0.9, 1.02), "beside": (1.05, 1.25),
}  # fmt: skip
_QUANTILES = ("p05", "p25", "median", "p75", "p95")
# Over parenchyma: clearly brighter, clearly darker, alike.
_BRIGHT, _DARK, _SOFT, _ALIKE = 0.15, -0.25, 0.05, 0.06


def kinetics(lesion: Layers) -> list[Measurement]:
    """Levels by layer and by share of the tissue, the same as changes, and the radial slope."""
    out: list[Measurement] = []
    layer = {k: lesion.layer(*v).mean(axis=1) for k, v in LAYERS.items()}
    tissue, weight = lesion.within
    mean = tissue.mean(axis=1)
    slope = _slope(mean, weight)
    bright = _share(tissue, weight, _BRIGHT, 1.0)
    dark = _share(tissue, weight, _DARK, -1.0)
    alike = np.exp(-0.5 * (tissue / _ALIKE) ** 2).mean(axis=1) @ weight
    for p, phase in enumerate(lesion.phases):
        row = {k: v[p] for k, v in layer.items()}
        row |= dict(zip(_QUANTILES, lesion.quantiles[p], strict=True))
        row |= {"slope": slope[p], "bright": bright[p], "dark": dark[p], "alike": alike[p]}
        out += [Measurement(f"{phase}.{k}", float(v), (p,)) for k, v in row.items()]
    for a, b in combinations(range(len(lesion.phases)), 2):
        row = {k: layer[k][b] - layer[k][a] for k in ("core", "outer", "rim")}
        row["median"] = lesion.quantiles[b, 2] - lesion.quantiles[a, 2]
        row["slope"] = slope[b] - slope[a]
        pair = f"{lesion.phases[a]}>{lesion.phases[b]}"
        out += [Measurement(f"{pair}.{k}", float(v), (a, b)) for k, v in row.items()]
    return out


def _slope(mean: Array, weight: Array) -> Array:
    """Least-squares slope of the mean level over the radius, [P]."""
    radius = GRID[: len(weight)]
    centred = radius - radius @ weight
    return np.asarray(mean @ (centred * weight) / (centred**2 @ weight))


def _share(tissue: Array, weight: Array, level: float, sign: float) -> Array:
    """Share of the tissue's volume beyond a level, softly, [P]."""
    beyond = 0.5 * (1 + np.tanh(sign * (tissue - level) / (2 * _SOFT)))
    return np.asarray(beyond.mean(axis=1) @ weight)
