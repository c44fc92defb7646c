"""A lesion's own coordinates: the ellipsoid in its VOI, and intensities over its parenchyma.

Radius 1 is the ellipsoid inscribed in the VOI's box, so that one radius means one layer whatever
the lesion's size or elongation. Nothing but the base and the box is read: no mask, no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.voi import Preprocessing

DIRECTIONS = 128
RADII = np.arange(0.05, 1.66, 0.07)
# Where parenchyma is read: beyond what a reader's box cuts off, within any field of view.
_AROUND = (1.25, 1.9)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """The VOI's ellipsoid on the base's grid.

    voxels: edge M of the base. half: semi-axes in base voxels [3], at least one. step_mm: edge of
    a voxel.
    """

    voxels: int
    half: tuple[float, float, float]
    step_mm: float

    @classmethod
    def of(cls, size_mm: NDArray[np.floating], spec: Preprocessing, voxels: int) -> Frame:
        """From the VOI's edges [3] and the path that made a base of `voxels` edge.

        Raises InputError where an edge is not a positive number.
        """
        size = np.asarray(size_mm, dtype=np.float64)
        if size.shape != (3,) or not np.isfinite(size).all() or (size <= 0).any():
            raise InputError(
                "not the edges of a region",
                field="size_mm",
                found=str(np.asarray(size_mm).tolist())[:60],
                expected="three positive numbers, mm",
            )
        step = max(float(size.max()) * spec.context, spec.min_fov_mm) / voxels
        half = np.maximum(size / (2 * step), 1.0)
        return cls(voxels, (float(half[0]), float(half[1]), float(half[2])), step)

    @property
    def radius(self) -> float:
        """Geometric mean of the semi-axes, base voxels."""
        return float(np.prod(self.half) ** (1 / 3))

    def place(self) -> tuple[Array, Array]:
        """Of every voxel: radius [M, M, M], and direction from the centre [3, M, M, M]."""
        return _place(self.voxels, self.half)

    def polar(self, planes: NDArray[np.floating]) -> Array:
        """Planes [P, M, M, M] -> [P, DIRECTIONS, len(RADII)], trilinear; the edge is repeated."""
        index, part = _gather(self.voxels, self.half)
        flat = planes.reshape(len(planes), -1)
        x, y, z = part
        m = self.voxels
        rows = [
            flat[:, index + (i * m + j) * m] * (1 - z) + flat[:, index + (i * m + j) * m + 1] * z
            for i in (0, 1)
            for j in (0, 1)
        ]
        near = rows[0] * (1 - y) + rows[1] * y
        far = rows[2] * (1 - y) + rows[3] * y
        return (near * (1 - x) + far * x).reshape(len(planes), DIRECTIONS, len(RADII))

    def relative(self, base: NDArray[np.float32], spec: Preprocessing) -> Array:
        """Base -> signal over that of the phase's own parenchyma, less 1, [P, M, M, M].

        0 is like parenchyma, -0.3 is 30 % darker; the median around the VOI is parenchyma. With an
        intensity scale other than 'parenchyma', where ratios mean nothing, the difference. A phase
        that was not acquired stays zero.
        """
        values = base.astype(np.float64)
        for p in np.flatnonzero(base.reshape(len(base), -1).any(axis=1)):
            liver, unit = self.parenchyma(base[p], spec)
            values[p] = (values[p] - liver) / unit
        return values

    def parenchyma(self, plane: NDArray[np.float32], spec: Preprocessing) -> tuple[float, float]:
        """Parenchyma's level in one phase of a base [M, M, M], and its signal in the base's units
        (1 where the intensity scale knows no ratios)."""
        level = float(np.median(plane.ravel()[_around(self.voxels, self.half)]))
        if spec.intensity != "parenchyma":
            return level, 1.0
        signal = level + spec.gain
        return level, signal if signal > 0.05 * spec.gain else spec.gain


@lru_cache(maxsize=1)
def directions() -> Array:
    """Points spread evenly over the sphere (Fibonacci's spiral), [DIRECTIONS, 3]."""
    i = np.arange(DIRECTIONS) + 0.5
    polar, turn = np.arccos(1 - 2 * i / DIRECTIONS), np.pi * (1 + 5**0.5) * i
    return np.stack(
        [np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1
    )


@lru_cache(maxsize=4)
def _around(voxels: int, half: tuple[float, float, float]) -> NDArray[np.intp]:
    """Flat indices of voxels that show parenchyma."""
    middle = (np.arange(voxels) - (voxels - 1) / 2) ** 2
    x, y, z = (middle / h**2 for h in half)
    square = x[:, None, None] + y[:, None] + z
    return np.flatnonzero((square > _AROUND[0] ** 2) & (square < _AROUND[1] ** 2))


@lru_cache(maxsize=4)
def _place(voxels: int, half: tuple[float, float, float]) -> tuple[Array, Array]:
    middle = np.arange(voxels) - (voxels - 1) / 2
    x, y, z = half
    axes = (middle / x)[:, None, None], (middle / y)[:, None], middle / z
    radius = np.sqrt(axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2)
    safe = np.maximum(radius, 1e-9)
    way = np.stack([np.broadcast_to(a, radius.shape) / safe for a in axes])
    return radius, way


@lru_cache(maxsize=4)
def _gather(voxels: int, half: tuple[float, float, float]) -> tuple[NDArray[np.intp], Array]:
    """Flat index [N] of the lowest voxel around each polar sample, and how far beyond it [3, N]."""
    points = (directions().T * np.array(half)[:, None])[:, :, None] * RADII
    points = np.clip(points.reshape(3, -1) + (voxels - 1) / 2, 0, voxels - 1)
    low = np.minimum(points.astype(np.intp), voxels - 2)
    return (low[0] * voxels + low[1]) * voxels + low[2], points - low
