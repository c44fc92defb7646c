"""Pictures of the evaluation's gallery: a slice, its map, the outline of the true mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from models.report.pictures import NEGATIVE, POSITIVE, STRONGEST

ENLARGED = 12  # pixels a voxel
OUTLINE = (60, 230, 120)


def plate_picture(
    image: NDArray[np.float32], heat: NDArray[np.float32], mask: NDArray[np.bool_], end: float
) -> Image.Image:
    """The slice beside itself with the map over it. All [K, K] (R, A); right on the left.

    end: the map's value of full colour, one for the whole gallery, so that a faint map looks faint.
    """
    low, high = np.percentile(image, [1, 99])
    grey = _turned(np.clip((image - low) / max(float(high - low), 1e-6), 0, 1), 1)
    share = np.clip(_turned(heat, 1) / end, -1, 1)
    alpha = (np.abs(share) * STRONGEST)[..., None]
    colour = np.where(share[..., None] >= 0, np.array(POSITIVE), np.array(NEGATIVE))
    left = np.repeat(grey[..., None] * 255, 3, axis=2)
    right = left * (1 - alpha) + colour * alpha
    inside = _turned(mask.astype(np.float64), 0) > 0.5
    edge = inside & ~ndimage.binary_erosion(inside, iterations=2)
    for picture in (left, right):
        picture[edge] = OUTLINE
    gap = np.full((len(left), ENLARGED, 3), 255.0)
    return Image.fromarray(np.concatenate([left, gap, right], axis=1).round().astype(np.uint8))


def _turned(plane: NDArray, order: int) -> NDArray[np.float64]:
    """[K, K] along (R, A) -> an image, enlarged: smoothly, or (order 0) voxel by voxel."""
    flat = np.asarray(plane, dtype=np.float64)[::-1, ::-1].T
    if order == 0:
        return flat.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
    pixels = len(flat) * ENLARGED
    enlarged = Image.fromarray(flat.astype(np.float32)).resize(
        (pixels, pixels), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(enlarged, np.float64), flat.min(), flat.max())
