"""What an edit works on: a lesion's image over parenchyma, and where in the lesion a voxel lies."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.imaging.border import border, extended, harmonics, near, on_sphere
from models.imaging.frame import Frame
from models.imaging.layers import along
from models.voi import Preprocessing

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
STEPS = np.arange(0.3, 1.46, 0.05)  # radius over the border, for profiles
_SIGMA = 0.65  # base voxels: noise is averaged, a thin wall survives
_FAR = 1.85  # radius over the VOI's ellipsoid beyond which nothing is edited


class Scene:
    """One lesion, ready to be edited.

    relative: signal over that of the phase's parenchyma, less 1, [P, M, M, M]. phases: ids.
    frame: the VOI's ellipsoid.
    """

    def __init__(
        self,
        base: NDArray[np.float32],
        size_mm: NDArray[np.float64],
        spec: Preprocessing,
        phases: tuple[str, ...],
    ) -> None:
        self.base, self.spec, self.phases = base, spec, phases
        self.frame = Frame.of(size_mm, spec, base.shape[1])
        self.acquired = [bool(plane.any()) for plane in base]
        self.relative = self.frame.relative(base, spec)

    def phase(self, name: str) -> int | None:
        """Index of a phase by its id; None where it is not spoken of or was not acquired."""
        if name not in self.phases:
            return None
        index = self.phases.index(name)
        return index if self.acquired[index] else None

    @property
    def present(self) -> list[int]:
        """Indices of the phases that were acquired."""
        return [i for i, there in enumerate(self.acquired) if there]

    @cached_property
    def edge(self) -> Array:
        """The border's radius by direction, [D]."""
        return border(self.frame.polar(self.relative))

    @cached_property
    def rho(self) -> Array:
        """Radius over the lesion's own border, 1 on it, [M, M, M]."""
        radius, _ = self.frame.place()
        rho = radius / float(self.edge.mean())  # far out, where nothing depends on it
        rho.ravel()[self._near] = radius.ravel()[self._near] / extended(self.edge, self._sphere)
        return rho

    @cached_property
    def _scales(self) -> dict[int, float]:
        """Parenchyma's signal in the base's units, by phase."""
        return {p: self.frame.parenchyma(self.base[p], self.spec)[1] for p in self.present}

    @cached_property
    def _near(self) -> NDArray[np.intp]:
        """Flat indices of the voxels in and around the lesion."""
        radius, _ = self.frame.place()
        return np.flatnonzero(radius.ravel() < _FAR)

    @cached_property
    def _sphere(self) -> Array:
        _, way = self.frame.place()
        return on_sphere(way.reshape(3, -1)[:, self._near])

    @cached_property
    def radius(self) -> float:
        """The border's mean radius in base voxels."""
        return self.frame.radius * float(self.edge.mean())

    @cached_property
    def smooth(self) -> Array:
        """`relative` with noise averaged out over about a voxel, [P, M, M, M]."""
        from scipy import ndimage  # not at the start of a service, see models.voi

        return np.stack([ndimage.gaussian_filter(r, _SIGMA, mode="nearest") for r in self.relative])

    def cover(self, within: float = 1.0, soft: float = 2.0) -> Array:
        """1 inside of `within` times the border, 0 outside; `soft` voxels wide, [M, M, M]."""
        depth = (within - self.rho) * self.radius / soft
        return np.asarray(np.clip(depth + 0.5, 0.0, 1.0))

    def shell(self, low: float, high: float) -> Mask:
        """Voxels between two radii over the border; never empty."""
        inside = (self.rho >= low) & (self.rho < high)
        return inside if inside.any() else self.rho <= max(high, float(self.rho.min()))

    def level(self, low: float, high: float, quantile: float = 0.5) -> Array:
        """Quantile of `relative` between two radii over the border, by phase [P]."""
        return np.asarray(np.quantile(self.relative[:, self.shell(low, high)], quantile, axis=1))

    @cached_property
    def profile(self) -> Array:
        """`relative` by direction and radius over the border, neighbours averaged, [P, D, G]."""
        return np.asarray(near() @ along(self.frame.polar(self.relative), self.edge, STEPS))

    def spread(self, values: Array) -> Array:
        """Values by direction and radius [D, G] -> voxels, smooth in direction; 0 beyond STEPS."""
        rho = self.rho.ravel()[self._near]
        at = np.clip((rho - STEPS[0]) / (STEPS[1] - STEPS[0]), 0, len(STEPS) - 1.001)
        low = at.astype(np.intp)
        # Between two radii without a value the sum is zero.
        filled = np.asarray(values.any(axis=0))
        where = np.flatnonzero((filled[:-1] | filled[1:])[low] & (rho < STEPS[-1]))
        low, part = low[where], at[where] - low[where]
        table = harmonics(values)  # [25, G]
        mixed = table.take(low, axis=1) * (1 - part) + table.take(low + 1, axis=1) * part
        out = np.zeros(self.rho.shape)
        out.ravel()[self._near[where]] = (mixed * self._sphere.take(where, axis=1)).sum(axis=0)
        return out

    @cached_property
    def rims(self) -> dict[int, Array]:
        """What stands out around the border, by phase, as found so far."""
        return {}

    def restore(self, relative: Array) -> NDArray[np.float32]:
        """`relative` after an edit -> base. Untouched voxels keep their very bits."""
        out = self.base.copy()
        for p in self.present:
            change = relative[p] - self.relative[p]
            touched = change != 0
            if not touched.any():
                continue
            values = self.base[p] + change * self._scales[p]
            if self.spec.intensity in ("parenchyma", "zscore"):
                values = np.clip(values, -self.spec.clip, self.spec.clip)
            out[p][touched] = values[touched]
        return out


# A scene with a phase at least -> `relative` without the feature.
Edit = Callable[[Scene], Array]
