"""All phases of a lesion on one physical grid, cut out around the lesion.

    reference phase's grid  <-- M_p: mm in the reference -> mm in phase p --  phase p

    box       M_p shifts by the difference of the box centres
    mask      the same with the centroids of each phase's own lesion mask, where it has one
    scanner   M_p is the identity: the scanner's coordinates are believed
    rigid     M_p is found by registration, started from the box shift

The grid is the reference phase's own, voxel size and orientation, cropped. A phase finer than the
grid is smoothed before it is thinned out; masks are resampled by majority (0.5 of linear weights).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.cohort.importers.base import Alignment, Reading
from models.cohort.importers.rigid import register
from models.errors import InputError
from models.voi import Preprocessing
from models.volume import Box, Volume

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Aligned:
    """Volumes and masks of one shape and affine; a box a phase on that grid.

    shifts_mm: phase -> where its lesion centre was moved from, [3] RAS+ mm against scanner
    coordinates. notes: one line for each thing worth knowing.
    """

    volumes: dict[str, Volume]
    boxes: dict[str, Box]
    masks: dict[str, NDArray[np.bool_]]
    shifts_mm: dict[str, list[float]]
    notes: list[str]


def align(
    reading: Reading,
    mode: Alignment = "box",
    margin: float = 1.25,
    spec: Preprocessing | None = None,
) -> Aligned:
    """Bring a reading's phases on the grid of its first phase that has a box.

    margin: edge of the crop over the field of view that `spec` (default preprocessing) cuts from
    it. Raises InputError for a box outside of its volume, an empty mask, or phases that do not
    meet the lesion at all.
    """
    spec = spec or Preprocessing()
    anchor = _anchor(reading)
    to_phase = _transforms(reading, anchor, mode, margin, spec)
    grid = _crop(reading, anchor, margin, spec)
    volumes = {p: _resample(v, grid, to_phase[p], p) for p, v in reading.volumes.items()}
    boxes = _boxes(reading, anchor, mode, grid, to_phase)
    masks: dict[str, NDArray[np.bool_]] = {}
    notes = list(reading.notes)
    for name, mask in reading.masks.items():
        source = reading.volumes[mask.phase]
        drawn = Volume(mask.voxels.astype(np.float32), source.affine)
        placed = _resample(drawn, grid, to_phase[mask.phase], f"masks.{name}", outside=0.0)
        masks[name] = placed.data >= 0.5
        if mask.voxels.any() and not masks[name].any():
            notes.append(f"masks.{name}: too small for the grid or outside of the crop; left out")
            del masks[name]
    centre = reading.volumes[anchor].world(reading.boxes[anchor].centre)
    shifts = {
        p: [round(float(v), 2) for v in (m @ np.append(centre, 1))[:3] - centre]
        for p, m in to_phase.items()
    }
    notes += _far(reading, shifts, to_phase, anchor, mode)
    return Aligned(volumes, boxes, masks, shifts, notes)


def _anchor(reading: Reading) -> str:
    boxed = [phase for phase in reading.volumes if phase in reading.boxes]
    for phase in boxed:
        reading.boxes[phase].check_inside(reading.volumes[phase].shape, field=f"box.{phase}")
    if not boxed:
        raise InputError(
            "no box and no lesion mask", code="wrong_box", field="box", expected="one on some phase"
        )
    return boxed[0]


def _transforms(
    reading: Reading, anchor: str, mode: Alignment, margin: float, spec: Preprocessing
) -> dict[str, Matrix]:
    """Phase -> 4x4, mm in the anchor phase -> mm in that phase."""
    start = {p: np.eye(4) for p in reading.volumes}
    if mode == "scanner":
        return start
    home = _centre(reading, anchor, mode)
    for phase in reading.volumes:
        # A phase with no box of its own is believed to lie where the anchor lies.
        if phase in reading.boxes:
            start[phase][:3, 3] = _centre(reading, phase, mode) - home
    if mode != "rigid":
        return start
    fixed = _cut(reading.volumes[anchor], home, _edge(reading, anchor, margin, spec) * 2)
    return {
        phase: np.eye(4)
        if phase == anchor
        else register(fixed, reading.volumes[phase], start[phase], home, field=phase)
        for phase in reading.volumes
    }


def _centre(reading: Reading, phase: str, mode: Alignment) -> NDArray[np.float64]:
    if mode == "mask" and phase in reading.centres:
        return np.asarray(reading.centres[phase], float)
    return reading.volumes[phase].world(reading.boxes[phase].centre)


def _edge(reading: Reading, anchor: str, margin: float, spec: Preprocessing) -> float:
    """Edge of the crop in mm: the field of view of models.voi with a margin."""
    sizes = [
        float(np.abs(reading.volumes[p].affine[:3, :3] * box.edges).sum(axis=1).max())
        for p, box in reading.boxes.items()
        if p in reading.volumes
    ]
    return margin * max(max(sizes) * spec.context, spec.min_fov_mm)


def _crop(reading: Reading, anchor: str, margin: float, spec: Preprocessing) -> Volume:
    """The anchor's volume, cut: what every phase is laid on. Holds at least the lesion's box."""
    centre = reading.volumes[anchor].world(reading.boxes[anchor].centre)
    return _cut(reading.volumes[anchor], centre, _edge(reading, anchor, margin, spec))


def _cut(volume: Volume, centre: NDArray, edge: float) -> Volume:
    """The voxels that a cube of this edge (mm, patient axes) around `centre` touches."""
    corners = centre + edge / 2 * np.stack(np.meshgrid(*[(-1, 1)] * 3, indexing="ij"), -1).reshape(
        -1, 3
    )
    there = volume.index(corners)
    lower = np.clip(np.floor(there.min(axis=0)).astype(int), 0, np.array(volume.shape) - 1)
    upper = np.clip(np.ceil(there.max(axis=0)).astype(int) + 1, lower + 1, volume.shape)
    return _part(volume, lower, upper)


def _part(volume: Volume, lower: NDArray, upper: NDArray) -> Volume:
    inside = tuple(slice(int(a), int(b)) for a, b in zip(lower, upper, strict=True))
    affine = volume.affine.copy()
    affine[:3, 3] = volume.world(lower)
    return Volume.make(volume.data[inside], affine)


def _resample(
    source: Volume, grid: Volume, to_source: Matrix, field: str, outside: float | None = None
) -> Volume:
    """`source` on `grid`, linear. outside: the value beyond its border; None repeats the border."""
    if np.allclose(to_source, np.eye(4)) and _lies_on(source, grid):
        first = np.round(source.index(grid.affine[:3, 3])).astype(int)
        return Volume(_part(source, first, first + grid.shape).data, grid.affine)
    step = np.linalg.inv(source.affine) @ to_source @ grid.affine
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij"), -1)
    there = ends.reshape(-1, 3) @ step[:3, :3].T + step[:3, 3]
    ratio = _step_along(step)
    room = 3 * np.ceil(ratio)
    lower = np.floor(there.min(axis=0) - room).astype(int)
    upper = np.ceil(there.max(axis=0) + room).astype(int) + 1
    shape = np.array(source.shape)
    if (upper <= 0).any() or (lower >= shape).any():
        raise InputError(
            "the image does not reach the lesion",
            code="phase_elsewhere",
            field=field,
            found=f"voxels {lower.tolist()} to {upper.tolist()} of {shape.tolist()}",
            expected="phases of one examination, in one frame of reference",
        )
    part = _part(source, np.clip(lower, 0, shape - 1), np.clip(upper, 1, shape))
    # Gaussian that takes the source's sampling to the grid's, as models.voi does.
    sigma = np.where(ratio > 1, 0.5 * np.sqrt(np.maximum(ratio**2 - 1, 0)), 0.0)
    data = ndimage.gaussian_filter(part.data, sigma, mode="nearest") if sigma.any() else part.data
    step = np.linalg.inv(part.affine) @ to_source @ grid.affine
    made = ndimage.affine_transform(
        data, step[:3, :3], offset=step[:3, 3], output_shape=grid.shape, order=1,
        mode="nearest" if outside is None else "grid-constant", cval=outside or 0.0,
    )  # fmt: skip
    return Volume(np.ascontiguousarray(made, dtype=np.float32), grid.affine)


def _step_along(step: Matrix) -> NDArray[np.float64]:
    """Voxels of the source that one voxel of the grid spans, along each axis of the source."""
    return np.maximum(np.abs(step[:3, :3]).max(axis=1), 1e-6)


def _lies_on(source: Volume, grid: Volume) -> bool:
    """Whether the grid's voxels are voxels of the source, so that nothing need be interpolated."""
    if not np.allclose(source.affine[:3, :3], grid.affine[:3, :3], atol=1e-5):
        return False
    first = source.index(grid.affine[:3, 3])
    whole = np.round(first)
    fits = (whole >= 0).all() and (whole + grid.shape <= source.shape).all()
    return bool(fits and np.allclose(first, whole, atol=1e-3))


