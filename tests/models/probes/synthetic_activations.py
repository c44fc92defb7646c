"""Activations with planted features: a lesion's features shift it along fixed directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Planted:
    """h [n, D], labels [n, F] in 0/1, directions [F, D]."""

    h: NDArray[np.float32]
    labels: NDArray[np.float64]
    directions: NDArray[np.float64]


def planted(
    n: int, *, units: int = 40, features: int = 3, strength: float = 1.2, seed: int = 0
) -> Planted:
    """Correlated noise (12 factors), and each present feature moves a third of the units."""
    world = np.random.default_rng(0)
    factors = world.normal(size=(12, units))
    directions = (
        strength * world.normal(size=(features, units)) * (world.random((features, units)) < 0.33)
    )
    rng = np.random.default_rng([1, seed])
    labels = (rng.random((n, features)) < 0.4).astype(float)
    noise = 0.5 * rng.normal(size=(n, 12)) @ factors + rng.normal(size=(n, units))
    return Planted((noise + labels @ directions).astype(np.float32), labels, directions)
