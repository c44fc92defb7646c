"""A spec in, images out: the tissue model, then the scanner.

    liver, vessels, surface            background
      + lesion tissue and features     layers
      -> blur, breath-hold shift, coil sensitivity, Rician noise, whole numbers    here

The noise is drawn from the spec's seed and not from its features, so two renders of one lesion with
and without a feature differ in that feature alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.cohort.phantom.background import background
from models.cohort.phantom.canvas import Canvas
from models.cohort.phantom.layers import paint
from models.cohort.phantom.shape import Crop, Field, Mask
from models.cohort.phantom.spec import NOISE, PHASES, LesionSpec, draw
from models.volume import Box, Volume

_BLUR = np.array([0.18, 0.64, 0.18])  # point spread of the acquisition, voxels


@dataclass(frozen=True)
class Rendering:
    """volumes: phase -> Volume of whole numbers (as a scanner stores them), all on one grid.

    boxes: phase -> the reader's box, which holds the lesion as drawn, displaced with its phase.
    masks: 'lesion' and each feature that is on -> bool [X, Y, Z] on the grid, at the place of the
    first phase.
    """

    volumes: dict[str, Volume]
    boxes: dict[str, Box]
    masks: dict[str, Mask]


def render(spec: LesionSpec, noise: bool = True) -> Rendering:
    """Render a lesion. Deterministic; `noise=False` leaves the receiver noise out."""
    scene = background(spec)
    switched = set(spec.drawn) != set(spec.features)
    untouched = {p: image.copy() for p, image in scene.image.items()} if switched else {}
    if other := beside(spec):
        far = Crop(other)
        if not far.empty:
            _painted(other, far, scene.image, scene.texture)
    crop = Crop(spec)
    canvas = _painted(spec, crop, scene.image, scene.texture)
    masks = {name: _place(part, crop, spec.shape) for name, part in canvas.masks().items()}
    affine = _affine(spec)
    volumes = {}
    for i, p in enumerate(PHASES):
        signal = _acquire(scene.image[p], np.array(spec.shifts[p]) / spec.scanner.spacing)
        signal *= scene.coil
        if noise:
            signal = _rician(signal, spec.scanner.noise, spec.rng(NOISE, i))
        stored = np.rint(signal * np.float32(spec.scanner.gain)).clip(0, 32767)
        volumes[p] = Volume.make(stored, affine)
    whole = masks["lesion"]
    if switched:
        first = Crop(replace(spec, features=spec.drawn))
        canvas = _painted(first.spec, first, untouched, scene.texture)
        whole = _place(canvas.masks()["lesion"], first, spec.shape)
    return Rendering(volumes, _boxes(spec, whole), masks)


def beside(spec: LesionSpec) -> LesionSpec | None:
    """The patient's other lesion that is in view, on this lesion's grid."""
    if spec.neighbour is None:
        return None
    other = draw(spec.seed, spec.neighbour.index, spec.neighbour.class_id)
    x, y, z = (a + b for a, b in zip(spec.centre_mm, spec.neighbour.offset_mm, strict=True))
    return replace(other, shape=spec.shape, centre_mm=(x, y, z), scanner=spec.scanner)


def _painted(spec: LesionSpec, crop: Crop, image: dict[str, Field], texture: Field) -> Canvas:
    """Paint the lesion into `image`; returns the canvas, which knows the masks."""
    canvas = Canvas(spec, crop, {p: image[p][crop.box] for p in PHASES})
    paint(canvas, texture[crop.box])
    return canvas


def _place(part: Mask, crop: Crop, shape: tuple[int, int, int]) -> Mask:
    whole = np.zeros(shape, np.bool_)
    whole[crop.box] = part
    return whole


def _acquire(signal: Field, shift: NDArray[np.float64]) -> Field:
    """Blur and displace by `shift` voxels: content moves towards higher indices."""
    for axis, amount in enumerate(shift):
        step = int(np.floor(amount))
        part = amount - step
        taps = np.convolve(_BLUR, [1 - part, part])  # content moved by 0 to 1 voxel, 4 taps
        wide = np.zeros(9)
        wide[3 + step : 7 + step] = taps
        low, high = np.flatnonzero(wide)[[0, -1]]
        reach = max(4 - low, high - 4)
        signal = ndimage.convolve1d(signal, wide[4 - reach : 5 + reach], axis=axis, mode="nearest")
    return signal


def _rician(signal: Field, sigma: float, rng: np.random.Generator) -> Field:
    """Magnitude of a complex signal with independent Gaussian noise in both channels."""
    real = rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = rng.standard_normal(signal.shape, dtype=np.float32)
    real *= np.float32(sigma)
    real += signal
    imaginary *= np.float32(sigma)
    real *= real
    imaginary *= imaginary
    real += imaginary
    return np.sqrt(real, out=real)


def _boxes(spec: LesionSpec, lesion: Mask) -> dict[str, Box]:
    """Tight around the lesion, then loosened by a reader's margin of up to 2 mm a side."""
    spacing, shape = np.array(spec.scanner.spacing), np.array(spec.shape)
    low = np.array([np.flatnonzero(lesion.any(_others(a)))[0] for a in range(3)])
    high = np.array([np.flatnonzero(lesion.any(_others(a)))[-1] + 1 for a in range(3)])
    margin = np.array(spec.margin)
    boxes = {}
    for p in PHASES:
        drift = np.round(np.array(spec.shifts[p]) / spacing).astype(int)
        lower = np.clip(low - margin[0] + drift, 0, shape - 1)
        upper = np.clip(high + margin[1] + drift, 1, shape)
        boxes[p] = Box.make([lower.tolist(), upper.tolist()], field=f"box.{p}")
    return boxes


def _others(axis: int) -> tuple[int, int]:
    return tuple(a for a in range(3) if a != axis)  # type: ignore[return-value]


def _affine(spec: LesionSpec) -> NDArray[np.float64]:
    """Axial slices as DICOM lays them out: columns to the left, rows to the back, slices up."""
    sx, sy, sz = spec.scanner.spacing
    nx, ny, nz = spec.shape
    affine = np.diag([-sx, -sy, sz, 1.0])
    # Centred in the right side of the body; a tenth of a millimetre survives every file format.
    affine[:3, 3] = np.round([60 + sx * nx / 2, 10 + sy * ny / 2, -sz * nz / 2], 1)
    return affine
