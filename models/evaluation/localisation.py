"""Does a map lie where the structure is? Against true masks, and beside two controls.

    pointing   does the map's peak lie in the mask? (Zhang et al. 2018, arXiv 1608.00507)
    AUPRC      average precision of the map's voxels as a detector of the mask's

A map [P, K, K, K] is read as the sum over phases of its absolute values, smoothed over less than a
voxel: a gradient's sign flips from voxel to voxel where a network pools. Controls that know no
network: how near the centre a voxel lies, and how strong an edge runs through it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.evaluation.resampling import Drawn, Weights

SMOOTHING = 0.7  # voxels; chosen on validation
FOCAL = 0.75  # of the lesion: a structure that covers less in the median is focal

Score = NDArray[np.float64]  # [K, K, K]
Mask = NDArray[np.bool_]


def read_out(image: NDArray[Any], smoothing: float = SMOOTHING) -> Score:
    """[P, K, K, K] -> where it is strong, [K, K, K], not negative."""
    strength = np.abs(np.asarray(image, dtype=np.float64)).sum(axis=0)
    return np.asarray(ndimage.gaussian_filter(strength, smoothing) if smoothing else strength)


def pointing(score: Score, mask: Mask) -> float:
    """1 where the peak lies in the mask, else 0. Of several equal peaks, the share that does.

    NaN for an empty mask. A map that is the same everywhere points nowhere: 0.
    """
    if not mask.any():
        return float("nan")
    peak = score == score.max()
    return 0.0 if peak.all() else float(mask[peak].mean())


def average_precision(score: Score, mask: Mask) -> float:
    """Mean precision at the mask's voxels, from the strongest on; equal voxels count together.

    A constant score gives the mask's share of the volume; NaN for an empty mask.
    """
    m = mask.ravel()
    if not m.any():
        return float("nan")
    s = score.ravel()
    order = np.argsort(-s, kind="stable")
    hits = np.cumsum(m[order])
    # Precision at the last voxel of each run of equal scores serves the whole run.
    last = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)
    precision = hits[last] / (last + 1)
    gained = np.diff(np.append(0, hits[last]))
    return float((precision * gained).sum() / hits[-1])


def centre_prior(edge: int) -> Score:
    """Higher nearer the centre of a cube of `edge` voxels; only the order counts."""
    away = (np.arange(edge) - (edge - 1) / 2) ** 2
    distance = away[:, None, None] + away[None, :, None] + away[None, None, :]
    return np.asarray(1 - distance / distance.max(), dtype=np.float64)


def edge_detector(x: NDArray[np.float32]) -> Score:
    """Sobel gradient magnitude of each phase, summed; x: [P, K, K, K]."""
    return np.asarray(
        sum(ndimage.generic_gradient_magnitude(p.astype(np.float64), ndimage.sobel) for p in x)
    )


def is_focal(masks: list[Mask], lesions: list[Mask]) -> bool:
    """Do the masks cover less than `FOCAL` of their lesions, in the median?

    False where no mask of a lesion is known.
    """
    shares = [
        (mask & lesion).sum() / lesion.sum()
        for mask, lesion in zip(masks, lesions, strict=True)
        if lesion.any()
    ]
    return bool(shares) and float(np.median(shares)) < FOCAL


def group_means(
    values: NDArray[Any], lesion: NDArray[np.int64], group: NDArray[np.int64], w: Weights
) -> NDArray[np.float64]:
    """Mean of the maps' values in each group (a feature), for each draw of lesions, [B, G].

    values: [m], a map each; NaN is left out. lesion: [m], its column in w. group: [m], 0 to G - 1.
    NaN where a draw holds none of a group.
    """
    known = np.isfinite(values)
    v, counts = np.asarray(values, np.float64)[known], w[:, lesion[known]].astype(np.float64)
    out = np.full((len(w), int(group.max()) + 1 if len(group) else 0), np.nan)
    for g in range(out.shape[1]):
        here = group[known] == g
        total = counts[:, here].sum(axis=1)
        np.divide(counts[:, here] @ v[here], total, out=out[:, g], where=total > 0)
    return out


def mean_of_groups(means: NDArray[np.float64]) -> Drawn:
    """Macro mean over the groups that a draw holds, [B]."""
    known = np.isfinite(means)
    total = known.sum(axis=1)
    out = np.full(len(means), np.nan)
    np.divide(np.where(known, means, 0).sum(axis=1), total, out=out, where=total > 0)
    return out
