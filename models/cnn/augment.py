"""Augmentation of a whole batch at once, in torch: the same family as models.passes, on the fly.

One call a batch, in a thread beside the training step (grid_sample releases the interpreter lock),
so that it costs little time where a second core is free.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from models.cnn.data import BalancedBatches, SplitArrays
from models.passes import PassRecipe
from models.voi import Preprocessing, without


def augment(
    bases: Tensor,
    spec: Preprocessing,
    recipe: PassRecipe,
    rng: np.random.Generator,
    *,
    phase_dropout: float = 0.0,
) -> Tensor:
    """Bases [B, P, M, M, M] -> views [B, P, K, K, K]: rotation about a random axis, mirroring,
    scale, shift, shift of late phases against the first, gain and offset a phase.

    Trilinear, border repeated, exactly as models.passes samples; only the random stream differs.
    A phase that was not acquired, all zero in its base, stays zero. phase_dropout: see `_dropped`.
    """
    b, p, m = bases.shape[:3]
    k = spec.tensor_voxels
    matrix = torch.from_numpy(_matrices(b, recipe, rng))
    shift = rng.uniform(-recipe.shift, recipe.shift, (b, 1, 3))
    drift = rng.uniform(-recipe.phase_shift, recipe.phase_shift, (b, p, 3))
    drift[:, 0] = 0.0
    gain = rng.normal(1.0, recipe.gain, (b, p, 1, 1, 1))
    level = rng.normal(0.0, recipe.offset, (b, p, 1, 1, 1))
    if phase_dropout:
        bases = _dropped(bases, spec, phase_dropout, rng)
    absent = ~bases.reshape(b, p, -1).any(dim=2)

    steps = torch.arange(k, dtype=torch.float32) - (k - 1) / 2
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1)
    turned = grid.reshape(-1, 3) @ matrix.transpose(1, 2)  # [B, K^3, 3], voxels from the centre
    moved = torch.from_numpy((shift + drift).astype(np.float32))
    places = turned[:, None] + moved[:, :, None]  # [B, P, K^3, 3]
    # grid_sample wants (z, y, x) in [-1, 1] between the centres of the outer voxels.
    places = (places / ((m - 1) / 2)).flip(-1).reshape(b * p, k, k, k, 3)
    sampled = functional.grid_sample(
        bases.reshape(b * p, 1, m, m, m),
        places,
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    ).reshape(b, p, k, k, k)
    views = sampled * torch.from_numpy(gain.astype(np.float32)) + torch.from_numpy(
        level.astype(np.float32)
    )
    views[absent] = 0.0
    return views


def _dropped(bases: Tensor, spec: Preprocessing, share: float, rng: np.random.Generator) -> Tensor:
    """Some of the bases [B, P, M, M, M] without some of their late phases.

    With probability `share` a base loses a subset of its late phases, drawn evenly among all that
    are not empty, so that each combination which serving accepts is seen as often as another. The
    first phase is never lost: it carries the box, and alone it may be all that there is. A lesion
    that lacks the first phase keeps its late ones.
    """
    count, phases = bases.shape[:2]
    if phases < 2:
        return bases
    hit = rng.random(count) < share
    subsets = rng.integers(1, 2 ** (phases - 1), count)
    out = bases.clone()
    for i in np.flatnonzero(hit):
        if bases[i, 0].any():
            lost = [p for p in range(1, phases) if subsets[i] >> (p - 1) & 1]
            out[i] = torch.from_numpy(without(bases[i].numpy(), lost, spec))
    return out


def _matrices(count: int, recipe: PassRecipe, rng: np.random.Generator) -> NDArray[np.float32]:
    """Turn, mirror and scale, [count, 3, 3]; the S-I axis is never mirrored."""
    axis = rng.normal(size=(count, 3))
    angle = np.deg2rad(rng.uniform(-recipe.degrees, recipe.degrees, (count, 1)))
    turn = Rotation.from_rotvec(
        axis / np.linalg.norm(axis, axis=1, keepdims=True) * angle
    ).as_matrix()
    flips = np.where(rng.random((count, 3)) < 0.5, -1.0, 1.0)
    flips[:, 2] = 1.0
    if not recipe.flip:
        flips[:] = 1.0
    scale = 1.0 + rng.uniform(-recipe.scale, recipe.scale, (count, 1, 1))
    return (turn * flips[:, None, :] * scale).astype(np.float32)


def centre(bases: Tensor, spec: Preprocessing) -> Tensor:
    """Bases [B, P, M, M, M] -> the plain view [B, P, K, K, K], as models.voi.centre."""
    margin = (spec.base_voxels - spec.tensor_voxels) // 2
    cut = slice(margin, margin + spec.tensor_voxels)
    return bases[:, :, cut, cut, cut].contiguous()


class AugmentedBatches:
    """One epoch of (views [B, P, K, K, K], classes [B]), each batch made while the last is used;
    where features [n, F] are given, their rows [B, F] come third.

    Batch i depends on (seed, epoch, i) alone, not on threads or on what was drawn before. Of
    several processes (rank of world) each makes its share of every batch, with its own variations.
    """

    def __init__(
        self,
        split: SplitArrays,
        batch: int,
        spec: Preprocessing,
        recipe: PassRecipe,
        seed: int,
        epoch: int,
        *,
        phase_dropout: float = 0.0,
        features: NDArray[np.float32] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        order = list(BalancedBatches(split.classes, batch, seed, epoch))
        self._order = [indices[rank::world] for indices in order]
        self._stream = [rank] if world > 1 else []
        self._split, self._spec, self._recipe = split, spec, recipe
        self._seed, self._epoch = seed, epoch
        self._phase_dropout, self._features = phase_dropout, features

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._make, 0)
            for i in range(len(self)):
                ready = ahead.result()
                if i + 1 < len(self):
                    ahead = pool.submit(self._make, i + 1)
                yield ready

    def _make(self, i: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng([self._seed, self._epoch, i, *self._stream])
        bases = torch.from_numpy(self._split.bases[self._order[i]])
        with torch.no_grad():
            x = augment(bases, self._spec, self._recipe, rng, phase_dropout=self._phase_dropout)
        batch = (
            x.contiguous(memory_format=torch.channels_last_3d),
            torch.from_numpy(self._split.classes[self._order[i]]),
        )
        if self._features is None:
            return batch
        return (*batch, torch.from_numpy(self._features[self._order[i]]))
