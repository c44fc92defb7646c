"""Mask files, NIfTI or NRRD (3D Slicer's .seg.nrrd too), brought on an image's grid.

Slicer trims a segmentation to what is drawn, so its grid is seldom the image's: masks are placed by
their physical coordinates, not by shape.
"""

from __future__ import annotations

import importlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.cohort.nifti import read_nifti
from models.errors import InputError
from models.volume import Volume

# What pynrrd lets through of a damaged file, beside its own error.
_BROKEN = (
    StopIteration, OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError,
    zlib.error,
)  # fmt: skip
_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd")
# What a 'space' field names -> signs that make it RAS+ (NIfTI's).
_SPACES = {
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
}  # fmt: skip


def mask_stem(path: Path) -> str | None:
    """The name without its ending; None for a file that is no mask by its name."""
    name = path.name
    return next((name[: -len(e)] for e in _ENDINGS if name.lower().endswith(e)), None)


def read_mask(path: Path, *, field: str) -> Volume:
    """Labels as stored, float32 [X, Y, Z], 0 outside; segments in layers are joined to 0 and 1.

    Raises InputError naming `field` for a file that is damaged or no mask.
    """
    if path.name.lower().endswith(".nrrd"):
        return _read_nrrd(path, field)
    return read_nifti(path, field=field)


def place_mask(mask: Volume, onto: Volume) -> NDArray[np.bool_]:
    """A mask (non-zero: inside) on the grid of `onto`, by coordinates, nearest voxel.

    Exact where the two grids are the same or one is a part of the other. What lies outside of
    `onto` is lost.
    """
    inside = (mask.data != 0).astype(np.uint8)
    step = np.linalg.inv(mask.affine) @ onto.affine
    if np.allclose(step, np.eye(4), atol=1e-3) and mask.shape == onto.shape:
        return inside.astype(bool)
    # Same axes and voxels: shifts to a whole voxel must not be lost to rounding at 0.5.
    offset = np.where(
        np.abs(step[:3, 3] - np.round(step[:3, 3])) < 1e-2, np.round(step[:3, 3]), step[:3, 3]
    )
    return ndimage.affine_transform(
        inside, step[:3, :3], offset=offset, output_shape=onto.shape, order=0, mode="grid-constant"
    ).astype(bool)


def _read_nrrd(path: Path, field: str) -> Volume:
    nrrd = importlib.import_module("nrrd")  # extra 'import'
    try:
        with path.open("rb") as stream:
            header = nrrd.read_header(stream)
            # A detached header could name any file of this machine.
            if {"data file", "datafile"} & {str(k).lower() for k in header}:
                raise InputError(
                    "the voxels are in another file", code="not_nrrd", field=field,
                    found=path.name, expected="one .nrrd file with header and voxels",
                )  # fmt: skip
            data = nrrd.read_data(header, stream)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError("no such file", code="not_found", field=field, found=path.name) from None
    except (*_BROKEN, nrrd.NRRDError) as error:
        raise InputError(
            "not a readable NRRD file", code="not_nrrd", field=field,
            found=f"{path.name}: {str(error)[:80] or type(error).__name__}",
            expected="an intact .nrrd",
        ) from None  # fmt: skip
    return _volume(data, header, field)


def _volume(data: NDArray, header: Any, field: str) -> Volume:
    directions = np.asarray(header.get("space directions", np.empty(0)), dtype=float)
    if data.ndim == 4 and directions.shape == (4, 3):
        # Segments that overlap are kept in layers along an axis without a direction.
        layers = int(np.isnan(directions).all(axis=1).argmax())
        data, directions = (data != 0).any(axis=layers), np.delete(directions, layers, axis=0)
    space = str(header.get("space", "")).lower()
    origin = np.asarray(header.get("space origin", np.zeros(3)), dtype=float)
    if data.ndim != 3 or directions.shape != (3, 3) or space not in _SPACES or origin.shape != (3,):
        raise InputError(
            "an NRRD without its place in the patient", code="wrong_affine", field=field,
            found=f"{data.ndim} axes, space {space or 'not named'!r}",
            expected="three axes with 'space', 'space directions' and 'space origin'",
        )  # fmt: skip
    affine = np.eye(4)
    signs = np.array(_SPACES[space], dtype=float)
    affine[:3, :3] = directions.T * signs[:, None]
    affine[:3, 3] = origin * signs
    return Volume.make(np.asarray(data), affine, field=field)
