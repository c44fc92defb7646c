"""Where a lesion and its structures lie: smooth fields on a crop of the grid.

All lengths in millimetres from the lesion's centre, axes as the voxel indices run. Soft coverage
(partial volume) is 1 inside, 0 outside and linear over about one voxel between.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.cohort.phantom import geometry
from models.cohort.phantom.profiles import FEATURES, OUTSIDE_CLASSES
from models.cohort.phantom.spec import ANATOMY, FEATURE, LesionSpec

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
_HALO = 0.9  # how far an abscess stirs up the parenchyma around it, radii


class Crop:
    """The part of the grid around the lesion that its layers are drawn on.

    box: slices of the grid. x, y, z: mm, broadcast along their axes. edge: width of a border, mm.
    rho: 0 at the centre, 1 on the core shape's border. radius: mean radius, mm. empty: it lies off
    the grid.
    """

    def __init__(self, spec: LesionSpec) -> None:
        self.spec = spec
        spacing = np.array(spec.scanner.spacing)
        shape = np.array(spec.shape)
        middle = (shape - 1) / 2 * spacing + np.array(spec.centre_mm)
        self.radius = spec.form.radius
        # By what was drawn, at full strength: the same when a feature is off or made stronger.
        room = spec.extent(full=True)
        beyond = _HALO * self.radius if spec.class_id in OUTSIDE_CLASSES else 0.0
        fade = 0.13 * self.radius if "infiltrative_growth" in spec.drawn else 0.0
        margin = beyond + fade + 3.0
        low = np.maximum(np.floor((middle + room.low - margin) / spacing), 0).astype(int)
        high = np.ceil((middle + room.high + margin) / spacing).astype(int) + 1
        low, high = np.minimum(low, shape), np.clip(high, 0, shape)
        self.empty = bool((high <= low).any())
        high = np.maximum(high, low)
        self.box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        self.x, self.y, self.z = (
            (np.arange(a, b) * s - m).astype(np.float32).reshape(np.roll((-1, 1, 1), i))
            for i, (a, b, s, m) in enumerate(zip(low, high, spacing, middle, strict=True))
        )
        self.edge = 1.1 * float(spacing[0])
        self._matrix = spec.form.matrix()
        self._inverse = np.linalg.inv(self._matrix)
        self.rho = self._rho()

    def _rho(self) -> Field:
        u, v, w = (self.linear(row) for row in self._matrix)
        q = np.sqrt(u * u + v * v + w * w) + np.float32(1e-6)
        u /= q
        v /= q
        w /= q
        bump = np.zeros_like(q)
        for b in geometry.bumps(self.spec.rng(ANATOMY, 0)):
            x, y, z = (np.float32(v) for v in b.wave)
            bump += np.cos(u * x + v * y + w * z + np.float32(b.phase)) * np.float32(b.weight)
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
            row = geometry.direction(rng) * 2 * np.pi / (length * rng.uniform(0.7, 1.4))
            total += np.cos(self.linear(row) + np.float32(rng.uniform(0, 2 * np.pi)))
        return total * np.float32(np.sqrt(2 / count))

    def cells(self, rng: np.random.Generator, count: int) -> Field:
        """A mosaic of `count` cells over the core shape, each at a level of its own in [-1, 1]."""
        places = geometry.sphere(count) * (rng.uniform(0.05, 1.0, (count, 1)) ** (1 / 3) * 1.1)
        places = places[rng.permutation(count)] + rng.normal(0, 0.12, (count, 3))
        levels = np.linspace(-1, 1, count)[rng.permutation(count)].astype(np.float32)
        nearest = np.full(self.rho.shape, np.inf, np.float32)
        total = np.zeros(self.rho.shape, np.float32)
        for place, level in zip(places, levels, strict=True):
            x, y, z = (a - p for a, p in zip(self._axes, self._inverse @ place, strict=True))
            away = x * x + y * y + z * z
            closer = away < nearest
            np.copyto(nearest, away, where=closer)
            np.copyto(total, level, where=closer)
        return total

    @property
    def _axes(self) -> tuple[Field, Field, Field]:
        return self.x, self.y, self.z

    def rng(self, feature: str) -> np.random.Generator:
        """The generator of one feature's geometry."""
        return self.spec.rng(FEATURE, FEATURES.index(feature))
