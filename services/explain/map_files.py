"""A saliency map as NIfTI: voxel size and axes of the lesion's canonical grid, VOI centre at 0."""

from __future__ import annotations

import gzip

import numpy as np
from numpy.typing import NDArray

from models.voi import Lesion, Preprocessing


def map_nifti(data: NDArray[np.float32], lesion: Lesion, spec: Preprocessing) -> bytes:
    """[P, K, K, K] -> .nii.gz [K, K, K, P], float32, unscaled, phases in the lesion's order.

    A voxel of the map covers lesion_voxels / base_voxels canonical voxels; axes are R, A, S in mm
    from the VOI's centre. The same map gives the same bytes.
    """
    import nibabel as nib  # not at the start of a service, see services.front.later

    edge = lesion.mm_per_voxel * spec.lesion_voxels / spec.base_voxels
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = -edge * (data.shape[1] - 1) / 2
    image = nib.Nifti1Image(np.ascontiguousarray(np.moveaxis(data, 0, -1), np.float32), affine)
    image.header.set_xyzt_units(xyz="mm")
    image.header["descrip"] = ("phases: " + ",".join(lesion.phases)).encode()[:79]
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
