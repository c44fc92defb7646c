"""What would the network say if nothing but liver lay around the lesion?

A verdict about a lesion that changes when its surroundings are wiped rests on something that is not
the lesion: a scanner's mark, a vessel, a neighbour. This is removal in the image, applied to the
surroundings, and it needs neither a mask nor to know what lies there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.voi import Preprocessing

# Radii over the VOI's half edges, in the 4-norm (a rounded box, 1.32 at the box's corner): all
# is kept within the first, all is wiped beyond the second.
_KEEP, _WIPE = 1.15, 1.40
_SPREADS = 2.0  # from the median, in robust standard deviations: the liver's own noise


def wiped(
    base: NDArray[np.float32], size_mm: NDArray[np.floating], spec: Preprocessing
) -> NDArray[np.float32]:
    """The base [P, M, M, M] with everything around the VOI that is not like parenchyma taken out.

    size_mm: the VOI's edges [3]. Beyond the VOI, voxels that lie outside of the noise around each
    phase's median there become that median; the noise stays, so that the image still looks like
    one. A phase that was not acquired stays zero, a base without surroundings stays as it is.
    """
    cover = surroundings(base.shape[1], size_mm, spec)
    out = base.copy()
    around = cover > 0.5
    if not around.any():
        return out
    for p, plane in enumerate(base):
        if not plane.any():
            continue
        values = plane[around].astype(np.float64)
        middle = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - middle)))
        odd = np.abs(plane - middle) > _SPREADS * spread
        out[p] = np.where(odd, plane + cover * (np.float32(middle) - plane), plane)
    return out


def surroundings(
    edge: int, size_mm: NDArray[np.floating], spec: Preprocessing
) -> NDArray[np.float32]:
    """Which part of each voxel counts as surroundings: [M, M, M] in [0, 1], edge: M.

    size_mm: the VOI's edges [3]; the field of view follows from them and from `spec`.
    """
    size = np.maximum(np.asarray(size_mm, dtype=np.float64), 1e-6)
    step = max(float(size.max()) * spec.context, spec.min_fov_mm) / edge
    place = (np.arange(edge) - (edge - 1) / 2) * step
    far = [(place / (s / 2)) ** 4 for s in size]
    radius = (far[0][:, None, None] + far[1][None, :, None] + far[2][None, None, :]) ** 0.25
    return np.clip((radius - _KEEP) / (_WIPE - _KEEP), 0, 1).astype(np.float32)
