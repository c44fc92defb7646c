"""Where a lesion and its structures lie: smooth fields on a crop of the grid.

All lengths in millimetres from the lesion's centre, axes as the voxel indices run. Soft coverage
(partial volume) is 1 inside, 0 outside and linear over about one voxel between.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from models.cohort.phantom.profiles import FEATURES
from models.cohort.phantom.spec import ANATOMY, FEATURE, LesionSpec

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
_GROWTH = {"infiltrative_growth", "nodular_growth"}


class Crop:
    """The part of the grid around the lesion that its layers are drawn on.

    box: slices of the grid. x, y, z: mm, broadcast along their axes. edge: width of a border, mm.
    rho: 0 at the centre, 1 on the core shape's border. radius: mean radius, mm.
    """

    def __init__(self, spec: LesionSpec) -> None:
        self.spec = spec
        spacing = np.array(spec.scanner.spacing)
        shape = np.array(spec.shape)
        middle = (shape - 1) / 2 * spacing + np.array(spec.centre_mm)
        self.radius = spec.form.diameter_mm / 2
        # By what was drawn: the crop stays the same when a feature is switched off.
        beyond = 0.65 if _GROWTH & set(spec.drawn) else 0.05
        reach = (1 + beyond + 3 * spec.form.roughness) * self.radius * max(spec.form.axes) + 2.0
        low = np.maximum(np.floor((middle - reach) / spacing), 0).astype(int)
        high = np.minimum(np.ceil((middle + reach) / spacing) + 1, shape).astype(int)
        self.box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        self.x, self.y, self.z = (
            (np.arange(a, b) * s - m).astype(np.float32).reshape(np.roll((-1, 1, 1), i))
            for i, (a, b, s, m) in enumerate(zip(low, high, spacing, middle, strict=True))
        )
        self.edge = 1.1 * float(spacing[0])
        turn = Rotation.from_euler("xyz", spec.form.angles).as_matrix()
        self._matrix = turn / np.array(spec.form.axes)[:, None] / self.radius
        self._inverse = np.linalg.inv(self._matrix)
        self.rho = self._rho()

    def _rho(self) -> Field:
        u, v, w = (self.linear(row) for row in self._matrix)
        q = np.sqrt(u * u + v * v + w * w) + np.float32(1e-6)
        u /= q
        v /= q
        w /= q
        rng = self.spec.rng(ANATOMY, 0)
        bump = np.zeros_like(q)
        for frequency in (1.6, 2.4, 3.2, 4.5, 6.0):
            a, b, c = _direction(rng) * frequency
            bump += np.cos(u * a + v * b + w * c + rng.uniform(0, 2 * np.pi)) * np.float32(
                1.6 / frequency**0.5
            )
        return q / (1 + self.spec.form.roughness * np.clip(bump, -3, 3))

    def linear(self, row: NDArray) -> Field:
        """row . (x, y, z) on the crop."""
        a, b, c = (np.float32(v) for v in row)
        return self.x * a + self.y * b + self.z * c

    def inside(self, depth: Field) -> Field:
        """Coverage of the region where `depth` (mm, towards the inside) is positive."""
        return np.clip(depth / self.edge + 0.5, 0, 1)

    def core(self) -> Field:
        """Coverage of the smooth, well-defined core shape."""
        return self.inside((1 - self.rho) * self.radius)

    def point(self, direction: NDArray, rho: float) -> NDArray:
        """The place in mm along a direction at `rho` of the ellipsoid. [3]"""
        return self._inverse @ (direction * rho)

    def distance(self, point: NDArray) -> Field:
        """mm from a point."""
        x, y, z = self.x - point[0], self.y - point[1], self.z - point[2]
        return np.sqrt(x * x + y * y + z * z, dtype=np.float32)

    def segment(self, end: NDArray) -> tuple[Field, Field]:
        """mm from the segment centre-end, and the place along it, 0 to 1."""
        along = np.clip(self.linear(end / float(end @ end)), 0, 1)
        x, y, z = self.x - along * end[0], self.y - along * end[1], self.z - along * end[2]
        return np.sqrt(x * x + y * y + z * z, dtype=np.float32), along

    def waves(self, rng: np.random.Generator, length: float, count: int = 6) -> Field:
        """A smooth random field with mean 0 and standard deviation about 1; `length` in mm."""
        total = np.zeros(self.rho.shape, np.float32)
        for _ in range(count):
            row = _direction(rng) * 2 * np.pi / (length * rng.uniform(0.7, 1.4))
            total += np.cos(self.linear(row) + np.float32(rng.uniform(0, 2 * np.pi)))
        return total * np.float32(np.sqrt(2 / count))

    def rng(self, feature: str) -> np.random.Generator:
        """The generator of one feature's geometry."""
        return self.spec.rng(FEATURE, FEATURES.index(feature))


def directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Unit vectors spread over the sphere, turned and shaken at random. [count, 3]"""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    spread = np.stack(
        [np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1
    )
    out = spread @ Rotation.random(random_state=rng).as_matrix().T
    out += rng.normal(0, 0.18, out.shape)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    v = rng.normal(size=3)
    return v / np.linalg.norm(v)
