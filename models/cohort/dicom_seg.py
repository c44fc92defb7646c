"""DICOM Segmentation objects: their segments, and a segment as a mask on a volume's grid.

Binary, fractional (half of the maximum counts as inside) and label-map segmentations; frames that
hold nothing are usually left out of the file. PS3.3 A.51 and C.8.20.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.cohort.dicom_slices import clean, damaged, quiet, read_file
from models.cohort.dicom_tree import LABELMAP, Region
from models.errors import InputError
from models.volume import Volume

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_FARTHEST_MM = 1e5  # what lies farther off is a damaged number
_MOST_PLANES = 4096
_OFF_GRID = 0.25  # voxels that a frame may lie beside the grid and still be of it


def regions(path: Path) -> list[Region]:
    """The segments that a file declares. Raises InputError for a damaged file."""
    ds = read_file(path, "seg", pixels=False)
    try:
        with quiet():
            # Number 0 is the background of a label map.
            items = [i for i in ds.get("SegmentSequence") or () if int(i.SegmentNumber)]
            return [_region(path, ds, item) for item in items]
    except Exception as error:  # a damaged object can raise nearly anything
        raise damaged(path, "seg", str(error) or type(error).__name__) from None


def mask(path: Path, number: int, volume: Volume) -> NDArray[np.bool_]:
    """Segment `number` on the grid of `volume`, bool [X, Y, Z].

    On the grid that it was drawn on, voxel for voxel; on another, by linear weights of at least
    one half. Raises InputError: truncated, wrong_grid (it lies outside of the volume).
    """
    ds = read_file(path, "seg", pixels=True)
    try:
        with quiet():
            frames = list(_frames(ds, number))
    except InputError:
        raise
    except Exception as error:  # a damaged object can raise nearly anything
        raise damaged(path, "seg", str(error) or type(error).__name__) from None
    drawn = [f for f in frames if f.pixels.any()]
    if not drawn:
        return np.zeros(volume.shape, dtype=bool)
    steps = np.linalg.inv(volume.affine[:3, :3])
    if all(_on_grid(f, volume, steps) for f in drawn):
        made = _place(drawn, volume, steps)
    else:
        made = _resample(drawn, volume)
    if not made.any():
        raise InputError(
            "the segment lies outside of the series", code="wrong_grid", field="seg",
            found=f"{clean(path.name)}, segment {number}",
        )  # fmt: skip
    return made


def _region(path: Path, ds: Any, item: Any) -> Region:
    coded = item.get("SegmentedPropertyTypeCodeSequence") or ()
    words = [item.get("SegmentLabel"), item.get("SegmentDescription"), item.get("TrackingID")]
    words += [code.get("CodeMeaning") for code in coded]
    series: Any = ds.get("ReferencedSeriesSequence") or ()
    return Region(
        path=path,
        number=int(item.SegmentNumber),
        label=str(item.get("SegmentLabel") or f"segment {item.SegmentNumber}").strip(),
        words=tuple(str(w).strip() for w in words if w),
        tracking=str(item.get("TrackingUID") or item.get("TrackingID") or ""),
        series=str(series[0].get("SeriesInstanceUID") or "") if len(series) == 1 else "",
    )


class _Frame:
    """One plane: pixels bool [row, column]; origin and the steps along columns and rows, mm RAS."""

    def __init__(self, pixels: NDArray[np.bool_], groups: list[Any]) -> None:
        def first(name: str, keyword: str) -> NDArray[np.float64]:
            for group in groups:
                sequence = group.get(name) if group is not None else None
                if sequence and sequence[0].get(keyword) is not None:
                    return np.asarray(sequence[0].get(keyword), float)
            raise ValueError(f"no {keyword}")

        spacing = first("PixelMeasuresSequence", "PixelSpacing")
        axes = first("PlaneOrientationSequence", "ImageOrientationPatient")
        self.pixels = pixels
        self.origin = first("PlanePositionSequence", "ImagePositionPatient") * _LPS_TO_RAS
        self.along_columns = axes[:3] * _LPS_TO_RAS * spacing[1]
        self.along_rows = axes[3:] * _LPS_TO_RAS * spacing[0]
        self.thickness = _thickness(groups)
        place = np.stack([self.origin, self.along_columns, self.along_rows])
        flat = np.linalg.norm(np.cross(place[1], place[2])) < 1e-6
        if not np.isfinite(place).all() or np.abs(place).max() > _FARTHEST_MM or flat:
            raise ValueError("a frame without a place in space")

    @property
    def normal(self) -> NDArray[np.float64]:
        normal = np.cross(self.along_columns, self.along_rows)
        return normal / np.linalg.norm(normal)


def _thickness(groups: list[Any]) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        for group in groups:
            sequence = group.get("PixelMeasuresSequence") if group is not None else None
            if sequence and sequence[0].get(keyword):
                given = abs(float(sequence[0].get(keyword)))
                if 1e-3 < given < 1e3:
                    return given
    return 1.0


def _frames(ds: Any, number: int) -> Iterator[_Frame]:
    pixels = np.asarray(ds.pixel_array)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    shared = (ds.get("SharedFunctionalGroupsSequence") or [None])[0]
    labelmap = str(ds.SOPClassUID) == LABELMAP or ds.get("SegmentationType") == "LABELMAP"
    highest = float(ds.get("MaximumFractionalValue") or 1)
    own = ds.PerFrameFunctionalGroupsSequence
    if len(own) != len(pixels):
        raise ValueError(f"{len(pixels)} frames, {len(own)} of them described")
    for frame, group in zip(pixels, own, strict=True):
        if labelmap:
            inside = frame == number
        else:
            named = group.get("SegmentIdentificationSequence") or shared.get(
                "SegmentIdentificationSequence"
            )
            if int(named[0].ReferencedSegmentNumber) != number:
                continue
            inside = frame >= highest / 2
        yield _Frame(inside, [group, shared])


def _on_grid(frame: _Frame, volume: Volume, steps: NDArray) -> bool:
    """Whether the frame's pixels are voxels of the volume, to a fraction of a voxel."""
    rows, columns = frame.pixels.shape
    index = volume.index(frame.origin)
    for step, count in ((steps @ frame.along_columns, columns), (steps @ frame.along_rows, rows)):
        if np.abs(step - np.round(step)).max() * count > _OFF_GRID or np.abs(step).sum() < 0.5:
            return False
        if np.abs(np.round(step)).sum() != 1:
            return False
    return bool(np.abs(index - np.round(index)).max() <= _OFF_GRID)


