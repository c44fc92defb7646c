"""Stochastic passes: seeded variations of one lesion, the same in training and explanation.

Wang et al. average activations over augmented copies of a lesion. A pass turns, shifts and scales
the view, shifts late phases against the first, and changes gain and offset a phase by a little. A
phase that was not acquired is zero in the base and stays zero in every pass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

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
    return np.stack(
        [
            _view(base, spec, recipe, np.random.default_rng([seed, i]))
            for i in range(first, first + count)
        ]
    )


def _view(
    base: NDArray[np.float32], spec: Preprocessing, recipe: PassRecipe, rng: np.random.Generator
) -> NDArray[np.float32]:
    from scipy import ndimage  # not at the start of a service, see models.voi
    from scipy.spatial.transform import Rotation

    k = spec.tensor_voxels
    axis = rng.normal(size=3)
    angle = np.deg2rad(rng.uniform(-recipe.degrees, recipe.degrees))
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
    flips = np.where(rng.random(3) < 0.5, -1.0, 1.0) if recipe.flip else np.ones(3)
    flips[2] = 1.0
    matrix = turn * flips * (1.0 + rng.uniform(-recipe.scale, recipe.scale))
    shift = rng.uniform(-recipe.shift, recipe.shift, size=3)
    out = np.empty((base.shape[0], k, k, k), dtype=np.float32)
    for p, plane in enumerate(base):
        drift = rng.uniform(-recipe.phase_shift, recipe.phase_shift, size=3) if p else np.zeros(3)
        middle = (spec.base_voxels - 1) / 2 + shift + drift
        offset = middle - matrix @ np.full(3, (k - 1) / 2)
        sampled = ndimage.affine_transform(
            plane, matrix, offset=offset, output_shape=(k, k, k), order=1, mode="nearest"
        )
        gain, level = rng.normal(1.0, recipe.gain), rng.normal(0.0, recipe.offset)
        # A whole plane of exact zeros is a phase that was not acquired (models.voi.normalise).
        out[p] = sampled * gain + level if plane.any() else 0.0
    return out