def _boxes(
    reading: Reading, anchor: str, mode: Alignment, grid: Volume, to_phase: Mapping[str, Matrix]
) -> dict[str, Box]:
    """The boxes on the common grid.

    By 'box' and 'mask', a phase's box keeps its size and takes the anchor's centre exactly (edges
    rounded to the anchor's parity), since the lesion path centres each phase on its box and
    rounding would move the phases apart again. By 'scanner', a box stays where it was drawn. By
    'rigid', the registration is believed: the anchor's box for all.
    """
    first = np.round(grid.index(reading.volumes[anchor].world(np.zeros(3)))).astype(int)
    home = Box.make(
        [
            (np.array(reading.boxes[anchor].lower) + first).tolist(),
            (np.array(reading.boxes[anchor].upper) + first).tolist(),
        ]
    )
    boxes = {}
    for phase, volume in reading.volumes.items():
        if phase == anchor or phase not in reading.boxes or mode == "rigid":
            boxes[phase] = home
            continue
        low, high = _extent(reading.boxes[phase], volume, grid, to_phase[phase])
        if mode == "scanner":
            lower = np.clip(np.round(low + 0.5).astype(int), 0, np.array(grid.shape) - 1)
            upper = np.clip(np.round(high + 0.5).astype(int), lower + 1, grid.shape)
            boxes[phase] = Box.make([lower.tolist(), upper.tolist()], field=f"box.{phase}")
        else:
            boxes[phase] = _concentric(home, high - low, grid.shape)
    return boxes