def _place(frames: list[_Frame], volume: Volume, steps: NDArray) -> NDArray[np.bool_]:
    made = np.zeros(volume.shape, dtype=bool)
    for frame in frames:
        rows, columns = np.nonzero(frame.pixels)
        along = np.outer(columns, steps @ frame.along_columns)
        down = np.outer(rows, steps @ frame.along_rows)
        index = np.round(volume.index(frame.origin) + along + down).astype(int)
        index = index[((index >= 0) & (index < np.array(volume.shape))).all(axis=1)]
        made[tuple(index.T)] = True
    return made


def _resample(frames: list[_Frame], volume: Volume) -> NDArray[np.bool_]:
    """Stack the frames on a grid of their own, then look from each voxel of the volume."""
    first = frames[0]
    normal = first.normal
    depths = np.array([float(f.origin @ normal) for f in frames])
    gaps = np.diff(np.unique(np.round(depths, 2)))
    step = min(first.thickness, float(gaps.min())) if len(gaps) else first.thickness
    places = np.round((depths - depths.min()) / step).astype(int)
    if places.max() > _MOST_PLANES:
        raise InputError(
            "the frames lie too far apart", code="wrong_grid", field="seg",
            found=f"{np.ptp(depths):.0f} mm in steps of {step:g} mm",
        )  # fmt: skip
    rows, columns = first.pixels.shape
    # One empty plane at each end, so that the outermost drawn plane ends half a step beyond itself.
    stack = np.zeros((columns, rows, int(places.max()) + 3), dtype=np.float32)
    for frame, place in zip(frames, places, strict=True):
        stack[:, :, place + 1] = np.maximum(stack[:, :, place + 1], frame.pixels.T)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.along_columns, first.along_rows
    affine[:3, 2] = normal * step
    affine[:3, 3] = frames[int(np.argmin(depths))].origin - normal * step
    matrix = np.linalg.inv(affine) @ volume.affine
    weights = ndimage.affine_transform(
        stack, matrix[:3, :3], matrix[:3, 3], output_shape=volume.shape, order=1,
        mode="constant", cval=0.0,
    )  # fmt: skip
    return np.asarray(weights >= 0.5)
