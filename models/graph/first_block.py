"""ReLU and a max pooling without overlap, forth and back, on blends of two images.

The voxels of a window are laid side by side, [K, C, X, Y, Z] with K voxels a window, so that both
directions are whole-array operations. Ties go to the first voxel of the window, as in ONNX's
MaxPool with indices; what is not above zero passes nothing back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Windows:
    """Pooling windows of a map [C, x, y, z] whose edges they divide. Raises ValueError else."""

    def __init__(self, shape: Sequence[int], window: Sequence[int]) -> None:
        channels, *edges = shape
        if any(edge % k for edge, k in zip(edges, window, strict=True)):
            raise ValueError(f"windows {tuple(window)} do not tile {tuple(edges)}")
        small = [edge // k for edge, k in zip(edges, window, strict=True)]
        self.shape = (channels, *edges)
        self.pooled = (channels, *small)
        self.count = int(np.prod(window))
        pairs = [n for pair in zip(small, window, strict=True) for n in pair]
        self._folded = (channels, *pairs)
        self._unfolded = (*window, channels, *small)

    def lay(self, image: Floats) -> Floats:
        """[C, x, y, z] -> [K, C, X, Y, Z], a copy."""
        turned = image.reshape(self._folded).transpose(2, 4, 6, 0, 1, 3, 5)
        return np.ascontiguousarray(turned).reshape(self.count, *self.pooled)

    def back(self, laid: Floats) -> Floats:
        """The inverse of `lay`."""
        turned = laid.reshape(self._unfolded).transpose(3, 4, 0, 5, 1, 6, 2)
        return np.ascontiguousarray(turned).reshape(self.shape)


def pooled(laid: Floats) -> Floats:
    """ReLU and pooling: [K, ...] -> [...]."""
    return np.maximum(laid.max(axis=0), np.float32(0))


def add_slope(total: Floats, laid: Floats, slope: Floats, scratch: Floats) -> None:
    """Add the gradient at `laid` to `total`, both [K, ...]; slope: the one behind the pooling.

    scratch: like them; what was in it is lost.
    """
    most = laid.max(axis=0)
    chosen = laid == most
    live = most > 0
    tied = live & (np.add.reduce(chosen, axis=0, dtype=np.int32) > 1)
    if tied.any():
        first = chosen[:, tied].argmax(axis=0)
        chosen[:, tied] = np.arange(len(laid))[:, None] == first
    np.multiply(chosen, slope * live, out=scratch)
    total += scratch
