"""Edits of a rim: capsule or wall made even with what lies on either side of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.imaging.border import near
from models.imaging.edits.scene import STEPS, Scene

Array = NDArray[np.float64]

# A bright rim makes a lesion look smaller: where tissue meets parenchyma without it.
_MEETS = 1.04
_SOFT = 3.5  # voxels over which they meet, blur included
_FROM, _TO = 0.65, 1.4


def enhancing_capsule(scene: Scene) -> Array:
    """A capsule enhances late: the arterial phase is left as it is, if another is there."""
    first = scene.phase("arterial")
    late = [p for p in scene.present if p != first]
    return _equalise(scene, late or scene.present)


def thin_walled(scene: Scene) -> Array:
    """A wall may show in any phase."""
    return _equalise(scene, scene.present)


def _equalise(scene: Scene, phases: list[int]) -> Array:
    """Lower what stands out around the border to the tissue within and parenchyma beyond."""
    out = scene.relative.copy()
    for p in phases:
        if p not in scene.rims:
            scene.rims[p] = _excess(scene, p)
        out[p] -= scene.rims[p]
    return out


def _excess(scene: Scene, phase: int) -> Array:
    """Direction by direction, what is brighter than a transition of tissue to parenchyma."""
    inner = (STEPS > 0.45) & (STEPS < 0.7)
    within = np.clip((_MEETS - STEPS) * scene.radius / _SOFT + 0.5, 0.0, 1.0)
    taper = np.clip((STEPS - _FROM) / 0.1, 0, 1) * np.clip((_TO - STEPS) / 0.1, 0, 1)
    profile = scene.profile[phase]
    tissue = near() @ profile[:, inner].mean(axis=1)
    plain = tissue[:, None] * within
    return scene.spread(np.maximum(profile - plain, 0.0) * taper)
