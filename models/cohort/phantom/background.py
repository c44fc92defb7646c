"""What surrounds a lesion: parenchyma with texture and vessels, the liver's surface, the coil.

Nothing here depends on the lesion's features, so that switching one off leaves it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from models.cohort.phantom.shape import Field
from models.cohort.phantom.spec import ANATOMY, PHASES, LesionSpec

_TEXTURE = 0.035  # standard deviation of parenchyma's texture


@dataclass(frozen=True)
class Background:
    """image: phase -> signal over unenhanced parenchyma. texture: about 1. coil: about 1."""

    image: dict[str, Field]
    texture: Field
    coil: Field


def background(spec: LesionSpec) -> Background:
    """The volume without the lesion, before blur, displacement and noise."""
    rng = spec.rng(ANATOMY, 1)
    spacing, shape = np.array(spec.scanner.spacing), np.array(spec.shape)
    middle = (shape - 1) / 2 * spacing + np.array(spec.centre_mm)
    axes = [
        (np.arange(n) * s - m).astype(np.float32).reshape(np.roll((-1, 1, 1), i))
        for i, (n, s, m) in enumerate(zip(shape, spacing, middle, strict=True))
    ]
    texture = _texture(rng, spec.shape)
    vessels = _vessels(rng, axes, spec)
    beyond, fat = _surface(rng, axes, spec)
    perfusion = spec.scanner.perfusion
    image = {}
    for p in PHASES:
        t = spec.scanner.times[p]
        signal = texture * np.float32(perfusion.liver(t))
        signal += vessels * (np.float32(perfusion.portal(t)) - signal)
        if beyond is not None:
            signal += beyond * (np.float32(fat * (0.9 + 0.1 * perfusion.liver(t))) - signal)
        image[p] = signal
    return Background(image, texture, _coil(rng, axes, spec))


def _texture(rng: np.random.Generator, shape: tuple[int, int, int]) -> Field:
    """Correlated over two to three voxels."""
    white = rng.standard_normal(shape, dtype=np.float32)
    for axis in range(3):
        white = ndimage.uniform_filter1d(white, 3, axis=axis, mode="nearest")
    white *= np.float32(_TEXTURE * 27**0.5)
    white += 1
    return white


def _vessels(rng: np.random.Generator, axes: list[Field], spec: LesionSpec) -> Field:
    """Coverage of a few bent tubes of 3 to 9 mm that pass beside the lesion."""
    edge = np.float32(1.1 * spec.scanner.spacing[0])
    total = np.zeros(spec.shape, np.float32)
    for _ in range(int(rng.integers(3, 7))):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        u, v, w = (sum(a * np.float32(c) for a, c in zip(axes, row, strict=True)) for row in turn)
        aside = spec.form.diameter_mm * rng.uniform(0.55, 1.1)
        bend = np.float32(rng.uniform(-0.006, 0.006))
        away = (u - np.float32(aside) - bend * w * w) ** 2 + (v + bend * w * w) ** 2
        depth = np.float32(rng.uniform(1.4, 4.5)) - np.sqrt(away)
        np.maximum(total, np.clip(depth / edge + np.float32(0.5), 0, 1), out=total)
    return total


def _surface(
    rng: np.random.Generator, axes: list[Field], spec: LesionSpec
) -> tuple[Field | None, float]:
    """Coverage of what lies beyond the liver's surface, for every third lesion, and its signal."""
    near, fat = rng.random() < 0.35, float(rng.choice((0.45, 0.8)) + rng.normal(0, 0.05))
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    away = spec.form.diameter_mm * rng.uniform(0.85, 1.2) + 4
    if not near:
        return None, fat
    along = sum(a * np.float32(c) for a, c in zip(axes, way, strict=True))
    edge = np.float32(1.5 * spec.scanner.spacing[0])
    return np.asarray(np.clip((along - away) / edge, 0, 1), np.float32), fat


def _coil(rng: np.random.Generator, axes: list[Field], spec: LesionSpec) -> Field:
    """Receive sensitivity: a smooth slope and bow along each axis, at most 1 +- bias in all."""
    total = np.ones((1, 1, 1), np.float32)
    for a in axes:
        place = a / float(np.abs(a).max())
        slope, bow = rng.uniform(-1, 1, 2)
        along = slope / 4 * place + bow / 12 * place * place
        total = total + np.asarray(spec.scanner.bias * along, np.float32)
    return total
