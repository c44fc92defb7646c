"""A phase's volume, a box on it, and the study that joins the phases of one lesion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError


@dataclass(frozen=True)
class Volume:
    """Voxels and where they lie.

    data: float32 [X, Y, Z], finite. affine: [4, 4], voxel index -> millimetres, RAS+ (NIfTI), kept
    at float32 precision so that a volume is the same after a NIfTI round trip.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]

    @classmethod
    def make(cls, data: NDArray, affine: NDArray, *, field: str = "volume") -> Volume:
        """Check and build. Raises InputError naming `field` for a wrong shape, NaN or infinity."""
        array = np.asarray(data)
        if array.ndim == 4 and array.shape[3] == 1:
            array = array[..., 0]
        if array.ndim != 3 or 0 in array.shape:
            raise InputError(
                "not a 3D volume",
                code="wrong_shape",
                field=field,
                found=f"shape {tuple(array.shape)}",
                expected="three non-empty axes",
            )
        if array.dtype.kind not in "biuf":
            raise InputError(
                "voxels are not real numbers",
                code="wrong_dtype",
                field=field,
                found=str(array.dtype),
                expected="integers or floats",
            )
        array = np.ascontiguousarray(array, dtype=np.float32)
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            raise InputError(
                "NaN or infinite voxels",
                code="not_finite",
                field=field,
                found=f"{bad} of {array.size}",
                expected="finite values only",
            )
        matrix = np.asarray(affine, dtype=np.float32).astype(np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or _flat(matrix):
            raise InputError(
                "the affine does not map voxels to millimetres",
                code="wrong_affine",
                field=field,
                expected="an invertible 4x4 matrix",
            )
        return cls(array, matrix)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.data.shape  # type: ignore[return-value]

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel edges in mm, [3]."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def world(self, index: NDArray) -> NDArray[np.float64]:
        """Voxel indices [..., 3] -> mm, RAS+."""
        return np.asarray(index, float) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def index(self, world: NDArray) -> NDArray[np.float64]:
        """mm, RAS+ [..., 3] -> fractional voxel indices."""
        return (np.asarray(world, float) - self.affine[:3, 3]) @ np.linalg.inv(
            self.affine[:3, :3]
        ).T


def _flat(matrix: NDArray) -> bool:
    return bool(abs(np.linalg.det(matrix[:3, :3])) < 1e-9)


@dataclass(frozen=True)
class Box:
    """A VOI in voxel indices, half open: lower <= index < upper."""

    lower: tuple[int, int, int]
    upper: tuple[int, int, int]

    @classmethod
    def make(cls, corners: object, *, field: str = "box") -> Box:
        """From [[x0,y0,z0],[x1,y1,z1]] or six numbers. Raises InputError naming `field`."""
        try:
            flat = np.asarray(corners, dtype=float).ravel()
        except (TypeError, ValueError):
            flat = np.empty(0)
        if flat.size != 6 or not np.isfinite(flat).all() or (flat != np.round(flat)).any():
            raise InputError(
                "not a box",
                code="wrong_box",
                field=field,
                found=repr(corners)[:60],
                expected="[[x0,y0,z0],[x1,y1,z1]], voxel indices, half open",
            )
        low, high = (tuple(int(v) for v in half) for half in (flat[:3], flat[3:]))
        if any(b <= a for a, b in zip(low, high, strict=True)):
            raise InputError(
                "an empty box",
                code="wrong_box",
                field=field,
                found=f"{low} to {high}",
                expected="each upper index above its lower one",
            )
        return cls(low, high)  # type: ignore[arg-type]

    @classmethod
    def parse(cls, text: str, *, field: str = "box") -> Box:
        """From 'x0,y0,z0,x1,y1,z1' or JSON, as typed on a command line or in a form field."""
        numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        if re.sub(r"[-\d.,;:\s\[\]]", "", text) or len(numbers) != 6:
            return cls.make(text, field=field)
        return cls.make([float(n) for n in numbers], field=field)

    def as_list(self) -> list[list[int]]:
        return [list(self.lower), list(self.upper)]

    @property
    def centre(self) -> NDArray[np.float64]:
        """Centre in continuous voxel indices, where integers are voxel centres. [3]"""
        return (np.asarray(self.lower, float) + np.asarray(self.upper, float) - 1) / 2

    @property
    def edges(self) -> NDArray[np.int64]:
        return np.asarray(self.upper) - np.asarray(self.lower)

    def check_inside(self, shape: Sequence[int], *, field: str = "box") -> None:
        """Raises InputError unless every voxel of the box lies in a volume of this shape."""
        if any(a < 0 for a in self.lower) or any(
            b > n for b, n in zip(self.upper, shape, strict=True)
        ):
            raise InputError(
                "the box reaches outside of the volume",
                code="box_outside",
                field=field,
                found=f"{list(self.lower)} to {list(self.upper)}",
                expected=f"within [0, 0, 0] to {list(shape)}",
            )


@dataclass(frozen=True)
class Study:
    """The phases of one lesion, each on its own grid, with the lesion's box in each.

    volumes, boxes: of the phases that were acquired, in order. phases: all that are spoken of, in
    order; left out where none is missing.
    """

    volumes: Mapping[str, Volume]
    boxes: Mapping[str, Box]
    phases: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.phases:
            object.__setattr__(self, "phases", tuple(self.volumes))

    @property
    def missing(self) -> tuple[str, ...]:
        """Phases that were not acquired, in order."""
        return tuple(p for p in self.phases if p not in self.volumes)

    @classmethod
    def make(
        cls,
        volumes: Mapping[str, Volume],
        boxes: Box | Mapping[str, Box],
        phases: Sequence[str],
        optional: Sequence[str] = (),
    ) -> Study:
        """Join phases. One box is meant on the first acquired phase and is carried to the others
        in mm.

        optional: phases that may be missing, as a network trained with phase dropout allows; one
        phase there must be. Raises InputError for a phase or box that is missing, a box for a
        phase that is missing, or a box outside of its volume.
        """
        present = [p for p in phases if p in volumes]
        refuse_missing([p for p in phases if p not in volumes], phases, optional)
        ordered = {p: volumes[p] for p in present}
        if isinstance(boxes, Box):
            first = ordered[present[0]]
            boxes.check_inside(first.shape)
            placed = {p: _carry(boxes, first, v, p) for p, v in ordered.items()}
            placed[present[0]] = boxes
        else:
            without = [p for p in present if p not in boxes]
            if without:
                raise InputError(
                    "a box is missing",
                    code="wrong_box",
                    field=f"box.{without[0]}",
                    expected="one box, or one for each phase",
                )
            idle = [p for p in phases if p in boxes and p not in ordered]
            if idle:
                raise InputError(
                    "a box for a phase that is missing",
                    code="wrong_box",
                    field=f"box.{idle[0]}",
                    expected=f"a box for each of {', '.join(present)}",
                )
            placed = {p: boxes[p] for p in present}
            for p, box in placed.items():
                box.check_inside(ordered[p].shape, field=f"box.{p}")
        return cls(ordered, placed, tuple(phases))

    def centre_mm(self, phase: str) -> NDArray[np.float64]:
        return self.volumes[phase].world(self.boxes[phase].centre)

    def size_mm(self) -> NDArray[np.float64]:
        """Edges of the VOI along R-L, A-P, S-I: the largest over the phases. [3]"""
        sizes = []
        for phase, volume in self.volumes.items():
            edges = self.boxes[phase].edges
            sizes.append(np.abs(volume.affine[:3, :3] * edges).sum(axis=1))
        return np.max(sizes, axis=0)


def refuse_missing(missing: Sequence[str], phases: Sequence[str], optional: Sequence[str]) -> None:
    """Raises InputError, missing_phase, for a missing phase that is not optional, or for all."""
    present = [p for p in phases if p not in missing]
    bad = [p for p in missing if p not in optional or not present]
    if not bad:
        return
    if optional:
        needed = [p for p in phases if p not in optional] or ["at least one phase"]
        dispensable = ", ".join(p for p in phases if p in optional)
        expected = f"{', '.join(needed)}; only {dispensable} may be missing"
    else:
        expected = f"{', '.join(phases)}: a network not trained with phase dropout needs them all"
    raise InputError(
        f"missing phase{'s' if len(bad) > 1 else ''}: {', '.join(bad)}",
        code="missing_phase",
        field=bad[0],
        found=", ".join(present) or "none",
        expected=expected,
    )


def _carry(box: Box, source: Volume, target: Volume, phase: str) -> Box:
    """The smallest box on `target` that holds `box` of `source` in millimetres."""
    if source.shape == target.shape and np.allclose(source.affine, target.affine, atol=1e-4):
        return box
    low, high = np.asarray(box.lower) - 0.5, np.asarray(box.upper) - 0.5
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)
    there = target.index(source.world(corners))
    lower = np.round(there.min(axis=0) + 0.5).astype(int)
    upper = np.maximum(np.round(there.max(axis=0) + 0.5).astype(int), lower + 1)
    carried = Box.make([lower.tolist(), upper.tolist()], field=f"box.{phase}")
    inside = np.clip(carried.lower, 0, target.shape), np.clip(carried.upper, 0, target.shape)
    if (inside[1] <= inside[0]).any():
        carried.check_inside(target.shape, field=f"box.{phase}")
    return Box.make([inside[0].tolist(), inside[1].tolist()], field=f"box.{phase}")
