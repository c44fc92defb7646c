"""Pictures of a lesion: axial slices and signed overlays, as PNG data URIs.

Orientation is radiological: the patient's right on the left of the image, anterior up. One grey
window and one colour scale serve all phases, so that the phases compare.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.voi import Lesion

PIXELS = 384
POSITIVE = (255, 122, 26)  # orange: speaks for the target
NEGATIVE = (38, 139, 255)  # blue: speaks against it
STRONGEST = 0.85  # opacity at the end of the scale


@dataclass(frozen=True)
class Window:
    """Grey window in the lesion's own intensities."""

    low: float
    high: float


def window(lesion: Lesion) -> Window:
    """One window for all acquired phases: the 0.5 to 99.5 percentile of their voxels."""
    voxels = lesion.voxels[lesion.acquired] if lesion.missing else lesion.voxels
    low, high = np.percentile(voxels, [0.5, 99.5])
    return Window(float(low), float(high) if high > low else float(low) + 1.0)


def axial(block: NDArray) -> NDArray[np.float64]:
    """Centre slice of [X, Y, Z] (R, A, S) as an image [rows, columns], right on the left.

    An even grid has its centre between two slices: their mean is shown.
    """
    n = block.shape[2]
    middle = block[:, :, (n - 1) // 2 : n // 2 + 1].mean(axis=2, dtype=np.float64)
    return middle[::-1, ::-1].T


def grey(lesion: Lesion, phase: int, shades: Window, pixels: int = PIXELS) -> Image.Image:
    """The centre slice of one phase, smoothly enlarged, 8-bit grey."""
    plane = (axial(lesion.voxels[phase]) - shades.low) / (shades.high - shades.low)
    return Image.fromarray((np.clip(_enlarge(plane, pixels), 0, 1) * 255).round().astype(np.uint8))


def scale(maps: NDArray, floor: float) -> float:
    """End of the colour scale over all phases [P, K, K, K], never below `floor`.

    The floor keeps a map that is nearly nothing looking like nothing. The 99.9 percentile keeps one
    single voxel from dimming all others.
    """
    return max(float(np.percentile(np.abs(maps), 99.9)), floor)


def overlay(picture: Image.Image, heat: NDArray, end: float, base_voxels: int) -> Image.Image:
    """Lay the centre slice of one phase's map [K, K, K] over a picture of the lesion.

    The map covers the middle K of `base_voxels`; the picture covers all of them. Opacity grows
    linearly from zero, which is transparent, to the end of the scale.
    """
    pixels = picture.width
    covered = round(pixels * heat.shape[0] / base_voxels)
    values = np.clip(_enlarge(axial(heat), covered) / end, -1, 1)
    full = np.zeros((pixels, pixels))
    start = (pixels - covered) // 2
    full[start : start + covered, start : start + covered] = values
    alpha = (np.abs(full) * STRONGEST)[..., None]
    colour = np.where(full[..., None] >= 0, np.array(POSITIVE), np.array(NEGATIVE))
    under = np.asarray(picture, np.float64)[..., None]
    mixed = under * (1 - alpha) + colour * alpha
    return Image.fromarray(mixed.round().astype(np.uint8))


def data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=4)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _enlarge(plane: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize((pixels, pixels), Image.Resampling.BICUBIC), np.float64)
