"""Edit of growth: one rounded lesion with a sharp border in place of an irregular one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.imaging.edits.scene import Scene

Array = NDArray[np.float64]

_AT = 0.93  # the rounded border, over that of the ellipsoid with the lesion's moments
_INNER = 0.6  # radius over the same ellipsoid within which nothing changes
_SOFT = 1.5  # width of the border, voxels
_SHARE = 0.7  # how far the change is carried out: where tissue ends is told with doubt
_REACH = 1.4  # radius over the VOI's ellipsoid up to which tissue may lie
_CONTRAST = 0.07  # with parenchyma, over all phases; below it nothing can be told apart


def rounded(scene: Scene) -> Array:
    """Tissue inside an ellipsoid, parenchyma outside, a border of a voxel or two.

    How much tissue a voxel holds is read from its likeness to the tissue's typical levels. The
    ellipsoid has the centre and the second moments of what holds most of it, so tongues, satellites
    and bulges on one side weigh little.
    """
    out = scene.relative.copy()
    tissue = scene.level(0.0, 0.7)
    size = float(tissue @ tissue)
    if size < _CONTRAST**2:
        return out
    radius, _ = scene.frame.place()
    near = np.clip((_REACH - radius) / 0.2, 0.0, 1.0)
    holds = np.clip(np.tensordot(tissue, scene.smooth, axes=1) / size, 0.0, 1.0)
    away = _ellipsoid(np.maximum(holds, radius < 0.5) ** 2 * near)
    wanted = np.clip((_AT - away) * scene.radius / _SOFT + 0.5, 0.0, 1.0)
    outer = np.clip((away - _INNER) / 0.2, 0.0, 1.0)
    change = _SHARE * (wanted - holds) * near * outer
    for p in scene.present:
        out[p] += change * tissue[p]
    return out


def _ellipsoid(weight: Array) -> Array:
    """[M, M, M] -> radius over the uniform ellipsoid with these weights' centre and moments."""
    points = np.indices(weight.shape, dtype=np.float64).reshape(3, -1)
    share = weight.ravel() / float(weight.sum())
    points -= (points @ share)[:, None]
    # A uniform ellipsoid's second moments are a fifth of its squared semi-axes.
    spread = 5 * (points * share) @ points.T + 0.25 * np.eye(3)
    square = np.einsum("in,in->n", np.linalg.solve(spread, points), points)
    return np.sqrt(np.maximum(square, 0.0)).reshape(weight.shape)
