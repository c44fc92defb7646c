"""Where the lesion ends, direction by direction, from the image inside and around its box."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.imaging.frame import RADII, directions

Array = NDArray[np.float64]

# The box holds the lesion with a reader's margin: its border lies at or within the ellipsoid.
# Radii are over the VOI's ellipsoid; the least and the most that a border may lie at.
_EXPECTED, _SPREAD = 0.95, 0.25
_LEAST, _MOST = 0.45, 1.25
_REACH = 1.4  # how far out a voxel can speak against a border within
_FAINT = 0.10  # half of the smallest contrast that a border is told by
_WEIGHT = 0.6  # of the box's word against one sample's
_MOST_EVIDENCE = 1.5  # of one sample for tissue; one for parenchyma weighs 1 at most


def border(polar: Array) -> Array:
    """Relative intensities [P, D, R] -> radius of the lesion's border by direction, [D].

    Beyond it lies parenchyma, within anything: the outermost radius at which the contrast with
    parenchyma, over all phases together, falls under half of the lesion's own. Decided by the sum
    of what is gained and lost along a direction, smoothed over neighbouring directions, near where
    the box says that it should be.
    """
    contrast = np.sqrt((polar**2).sum(axis=0))
    inner = (RADII > 0.3) & (RADII < 0.85)
    half = max(0.5 * float(np.median(contrast[:, inner])), _FAINT)
    evidence = near() @ np.clip((contrast / half) ** 2 - 1.0, -1.0, _MOST_EVIDENCE)
    evidence[:, RADII > _REACH] = 0.0
    # Sum over the samples that a border at r leaves inside.
    score = np.cumsum(evidence, axis=1) - _WEIGHT * ((RADII - _EXPECTED) / _SPREAD) ** 2
    allowed = (RADII >= _LEAST) & (RADII <= _MOST)
    best = np.where(allowed, score, -np.inf).argmax(axis=1)
    rows = np.arange(len(best))
    # Between samples: where the evidence crosses zero.
    here, beyond = evidence[rows, best], evidence[rows, np.minimum(best + 1, len(RADII) - 1)]
    crosses = (here > 0) & (beyond < 0)
    part = np.where(crosses, here / np.where(crosses, here - beyond, 1.0), 0.5)
    return np.asarray(near() @ (RADII[best] + part * (RADII[1] - RADII[0])))


@lru_cache(maxsize=1)
def near() -> Array:
    """Weights that average over neighbouring directions (about 15 degrees), [D, D]."""
    ways = directions()
    weights = np.exp((ways @ ways.T - 1) / 0.035)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def extended(radii: Array, sphere: Array) -> Array:
    """The border [D] as a smooth surface, read where `sphere` [25, n] was evaluated -> [n]."""
    return np.clip(harmonics(radii) @ sphere, _LEAST, _MOST)


def harmonics(values: Array) -> Array:
    """Values by direction [D, ...] -> coefficients of `on_sphere`, least squares, [25, ...]."""
    return np.asarray(_solver() @ values)


def on_sphere(ways: Array) -> Array:
    """Polynomials of degree 3 and 4 at unit vectors: ways [3, n] -> [25, n].

    They span all spherical harmonics up to order 4.
    """
    squares = [w * w for w in ways]
    powers = [(1.0, w, s, s * w, s * s) for w, s in zip(ways, squares, strict=True)]
    degrees = [(a, b, d - a - b) for d in (3, 4) for a in range(d + 1) for b in range(d + 1 - a)]
    return np.stack([powers[0][a] * powers[1][b] * powers[2][c] for a, b, c in degrees])


@lru_cache(maxsize=1)
def everywhere() -> Array:
    """`on_sphere` at `directions`, [25, D]."""
    return on_sphere(directions().T)


@lru_cache(maxsize=1)
def _solver() -> Array:
    return np.asarray(np.linalg.pinv(everywhere().T))
