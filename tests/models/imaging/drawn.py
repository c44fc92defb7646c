"""Simple lesions drawn for the imaging tests: an ellipsoid of known levels in even parenchyma."""

from __future__ import annotations

import numpy as np

from models.voi import Preprocessing

SPEC = Preprocessing()
SIZE = (30.0, 24.0, 27.0)


def radius(size: tuple[float, float, float] = SIZE, voxels: int = 32) -> np.ndarray:
    """Radius over the ellipsoid inscribed in the VOI, [M, M, M]."""
    step = max(max(size) * SPEC.context, SPEC.min_fov_mm) / voxels
    place = (np.arange(voxels) - (voxels - 1) / 2) * step
    x, y, z = (2 * place / edge for edge in size)
    return np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)


def base(
    levels: tuple[float, ...], *, at: float = 0.95, noise: float = 0.02, seed: int = 0
) -> np.ndarray:
    """A lesion `levels` above parenchyma by phase (0.2: 20 % brighter), up to `at` of the VOI."""
    inside = np.clip((at - radius()) * 8 + 0.5, 0, 1)
    return signal(np.stack([inside * level for level in levels]), noise, seed)


def signal(relative: np.ndarray, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """Signal over parenchyma, less 1 [P, M, M, M] -> base, with noise."""
    rng = np.random.default_rng(seed)
    noisy = relative + rng.normal(scale=noise, size=relative.shape)
    return np.clip(noisy * SPEC.gain, -SPEC.clip, SPEC.clip).astype(np.float32)
