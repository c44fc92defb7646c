"""Lesions that no network should be sure of: images spoiled on purpose, real images of no liver.

Each kind is a way in which data go wrong in practice, or a control that holds nothing to recognise.
Spoiling works on the canonical lesion, so that it is independent of a cohort's grids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.errors import InputError
from models.voi import Lesion, Preprocessing, extract
from models.volume import Box, Study, Volume

# kind -> what it is, in a report's words.
KINDS = {
    "copied_phase": "one phase in place of all, each copy with a gain of its own",
    "noise": "noise of the same mean and spread, white or smooth, no lesion",
    "shuffled_voxels": "the voxels of each phase in random order",
    "upside_down": "mirrored from head to foot",
    "reversed_phases": "the phases in reversed order",
    "zeros": "an empty region: every voxel the same",
    "repeated_slice": "the middle slice in place of all slices",
}


def spoiled(lesion: Lesion, kind: str, rng: np.random.Generator) -> Lesion:
    """The lesion with its voxels spoiled; size and phases stay. Raises InputError."""
    if kind not in KINDS:
        raise InputError(
            "no such kind of outlier", field="kind", found=kind, expected=", ".join(KINDS)
        )
    voxels = _SPOIL[kind](lesion.voxels.astype(np.float32), rng)
    return replace(lesion, voxels=np.ascontiguousarray(voxels, dtype=np.float32))


def _copied_phase(voxels: NDArray, rng: np.random.Generator) -> NDArray:
    source = voxels[rng.integers(len(voxels))]
    gains = rng.uniform(0.9, 1.1, size=len(voxels)).astype(np.float32)
    return source[None] * gains[:, None, None, None]


def _noise(voxels: NDArray, rng: np.random.Generator) -> NDArray:
    """White for half of the lesions; for the others with a correlation of 1 to 4 voxels."""
    width = 0.0 if rng.random() < 0.5 else rng.uniform(1, 4)
    out = np.empty_like(voxels)
    for p, phase in enumerate(voxels):
        drawn = rng.normal(size=phase.shape)
        if width:
            drawn = ndimage.gaussian_filter(drawn, width, mode="wrap")
        drawn = (drawn - drawn.mean()) / drawn.std()
        out[p] = phase.mean() + phase.std() * drawn
    return out


def _shuffled(voxels: NDArray, rng: np.random.Generator) -> NDArray:
    """One order for all phases for half of the lesions, one for each phase for the others."""
    flat = voxels.reshape(len(voxels), -1)
    if rng.random() < 0.5:
        return flat[:, rng.permutation(flat.shape[1])].reshape(voxels.shape)
    return np.stack([rng.permutation(row) for row in flat]).reshape(voxels.shape)


def _upside_down(voxels: NDArray, rng: np.random.Generator) -> NDArray:
    return voxels[..., ::-1]


def _reversed(voxels: NDArray, rng: np.random.Generator) -> NDArray:
    return voxels[::-1]


def _zeros(voxels: NDArray, rng: np.random.Generator) -> NDArray:
    return np.full_like(voxels, max(float(voxels.mean()), 1.0))


def _repeated_slice(voxels: NDArray, rng: np.random.Generator) -> NDArray:
    middle = voxels.shape[-1] // 2
    return np.repeat(voxels[..., middle : middle + 1], voxels.shape[-1], axis=-1)


_SPOIL = {
    "copied_phase": _copied_phase,
    "noise": _noise,
    "shuffled_voxels": _shuffled,
    "upside_down": _upside_down,
    "reversed_phases": _reversed,
    "zeros": _zeros,
    "repeated_slice": _repeated_slice,
}


def voi_of_series(
    series: Sequence[Volume], phases: Sequence[str], spec: Preprocessing, rng: np.random.Generator
) -> Lesion:
    """A VOI somewhere in tissue of a real examination that shows no liver lesion.

    series: one or more volumes of one examination on one grid. Each phase is one of them; where
    there are fewer series than phases, one serves several times with another gain (0.8 to 1.3),
    another noise (3 % of its spread) and a shift below a voxel, so that no phase is a copy. The
    VOI's edges are 12 to 50 mm. Raises InputError where a volume holds no tissue.
    """
    reference = series[0]
    low, high = np.quantile(reference.data, [0.05, 0.98])
    tissue = np.argwhere(reference.data > low + 0.25 * (high - low))
    if len(tissue) == 0:
        raise InputError("the volume holds no tissue", code="no_contrast", field="series")
    centre = tissue[rng.integers(len(tissue))]
    edges = np.maximum(np.round(rng.uniform(12, 50, size=3) / reference.spacing), 1).astype(int)
    edges = np.minimum(edges, reference.shape)
    lower = np.clip(centre - edges // 2, 0, np.asarray(reference.shape) - edges)
    box = Box.make([lower.tolist(), (lower + edges).tolist()])
    order = rng.permutation(len(series))
    volumes = {}
    for p, phase in enumerate(phases):
        volume = series[order[p % len(series)]]
        data = volume.data.astype(np.float64)
        if p:
            shift = rng.uniform(-0.7, 0.7, 3) * (np.asarray(data.shape) > 1)
            data = ndimage.shift(data, shift, order=1, mode="nearest") * rng.uniform(0.8, 1.3)
            data = data + rng.normal(0, 0.03 * data.std(), size=data.shape)
        volumes[phase] = Volume.make(data.astype(np.float32), volume.affine)
    return extract(Study.make(volumes, dict.fromkeys(phases, box), tuple(phases)), spec)
