"""A lesion unrolled: intensities by direction and by radius over its own border."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.imaging.border import border, near
from models.imaging.frame import RADII, Frame
from models.voi import Preprocessing

Array = NDArray[np.float64]

# Radius over the border, for profiles.
GRID = np.arange(0.06, 1.42, 0.06)
# A rim this thick stands out best, but never less than one voxel and a half.
_RIM_MM = 3.0


class Measurement(NamedTuple):
    """name; value; phases: indices of those that it compares, all of which must be there."""

    name: str
    value: float
    phases: tuple[int, ...]


@dataclass(frozen=True)
class Layers:
    """One lesion in its own coordinates.

    phases: ids [P]. size_mm: the VOI's edges [3]. polar: [P, D, R] over the VOI's
    ellipsoid (models.imaging.frame). edge: the border's radius by direction [D]. profile: [P, D, G]
    at GRID times the border's radius. thick: a rim's thickness over the border's radius.
    """

    phases: tuple[str, ...]
    size_mm: NDArray[np.float64]
    polar: Array
    edge: Array
    profile: Array
    thick: float

    @classmethod
    def of(
        cls,
        base: NDArray[np.float32],
        size_mm: NDArray[np.floating],
        spec: Preprocessing,
        phases: tuple[str, ...],
    ) -> Layers:
        """Unroll a base [P, M, M, M]. Raises InputError for edges that are not positive."""
        frame = Frame.of(size_mm, spec, base.shape[1])
        polar = frame.polar(frame.relative(base, spec))
        edge = border(polar)
        radius = frame.radius * float(edge.mean())
        thick = max(_RIM_MM / frame.step_mm, 1.5) / radius
        return cls(
            phases,
            np.asarray(size_mm, dtype=np.float64),
            polar,
            edge,
            along(polar, edge, GRID),
            min(thick, 0.4),
        )

    @cached_property
    def within(self) -> tuple[Array, Array]:
        """Lesion tissue short of its border: values [P, D, g], and weights by volume [g]."""
        inner = GRID < 0.85
        weight = GRID[inner] ** 2
        return self.profile[:, :, inner], weight / weight.sum()

    @cached_property
    def quantiles(self) -> Array:
        """5, 25, 50, 75 and 95 % of the tissue's volume, [P, 5]."""
        tissue, weight = self.within
        flat = tissue.reshape(len(tissue), -1)
        order = np.argsort(flat, axis=1)
        share = np.cumsum(np.tile(weight, tissue.shape[1])[order], axis=1)
        share /= share[:, -1:]
        at = [np.searchsorted(row, (0.05, 0.25, 0.5, 0.75, 0.95)) for row in share]
        sorted_ = np.take_along_axis(flat, order, axis=1)
        return np.take_along_axis(sorted_, np.stack(at), axis=1)

    def layer(self, low: float, high: float) -> Array:
        """Mean over the radii from low to high by direction, [P, D]."""
        inside = (low <= GRID) & (high > GRID)
        weight = GRID[inside] ** 2
        return np.asarray(self.profile[:, :, inside] @ (weight / weight.sum()))

    @cached_property
    def ridge(self) -> Array:
        """How far a thin layer at the border stands out from both sides, [P, D].

        At the radius where it does most over all phases together, by direction; neighbouring
        directions are averaged.
        """
        at = np.arange(0.8, 1.26, 0.06)
        here, inner, outer = (along(self.polar, self.edge, at + d * self.thick) for d in (0, -1, 1))
        out = near() @ (here - 0.5 * (inner + outer))
        best = np.maximum(out, 0).sum(axis=0).argmax(axis=1)
        return np.asarray(np.take_along_axis(out, best[None, :, None], axis=2)[:, :, 0])


def along(polar: Array, edge: Array, at: Array) -> Array:
    """[P, D, R] -> values at radii `at` times the border's, linear, [P, D, len(at)]."""
    step = RADII[1] - RADII[0]
    place = np.clip((edge[:, None] * at - RADII[0]) / step, 0, len(RADII) - 1.001)
    low = place.astype(np.intp)
    part = place - low
    flat = low + np.arange(len(edge))[:, None] * len(RADII)
    rows = polar.reshape(len(polar), -1)
    return np.asarray(rows[:, flat] * (1 - part) + rows[:, flat + 1] * part)
