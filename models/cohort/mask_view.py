"""A mask on the network's grid: which voxels of the plain view does a structure cover?

The same geometry as models.voi: the canonical grid around the centre of the box in the mask's own
phase, averaged down, its middle. Phases are aligned by their boxes, so one mask serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.cohort.format import Cohort
from models.cohort.nifti import read_nifti
from models.voi import Preprocessing
from models.volume import Box, Volume
from wire.cohort import CohortLesion

COVERED = 0.5


def mask_view(
    mask: Volume, box: Box, size_mm: Sequence[float] | NDArray, spec: Preprocessing
) -> NDArray[np.float32]:
    """Share of each voxel of the plain view that the mask covers, [K, K, K] in [0, 1].

    mask: zeros and ones. box: the VOI in the phase that the mask was drawn on. size_mm: edges of
    the VOI as the lesion has them (models.voi.Lesion.size_mm).
    """
    n, m, k = spec.lesion_voxels, spec.base_voxels, spec.tensor_voxels
    step = max(float(np.max(size_mm)) * spec.context, spec.min_fov_mm) / n
    inverse = np.linalg.inv(mask.affine[:3, :3])
    centre = mask.index(mask.world(box.centre))
    start = centre + inverse @ np.full(3, -(n - 1) / 2 * step)
    fine = ndimage.affine_transform(
        mask.data, inverse * step, offset=start, output_shape=(n, n, n), order=1, mode="nearest"
    )
    d = n // m
    base = fine.reshape(m, d, m, d, m, d).mean(axis=(1, 3, 5))
    cut = slice((m - k) // 2, (m - k) // 2 + k)
    return np.clip(base[cut, cut, cut], 0, 1).astype(np.float32)


def view_masks(
    cohort: Cohort, lesion: CohortLesion, size_mm: Sequence[float] | NDArray, spec: Preprocessing
) -> dict[str, NDArray[np.bool_]]:
    """Every mask of the lesion as voxels of the plain view, name -> bool [K, K, K].

    A voxel belongs to a structure that covers half of it. A structure that lies outside of the
    view or is too fine for it has an empty mask. Masks are drawn on the first phase's grid, or on
    that of the first phase that has their shape. Raises InputError for a file that can't be read.
    """
    found = {}
    for name, path in lesion.masks.items():
        field = f"lesion {lesion.lesion_id}: masks.{name}"
        volume = read_nifti(cohort.root / path, field=field)
        box = Box.make(lesion.voi[_phase(cohort, lesion, volume)], field=field)
        found[name] = mask_view(volume, box, size_mm, spec) >= COVERED
    return found


def _phase(cohort: Cohort, lesion: CohortLesion, mask: Volume) -> str:
    """The first phase whose grid the mask lies on (only headers are read), or the first phase."""
    phases = [p for p in cohort.file.phases if p in lesion.voi]
    for phase in phases:
        image = nib.load(cohort.root / lesion.image[phase])
        if image.shape[:3] == mask.shape and np.allclose(image.affine, mask.affine, atol=1e-3):
            return phase
    return phases[0]
