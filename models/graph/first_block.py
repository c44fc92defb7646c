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
        self._window = tuple(window)

    def lay(self, image: Floats) -> Floats:
        """[C, x, y, z] -> [K, C, X, Y, Z], a copy."""
        turned = image.reshape(self._folded).transpose(2, 4, 6, 0, 1, 3, 5)
        return np.ascontiguousarray(turned).reshape(self.count, *self.pooled)

    def back(self, laid: Floats) -> Floats:
        """The inverse of `lay`."""
        # The last axis first, whose neighbours then lie side by side and are moved together.
        *_, last = self._window
        rows = np.empty((self.count // last, *self.pooled, last), np.float32)
        for k in range(last):
            rows[..., k] = laid[k::last]
        out = np.empty(self.shape, np.float32)
        channels, x, y, _ = self.pooled
        wide = out.reshape(channels, x, self._window[0], y, self._window[1], -1)
        for number, row in enumerate(rows):
            i, j = divmod(number, self._window[1])
            wide[:, :, i, :, j] = row.reshape(channels, x, y, -1)
        return out


def pooled(laid: Floats, out: Floats | None = None) -> Floats:
    """ReLU and pooling: [K, ...] -> [...], into `out` where it is given."""
    top = np.maximum(laid[0], np.float32(0), out=out)
    for some in laid[1:]:
        np.maximum(top, some, out=top)
    return top


def add_slope(total: Floats, laid: Floats, top: Floats, slope: Floats, scratch: Floats) -> None:
    """Add the gradient at `laid` to `total`, both [K, ...]; slope: the one behind the pooling.

    top: `pooled(laid)`. scratch: like `laid`; what was in it is lost.
    """
    live = top > 0
    chosen = laid == top
    # A live window holds one voxel at least that is its top, so equal counts mean no ties.
    if np.count_nonzero(chosen) != np.count_nonzero(live):
        tied = live & (np.add.reduce(chosen, axis=0, dtype=np.int32) > 1)
        first = chosen[:, tied].argmax(axis=0)
        chosen[:, tied] = np.arange(len(laid))[:, None] == first
    np.multiply(chosen, slope * live, out=scratch)
    total += scratch