def _extent(box: Box, volume: Volume, grid: Volume, to_phase: Matrix) -> tuple[NDArray, NDArray]:
    """A phase's box on the grid, continuous indices of its lower and upper faces."""
    ends = zip(np.array(box.lower) - 0.5, np.array(box.upper) - 0.5, strict=True)
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
    step = np.linalg.inv(grid.affine) @ np.linalg.inv(to_phase) @ volume.affine
    there = corners @ step[:3, :3].T + step[:3, 3]
    return there.min(axis=0), there.max(axis=0)


def _concentric(home: Box, size: NDArray, shape: tuple[int, int, int]) -> Box:
    """A box of about this size with home's centre, inside of the grid."""
    edges = home.edges
    grow = np.round((size - edges) / 2).astype(int)
    most = np.minimum(home.lower, np.array(shape) - home.upper)
    grow = np.clip(grow, -((edges - 1) // 2), most)
    return Box.make([(home.lower - grow).tolist(), (home.upper + grow).tolist()])


def _far(
    reading: Reading,
    shifts: Mapping[str, list[float]],
    to_phase: Mapping[str, Matrix],
    anchor: str,
    mode: Alignment,
) -> list[str]:
    """Notes on shifts that make one look twice."""
    notes = [
        f"{phase}: moved by {length:.0f} mm ({mode}); breath-holds differ by 30 mm at most"
        for phase, shift in shifts.items()
        if (length := float(np.linalg.norm(shift))) > 30
    ]
    if mode == "rigid":
        home = np.append(_centre(reading, anchor, "box"), 1)
        for phase in reading.boxes:
            if phase in reading.volumes:
                apart = np.linalg.norm(
                    (to_phase[phase] @ home)[:3] - _centre(reading, phase, "box")
                )
                if apart > 10:
                    notes.append(f"{phase}: registration ends {apart:.0f} mm from its box")
    return notes
