"""Edits of blood that stands at the periphery or fills in from there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.imaging.edits.kinetics import retained
from models.imaging.edits.scene import STEPS, Scene

Array = NDArray[np.float64]

_RISE = 0.15  # of the outer layer over the empty centre: twice that is surely blood that filled in


def nodular_peripheral_enhancement(scene: Scene) -> Array:
    """Give globules that are bright in the first phase the level of the tissue between them."""
    out = scene.relative.copy()
    share = _globules(scene)
    for p in scene.present:
        out[p] += share * np.minimum(_between(scene, p) - scene.smooth[p], 0.0)
    return out


def progressive_centripetal_filling(scene: Scene) -> Array:
    """Keep the interior at its level before anything filled in; early globules stay.

    Where the delayed phase is brighter than blood would make it, most of that has another cause.
    """
    out = scene.relative.copy()
    first = scene.phase("arterial")
    if first is None:
        return out
    centre = float(scene.level(0.0, 0.6)[first])
    outer = scene.level(0.6, 0.9)
    came = max(float(outer[p]) for p in scene.present) - centre
    empty = centre * scene.cover(soft=2.5)
    rest = (1 - _globules(scene)) * float(np.clip((came - _RISE) / _RISE, 0.0, 1.0))
    for p in scene.present:
        filled = np.maximum(scene.smooth[p] - empty, 0.0)
        if p == first:
            filled = np.minimum(filled, np.maximum(_between(scene, p) - empty, 0.0))
        if scene.phases[p] == "delayed":
            filled = filled * (1 - retained(scene))
        out[p] -= filled * scene.cover(1.05) * rest
    return out


def _between(scene: Scene, phase: int) -> Array:
    """Level of the tissue between globules at each voxel's radius: a third of a layer is below."""
    low = np.quantile(scene.profile[phase], 0.3, axis=0)
    return np.asarray(np.interp(scene.rho, STEPS, low))


def _globules(scene: Scene) -> Array:
    """How far a voxel belongs to a globule, by the first phase."""
    first = scene.present[0]
    stands = scene.smooth[first] - _between(scene, first)
    return np.clip((stands - 0.08) / 0.12, 0.0, 1.0) * scene.cover(1.1) * (1 - scene.cover(0.4))
