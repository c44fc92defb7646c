"""DICOM RT structure sets: their structures, and a structure as a mask on a volume's grid.

A structure is closed contours in the planes of the series that it was drawn on; a voxel is inside
where its centre is, and contours within one another leave holes (even-odd). PS3.3 C.8.8.6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cohort.dicom_slices import clean, damaged, quiet, read_file
from models.cohort.dicom_tree import Region
from models.errors import InputError
from models.volume import Volume

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_OFF_PLANE = 0.35  # slices that a contour may lie beside a slice's centre


def regions(path: Path) -> list[Region]:
    """The structures that have closed contours. Raises InputError for a damaged file."""
    ds = read_file(path, "rtstruct", pixels=False)
    try:
        with quiet():
            drawn = {
                int(structure.ReferencedROINumber)
                for structure in ds.get("ROIContourSequence") or ()
                if any(_closed(item) for item in structure.get("ContourSequence") or ())
            }
            series = _series(ds)
            return [
                Region(path, int(item.ROINumber), str(item.get("ROIName") or "").strip(),
                       tuple(str(item.get(n)) for n in ("ROIName", "ROIDescription")
                             if item.get(n)), "", series)
                for item in ds.get("StructureSetROISequence") or ()
                if int(item.ROINumber) in drawn
            ]  # fmt: skip
    except Exception as error:  # a damaged object can raise nearly anything
        raise damaged(path, "rtstruct", str(error) or type(error).__name__) from None


def mask(path: Path, number: int, volume: Volume) -> NDArray[np.bool_]:
    """Structure `number` on the grid of `volume`, bool [X, Y, Z].

    Raises InputError: truncated, wrong_grid (contours that do not lie in the volume's planes).
    """
    ds = read_file(path, "rtstruct", pixels=False)
    try:
        with quiet():
            contours = _contours(ds, number)
    except Exception as error:  # a damaged object can raise nearly anything
        raise damaged(path, "rtstruct", str(error) or type(error).__name__) from None
    made = np.zeros(volume.shape, dtype=bool)
    if not all(np.isfinite(points).all() for points in contours):
        raise damaged(path, "rtstruct", "a contour without a place in space")
    for points in contours:
        index = volume.index(points * _LPS_TO_RAS)
        plane = int(np.round(index[:, 2].mean()))
        if np.abs(index[:, 2] - plane).max() > _OFF_PLANE:
            raise InputError(
                "a contour does not lie in a slice of the series", code="wrong_grid",
                field="rtstruct", found=f"{clean(path.name)}, structure {number}",
                expected="contours drawn on axial slices of an imported phase",
            )  # fmt: skip
        if 0 <= plane < volume.shape[2]:
            made[:, :, plane] ^= inside(index[:, :2], volume.shape[:2])
    return made


def inside(corners: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of [X, Y] whose centres lie inside a polygon. corners: [N, 2], pixel indices."""
    x, y = corners[:, 0], corners[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    found = np.zeros(shape, dtype=bool)
    columns = np.arange(shape[0])
    for row in range(max(0, int(np.ceil(y.min()))), min(shape[1] - 1, int(y.max())) + 1):
        crosses = (y <= row) != (next_y <= row)
        at = x[crosses] + (row - y[crosses]) / (next_y - y)[crosses] * (next_x - x)[crosses]
        found[:, row] = (at[None, :] > columns[:, None]).sum(axis=1) % 2 == 1
    return found


def _contours(ds: Any, number: int) -> list[NDArray[np.float64]]:
    """Closed planar contours, mm LPS, [N, 3] each."""
    return [
        np.asarray(item.ContourData, float).reshape(-1, 3)
        for structure in ds.get("ROIContourSequence") or ()
        if int(structure.ReferencedROINumber) == number
        for item in structure.get("ContourSequence") or ()
        if _closed(item)
    ]


def _closed(item: Any) -> bool:
    """A contour, not one of the points that mark isocentres."""
    return bool(item.get("ContourGeometricType") == "CLOSED_PLANAR")


def _series(ds: Any) -> str:
    found = {
        str(series.SeriesInstanceUID)
        for frame in ds.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }
    return found.pop() if len(found) == 1 else ""
