"""Edit of texture: a mosaic smoothed away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.imaging.edits.scene import Scene

Array = NDArray[np.float64]

_GAIN = 1.1  # smoothing has taken part of the mosaic's contrast
_RINGS = 7  # layers whose mean is the radial profile; the last is all that lies beyond the border


def heterogeneous(scene: Scene) -> Array:
    """Take away what the phases share of the tissue's variation around its radial profile."""
    out = scene.relative.copy()
    inside = scene.cover(0.95)
    ring = np.minimum((scene.rho * (_RINGS - 1)).astype(np.intp), _RINGS - 1)
    flat = ring.ravel()
    count = np.maximum(np.bincount(flat, minlength=_RINGS), 1)
    rest = []
    for p in scene.present:
        mean = np.bincount(flat, scene.smooth[p].ravel(), _RINGS) / count
        rest.append(scene.smooth[p] - mean[ring])
    shared = _GAIN * np.mean(rest, axis=0)
    for p in scene.present:
        out[p] -= shared * inside
    return out
