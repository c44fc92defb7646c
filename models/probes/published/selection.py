"""From scores to 'found', by the rules of the two publications. Both were set in view of results.

Wang et al. 2019: the four features of the highest evidence, after offsets by hand (`OFFSETS`), of
washout and isointensity only the stronger one, and without a third and fourth feature that fall far
behind the others. SPIE 2019: scores above the lowest one among the feature's own labelled lesions,
as a share of the highest of those, four at most, none that shares no class with the first.
The numbers are those of the authors' code; features that a vocabulary lacks have no rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST = 4  # features of a lesion

# Nats taken from the evidence, whatever the lesion shows.
OFFSETS = {"infiltrative_growth": 40.0, "nodular_growth": 40.0}
LOSER = {"infiltrative_growth": 40.0, "nodular_growth": 20.0}
SCAR, SCAR_SMALL, SCAR_OTHER = "central_scar", 150.0, 35.0
EXCLUSIVE = ("isointense_late", "washout")


def wang2019_found(
    scores: NDArray[np.float64],
    features: Sequence[str],
    sizes_mm: NDArray[np.float64],
    scar_mm: float,
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """scores: log ratios [n, F]. sizes_mm: VOI edges [n, 3]. scar_mm: 75th percentile of the edge
    (cube root of the volume) of training lesions with focal nodular hyperplasia; smaller lesions
    hardly get a scar.

    Returns found [n, F] and the first feature of each lesion [n] (-1: none).
    """
    evidence = np.array(scores, dtype=np.float64)
    place = {name: i for i, name in enumerate(features)}
    for name, nats in OFFSETS.items():
        if name in place:
            evidence[:, place[name]] -= nats
    if all(name in place for name in LOSER):
        infiltrative, nodular = (place[name] for name in LOSER)
        behind = evidence[:, infiltrative] < evidence[:, nodular]
        evidence[:, infiltrative] -= np.where(behind, LOSER["infiltrative_growth"], 0.0)
        evidence[:, nodular] -= np.where(behind, 0.0, LOSER["nodular_growth"])
    if SCAR in place:
        small = np.cbrt(np.prod(sizes_mm, axis=1)) < scar_mm
        evidence[:, place[SCAR]] -= np.where(small, SCAR_SMALL, SCAR_OTHER)
    if all(name in place for name in EXCLUSIVE):
        late, washout = (place[name] for name in EXCLUSIVE)
        weaker = evidence[:, late] < evidence[:, washout]
        evidence[weaker, late] = -np.inf
        evidence[~weaker, washout] = -np.inf
    order, top = _ranked(evidence)
    keep = np.isfinite(top)
    with np.errstate(invalid="ignore"):
        if keep.shape[1] > 3:
            keep[:, 3] &= top[:, :3].mean(axis=1) / 3 <= top[:, 3]
        if keep.shape[1] > 2:
            keep[:, 2] &= top[:, :2].mean(axis=1) / 3 <= top[:, 2]
    return _spread(order, keep, evidence.shape)


def spie_thresholds(
    scores: NDArray[np.float64], labels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest score of each feature among the labelled lesions that show it, [F] each.

    scores: log ratios of the labelled lesions [n, F], which are part of the densities. The code
    takes two passes of each. No lesion: +inf and 0, so that the feature is never found.
    """
    shown = np.where(np.asarray(labels) == 1, scores, np.nan)
    none = ~np.isfinite(shown).any(axis=0)
    filled = np.where(none, 0.0, shown)
    lowest = np.where(none, np.inf, np.nanmin(filled, axis=0))
    return lowest, np.nanmax(filled, axis=0)


def spie_exclusions(labels: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[F, F]: do two features share no class among the labelled lesions?"""
    shown = np.asarray(labels) == 1
    seen = np.stack([shown[classes == c].any(axis=0) for c in np.unique(classes)]).astype(int)
    return np.asarray(seen.T @ seen == 0)


def spie_found(
    scores: NDArray[np.float64],
    lowest: NDArray[np.float64],
    highest: NDArray[np.float64],
    exclusions: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """scores: log ratios [n, F]. Returns found [n, F] and the first feature of each lesion [n].

    The first one is always given, even where no score reaches its threshold.
    """
    share = np.where(scores > lowest, scores - highest, -np.inf)
    order, top = _ranked(share)
    keep = np.isfinite(top)
    keep[:, 0] = True
    keep[:, 1:] &= ~exclusions[order[:, :1], order[:, 1:]]
    return _spread(order, keep, share.shape)


def _ranked(
    evidence: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The indices and values of the strongest features, the strongest first, [n, 4] each."""
    order = np.argsort(-evidence, axis=1, kind="stable")[:, :MOST]
    return order.astype(np.int64), np.take_along_axis(evidence, order, axis=1)


def _spread(
    order: NDArray[np.int64], keep: NDArray[np.bool_], shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    found = np.zeros(shape, dtype=bool)
    np.put_along_axis(found, order, keep, axis=1)
    return found, np.where(keep[:, 0], order[:, 0], -1)
