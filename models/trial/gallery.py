"""A picture a feature: the default map over a test lesion that shows it, with the true mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.attribution.goal import Settings
from models.attribution.registry import DEFAULT, method
from models.reasons.maps import feature_goal
from models.trial.mapped import MappedLesions, Network, chosen
from models.voi import centre


@dataclass(frozen=True)
class Plate:
    """One axial slice. feature, lesion_id, phase: what is seen. image, heat: [K, K], of the plain
    view and of the map; mask: bool [K, K]. The slice is the one that shows most of the mask, the
    phase the one whose map is strongest.
    """

    feature: str
    lesion_id: str
    phase: str
    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    mask: NDArray[np.bool_]


def plates(
    lesions: MappedLesions, own: Network, settings: Settings, *, seed: int = 0, each: int = 1
) -> list[Plate]:
    """For each feature the first lesions among those that the map figures look at.

    A feature without a lesion whose mask is seen has no plate.
    """
    manifest = own.bundle.manifest
    draw, done, found = method(DEFAULT["feature"]), dict.fromkeys(manifest.features, 0), []
    for i, targets in chosen(lesions, "feature", each, seed):
        names = [manifest.features[t] for t in targets]
        names = [n for n in names if done[n] < each and _seen(lesions, i, n)]
        if not names:
            continue
        base = np.asarray(lesions.bases[i])
        x = centre(base, own.bundle.preprocessing)
        goals = [feature_goal(n, own.bundle, base, lesions.sizes_mm[i]) for n in names]
        for name, drawn in zip(names, draw(own.model, x, goals, settings), strict=True):
            done[name] += 1
            mask = lesions.masks[i][name]
            found.append(_plate(name, lesions.ids[i], manifest.phases, x, drawn.map, mask))
    return sorted(found, key=lambda p: manifest.features.index(p.feature))


def _seen(lesions: MappedLesions, i: int, name: str) -> bool:
    return bool(lesions.masks) and name in lesions.masks[i] and bool(lesions.masks[i][name].any())


def _plate(
    feature: str,
    lesion_id: str,
    phases: Sequence[str],
    x: NDArray[np.float32],
    heat: NDArray[np.float32],
    mask: NDArray[np.bool_],
) -> Plate:
    z = int(mask.sum(axis=(0, 1)).argmax())
    p = int(np.abs(heat[..., z]).max(axis=(1, 2)).argmax())
    return Plate(feature, lesion_id, phases[p], x[p, ..., z], heat[p, ..., z], mask[..., z])
