"""What the network's input looks like, in some dozens of numbers that need no network.

A classifier is trained to ignore whatever does not tell its classes apart, so activations alone
miss much of what is strange in an image. These numbers see it: how bright and how uneven each phase
is from the centre outwards, how rough along each axis, and how much the phases resemble one another
(a phase copied over another has the noise of its source).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Radii over half the edge that separate the shells; the VOI's own edge is 0.67 at the usual view.
_EDGES = (0.17, 0.29, 0.42, 0.54, 0.67, 0.83, 1.04)
SHELLS = len(_EDGES) + 1
# Below these a spread is silence: normalised units.
_FLOOR = 0.02


def length(phases: int) -> int:
    """How many numbers `describe` gives for this many phases."""
    return phases * (2 * SHELLS + 4) + phases * (phases - 1)


def describe(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Tensor [P, K, K, K] (models.voi.centre) -> [length(P)]:

    P x shells mean, P x shells log spread, P x 3 log roughness along the axes, P log of the finest
    detail over the spread, and per pair of phases the correlation of the whole and of the finest
    detail (Fisher's z).
    """
    values = x.astype(np.float64)
    p, k = values.shape[:2]
    flat = values.reshape(p, -1)
    which, counts = _shells(k)
    mean = np.stack([np.bincount(which, row, SHELLS) for row in flat]) / counts
    square = np.stack([np.bincount(which, row * row, SHELLS) for row in flat]) / counts
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    steps = [_rms(np.diff(values, axis=a).reshape(p, -1)) for a in (1, 2, 3)]
    detail = values[:, 1:-1, 1:-1, 1:-1] * -6
    detail += values[:, 2:, 1:-1, 1:-1]
    detail += values[:, :-2, 1:-1, 1:-1]
    detail += values[:, 1:-1, 2:, 1:-1]
    detail += values[:, 1:-1, :-2, 1:-1]
    detail += values[:, 1:-1, 1:-1, 2:]
    detail += values[:, 1:-1, 1:-1, :-2]
    detail = detail.reshape(p, -1)
    fineness = np.log(detail.std(axis=1) + _FLOOR) - np.log(flat.std(axis=1) + _FLOOR)
    return np.concatenate(
        [
            mean.ravel(),
            np.log(spread + _FLOOR).ravel(),
            np.log(np.stack(steps, axis=1) + _FLOOR).ravel(),
            fineness,
            _alike(flat),
            _alike(detail),
        ]
    )


def _rms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.einsum("ij,ij->i", rows, rows) / rows.shape[1])


@lru_cache(maxsize=8)
def _shells(k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The shell of every voxel, [k^3], and the voxels in each, at least 1."""
    place = (np.arange(k) - (k - 1) / 2) / (k / 2)
    radius = np.sqrt(
        place[:, None, None] ** 2 + place[None, :, None] ** 2 + place[None, None, :] ** 2
    )
    which = np.digitize(radius, _EDGES).ravel()
    return which, np.maximum(np.bincount(which, minlength=SHELLS), 1)


def _alike(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fisher's z of the correlation of each pair of rows; flat rows resemble nothing (0)."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    products = centred @ centred.T
    size = np.sqrt(np.diag(products))
    size = np.where(size > 1e-9, size, np.inf)
    r = (products / size[:, None] / size)[np.triu_indices(len(rows), 1)]
    return np.arctanh(np.clip(r, -0.999, 0.999))
