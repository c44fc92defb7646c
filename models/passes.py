"""Stochastic passes: seeded variations of one lesion, the same in training and explanation.

Wang et al. average activations over augmented copies of a lesion. A pass turns, shifts and scales
the view, shifts late phases against the first, and changes gain and offset a phase by a little. A
phase that was not acquired is zero in the base and stays zero in every pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.trilinear import trilinear
from models.voi import Preprocessing


class PassRecipe(BaseModel):
    """Ranges of the variations, kept in the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    degrees: float = Field(15.0, description="Largest rotation about a random axis.")
    shift: float = Field(1.5, description="Largest shift of the view, base voxels.")
    scale: float = Field(0.08, description="Largest relative change of scale.")
    phase_shift: float = Field(0.5, description="Largest shift of a phase, base voxels.")
    gain: float = Field(0.04, description="Standard deviation of a phase's relative gain.")
    offset: float = Field(0.04, description="Standard deviation of a phase's offset.")
    flip: bool = Field(True, description="Mirror the R-L and A-P axes at random.")


def views(
    base: NDArray[np.float32],
    spec: Preprocessing,
    recipe: PassRecipe,
    count: int,
    seed: int,
    first: int = 0,
) -> NDArray[np.float32]:
    """Base [P, M, M, M] -> passes [count, P, K, K, K], from number `first` on.

    Pass i depends on (seed, i) alone.
    """
    # A whole plane of exact zeros is a phase that was not acquired (models.voi.normalise).
    acquired = [bool(plane.any()) for plane in base]
    k = spec.tensor_voxels
    out = np.zeros((count, len(base), k, k, k), dtype=np.float32)
    for i, view in enumerate(out, first):
        _look(base, acquired, spec, recipe, np.random.default_rng([seed, i]), view)
    return out


def _look(
    base: NDArray[np.float32],
    acquired: Sequence[bool],
    spec: Preprocessing,
    recipe: PassRecipe,
    rng: np.random.Generator,
    out: NDArray[np.float32],
) -> None:
    """One pass, into `out` [P, K, K, K], which is zero."""
    from scipy.spatial.transform import Rotation  # not at the start of a service, see models.voi

    k = spec.tensor_voxels
    axis = rng.normal(size=3)
    angle = np.deg2rad(rng.uniform(-recipe.degrees, recipe.degrees))
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
    flips = np.where(rng.random(3) < 0.5, -1.0, 1.0) if recipe.flip else np.ones(3)
    flips[2] = 1.0
    matrix = turn * flips * (1.0 + rng.uniform(-recipe.scale, recipe.scale))
    shift = rng.uniform(-recipe.shift, recipe.shift, size=3)
    middles, tones = [], []
    for p in range(len(base)):
        drift = rng.uniform(-recipe.phase_shift, recipe.phase_shift, size=3) if p else np.zeros(3)
        middles.append((spec.base_voxels - 1) / 2 + shift + drift)
        tones.append((rng.normal(1.0, recipe.gain), rng.normal(0.0, recipe.offset)))
    origin = matrix @ np.full(3, (k - 1) / 2)
    sampled = trilinear(base, matrix, [middle - origin for middle in middles], k)
    for view, there, into, (gain, level) in zip(sampled, acquired, out, tones, strict=True):
        if there:
            np.multiply(view, np.float32(gain), out=into)
            into += np.float32(level)
