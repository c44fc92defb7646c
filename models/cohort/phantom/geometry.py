"""Where a lesion's border lies, in mm: shared by the size of the grid and by what is painted on it.

Numbers only, no voxels. Lesion coordinates are mm from its centre along the grid's axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

_FREQUENCIES = (1.6, 2.4, 3.2, 4.5, 6.0)
_SAMPLES = 600  # directions in which a border's extent is measured
_TONGUES = (0.13, 0.25)  # reach of infiltrating tongues over the radius: at strength 0, gain to 1
TONGUE_PEAK = 1.2


@dataclass(frozen=True)
class Form:
    """The core shape: an ellipsoid of `diameter_mm` with a rough border.

    axes: semi-axes over the mean one. angles: its orientation. core_radius: of a hypoenhancing
    core, over the lesion's.
    """

    diameter_mm: float
    axes: tuple[float, float, float]
    angles: tuple[float, float, float]
    roughness: float
    core_radius: float

    @property
    def radius(self) -> float:
        """Mean radius, mm."""
        return self.diameter_mm / 2

    def matrix(self) -> NDArray[np.float64]:
        """From mm to the unit ball. [3, 3]"""
        turn = Rotation.from_euler("xyz", self.angles).as_matrix()
        return np.asarray(turn / np.array(self.axes)[:, None] / self.radius)


class Bump(NamedTuple):
    """One wave of the rough border over the unit sphere."""

    wave: NDArray[np.float64]
    phase: float
    weight: float


class Nodule(NamedTuple):
    """A ball: its direction from the centre, distance over the core shape's, and radius in mm."""

    way: NDArray[np.float64]
    rho: float
    radius: float


class Extent(NamedTuple):
    """Lowest and highest coordinate along each axis, and the farthest from the centre; mm."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    reach: float


def bumps(rng: np.random.Generator) -> list[Bump]:
    """The border's roughness: five waves, coarse to fine."""
    found = []
    for frequency in _FREQUENCIES:
        wave = direction(rng) * frequency
        found.append(Bump(wave, rng.uniform(0, 2 * np.pi), 1.6 / frequency**0.5))
    return found


def tongues(strength: float) -> float:
    """Reach of infiltrating tongues over the radius, before their own wave."""
    return _TONGUES[0] + _TONGUES[1] * strength


def nodules(rng: np.random.Generator, form: Form, strength: float) -> list[Nodule]:
    """Seven lobes fused with the lesion and three satellites beside it."""
    scale = form.radius * (0.75 + 0.25 * strength)
    found = []
    for i, way in enumerate(directions(rng, 10)):
        apart = i % 3 == 2
        rho = rng.uniform(1.38, 1.48) if apart else rng.uniform(0.84, 0.98)
        size = rng.uniform(0.19, 0.26) if apart else rng.uniform(0.44, 0.56)
        found.append(Nodule(way, float(rho), float(size * scale)))
    return found


def extent(form: Form, border: list[Bump], beyond: float, balls: list[Nodule]) -> Extent:
    """What a lesion takes up with `beyond` radii more than its core shape, and these nodules."""
    inverse = np.linalg.inv(form.matrix())
    way = sphere(_SAMPLES)
    bump = sum(b.weight * np.cos(way @ b.wave + b.phase) for b in border)
    rho = (1 + form.roughness * np.clip(bump, -3, 3)) * (1 + beyond)
    places = (way * rho[:, None]) @ inverse.T
    low, high = places.min(axis=0), places.max(axis=0)
    reach = float(np.linalg.norm(places, axis=1).max())
    for ball in balls:
        place = inverse @ (ball.way * ball.rho)
        low, high = np.minimum(low, place - ball.radius), np.maximum(high, place + ball.radius)
        reach = max(reach, float(np.linalg.norm(place)) + ball.radius)
    return Extent(low, high, reach)


def sphere(count: int) -> NDArray[np.float64]:
    """Unit vectors spread over the sphere, a Fibonacci lattice. [count, 3]"""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    return np.stack(
        [np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1
    )


def directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Unit vectors spread over the sphere, turned and shaken at random. [count, 3]"""
    out = sphere(count) @ Rotation.random(random_state=rng).as_matrix().T
    out += rng.normal(0, 0.18, out.shape)
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True))


def direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """A unit vector at random. [3]"""
    v = rng.normal(size=3)
    return np.asarray(v / np.linalg.norm(v))
