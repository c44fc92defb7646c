"""Edits of the centre: a core or a scar filled with the tissue around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.imaging.edits.scene import STEPS, Scene

Array = NDArray[np.float64]

_FAINT, _CLEAR = 0.01, 0.08  # darker than the tissue: perhaps a strand, surely one
_GAIN = 1.3  # smoothing has taken part of a strand's contrast
_BEYOND, _LATEST = 0.12, 0.91  # how far beyond a core tissue is read, radii over the border


def hypoenhancing_core(scene: Scene) -> Array:
    """Raise what is darker than the tissue around it to its level, in every phase.

    Where the core ends is read from the last phase, whose contrast with it is strongest: half way
    from the centre's level to the highest. Tissue is read just beyond.
    """
    out = scene.relative.copy()
    mean = scene.profile.mean(axis=1)
    inner = STEPS <= 1.0
    last = mean[scene.present[-1]][inner]
    half = 0.5 * (last[:2].mean() + last.max())
    ends = float(STEPS[inner][int(np.argmax(last >= half))])
    beyond = min(ends + _BEYOND, _LATEST)
    for p in scene.present:
        tissue = float(np.interp(beyond, STEPS, mean[p]))
        lack = np.maximum(tissue - scene.smooth[p], 0.0)
        out[p] += lack * scene.cover(beyond)
    return out


def central_scar(scene: Scene) -> Array:
    """Give strands that are dark early the level of the tissue, in every phase."""
    out = scene.relative.copy()
    tissue = scene.level(0.0, 0.85)
    early = [p for p in scene.present if scene.phases[p] != "delayed"] or scene.present
    lack = np.mean([tissue[p] - scene.smooth[p] for p in early], axis=0)
    share = np.clip((lack - _FAINT) / (_CLEAR - _FAINT), 0.0, 1.0) * scene.cover(0.85)
    for p in scene.present:
        out[p] += share * _GAIN * (tissue[p] - scene.smooth[p])
    return out
