"""The one preprocessing path: a study in, a canonical lesion, a network tensor out.

    Study --extract--> Lesion (64^3 a phase, raw intensities, isotropic mm, RAS axes)
          --normalise--> base (32^3 a phase, scaled as Preprocessing.intensity says)
          --centre--> tensor [P, 24, 24, 24]      (stochastic passes sample from the same base)

One scale serves all three axes, so a lesion is never squeezed into a box; the scale itself (mm per
voxel) and the VOI's size are kept. Intensities of all phases are divided by one parenchyma median,
so enhancement stays comparable between phases and zero means 'like parenchyma'. A classifier that
was trained elsewhere may name another scale (see Preprocessing.intensity).

A phase that was not acquired is exactly zero in the base, in every pass and in the tensor.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import InputError
from models.volume import Study

Intensity = Literal["parenchyma", "zscore", "minmax", "percentile"]


class Preprocessing(BaseModel):
    """Parameters of the path, kept in the bundle.

    intensity, with x a phase of the base, averaged down to base_voxels:

        parenchyma   clip((x / u - 1) * gain, +-clip), u the median around the VOI over all phases:
                     enhancement stays comparable between phases, zero is 'like parenchyma'
        zscore       clip((x - mean) / standard deviation, +-clip), each phase by itself
        minmax       (x - min) / (max - min), in [0, 1], each phase by itself
        percentile   (x - low) / (high - low), clipped to [0, 1], where low and high are the
                     phase's own percentiles

    The last three are for classifiers that were trained so elsewhere. They take each phase by
    itself over the field of view, so they lose how far the phases differ in brightness.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lesion_voxels: int = Field(64, gt=0, description="Edge of the canonical lesion in voxels.")
    base_voxels: int = Field(
        32, gt=0, description="Edge after averaging down; must divide the former."
    )
    tensor_voxels: int = Field(
        24, gt=0, description="Edge of the network's input, the base's centre; may be all of it."
    )
    context: float = Field(2.0, gt=0, description="Field of view over the VOI's longest edge.")
    min_fov_mm: float = Field(24.0, gt=0, description="Smallest field of view.")
    intensity: Intensity = Field("parenchyma", description="How intensities are scaled.")
    gain: float = Field(2.0, gt=0, description="parenchyma: scale after dividing by the median.")
    clip: float = Field(6.0, gt=0, description="parenchyma, zscore: values are clipped to +-clip.")
    percentile_low: float = Field(1.0, ge=0, lt=100, description="percentile: becomes zero.")
    percentile_high: float = Field(99.0, gt=0, le=100, description="percentile: becomes one.")

    @model_validator(mode="after")
    def _check(self) -> Preprocessing:
        if self.lesion_voxels % self.base_voxels:
            raise ValueError("base_voxels must divide lesion_voxels")
        if self.tensor_voxels > self.base_voxels or (self.base_voxels - self.tensor_voxels) % 2:
            raise ValueError("tensor_voxels must be base_voxels less an even number")
        if self.percentile_low >= self.percentile_high:
            raise ValueError("percentile_low must lie below percentile_high")
        return self

    def shape(self, phases: int) -> tuple[int, int, int, int]:
        n = self.tensor_voxels
        return phases, n, n, n


@dataclass(frozen=True)
class Lesion:
    """A lesion on its canonical grid: everything that an explanation depends on.

    voxels: float32 [P, N, N, N], raw intensities, axes R, A, S, the VOI's centre in the middle.
    phases: ids in order. mm_per_voxel: edge of a voxel. size_mm: edges of the VOI, [3].
    slices: smallest number of slices over the phases (1: no depth). missing: phases that were not
    acquired, in order; their voxels are zero.
    """

    voxels: NDArray[np.float32]
    phases: tuple[str, ...]
    mm_per_voxel: float
    size_mm: tuple[float, float, float]
    slices: int
    missing: tuple[str, ...] = ()

    @property
    def acquired(self) -> NDArray[np.intp]:
        """Indices of the phases that were acquired."""
        return np.array([i for i, p in enumerate(self.phases) if p not in self.missing], np.intp)

    @property
    def id(self) -> str:
        """Content hash, 'les-' and 20 hex digits."""
        digest = hashlib.sha256(np.ascontiguousarray(self.voxels).data)  # copied only if need be
        digest.update(
            repr((self.phases, round(self.mm_per_voxel, 5), self.size_mm, self.slices)).encode()
        )
        if self.missing:
            digest.update(repr(self.missing).encode())
        return "les-" + digest.hexdigest()[:20]

    def to_bytes(self) -> bytes:
        """As .npz without pickle, for the blob store."""
        buffer = io.BytesIO()
        more: dict[str, Any] = {"missing": np.array(self.missing)} if self.missing else {}
        np.savez(
            buffer,
            voxels=self.voxels,
            phases=np.array(self.phases),
            mm_per_voxel=np.float64(self.mm_per_voxel),
            size_mm=np.array(self.size_mm, dtype=np.float64),
            slices=np.int64(self.slices),
            **more,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Lesion:
        with np.load(io.BytesIO(data), allow_pickle=False) as z:
            return cls(
                voxels=z["voxels"],
                phases=tuple(str(p) for p in z["phases"]),
                mm_per_voxel=float(z["mm_per_voxel"]),
                size_mm=tuple(float(v) for v in z["size_mm"]),  # type: ignore[arg-type]
                slices=int(z["slices"]),
                missing=tuple(str(p) for p in z["missing"]) if "missing" in z else (),
            )

    @property
    def identical_phases(self) -> list[tuple[str, str]]:
        """Pairs of acquired phases that are one image, up to gain and offset."""
        flat = self.voxels.reshape(len(self.phases), -1)
        return [
            (self.phases[i], self.phases[j])
            for i, j in itertools.combinations(self.acquired, 2)
            if _one_image(flat[i], flat[j])
        ]


def _one_image(a: NDArray, b: NDArray) -> bool:
    """Noise never repeats: a correlation this near to one means a copy."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return scale == 0 or float(a @ b) / scale > 0.9999


def extract(study: Study, spec: Preprocessing) -> Lesion:
    """Resample every phase around its own VOI centre on one isotropic grid. Deterministic.

    Phases are aligned by their VOI centres (METHOD: alignment by box centres); voxels beyond the
    volume repeat its border. A phase that was not acquired is zero and named in `missing`.
    """
    n = spec.lesion_voxels
    size = np.round(study.size_mm(), 4)
    fov = max(float(size.max()) * spec.context, spec.min_fov_mm)
    step = fov / n
    offsets = (np.arange(n) - (n - 1) / 2) * step

    planes = {}
    for phase, volume in study.volumes.items():
        inverse = np.linalg.inv(volume.affine[:3, :3])
        centre = volume.index(study.centre_mm(phase))
        # The output index k lies at centre + inverse @ (offset_k); affine_transform does the rest.
        matrix = inverse * step
        start = centre + inverse @ np.full(3, offsets[0])
        source = _antialias(volume.data, volume.spacing, step)
        planes[phase] = _sampled(source, matrix, start, n)
    acquired = np.stack(list(planes.values())).astype(np.float32)
    if float(np.ptp(acquired)) == 0:
        raise InputError(
            "the region holds one single value",
            code="no_contrast",
            field="box",
            expected="image content inside and around the box",
        )
    if study.missing:
        blank = np.zeros((n, n, n), np.float32)
        voxels = np.stack([planes.get(p, blank) for p in study.phases]).astype(np.float32)
    else:
        voxels = acquired
    return Lesion(
        voxels=voxels,
        phases=study.phases,
        mm_per_voxel=step,
        size_mm=tuple(float(v) for v in size),  # type: ignore[arg-type]
        slices=min(v.shape[2] for v in study.volumes.values()),
        missing=study.missing,
    )


def _sampled(
    source: NDArray[np.float32], matrix: NDArray, start: NDArray, n: int
) -> NDArray[np.float32]:
    """`source` at matrix @ k + start for every k of an [n, n, n] grid: linear, its border repeated.

    Images along the axes, which is nearly all, are interpolated axis by axis: the same weights in
    the same precision as the general way, in a third of its time.
    """
    steps = np.diag(matrix)
    if np.count_nonzero(matrix - np.diag(steps)):
        from scipy import ndimage  # much to import at a service's start

        return ndimage.affine_transform(
            source, matrix, offset=start, output_shape=(n, n, n), order=1, mode="nearest"
        )
    places = []
    for axis, size in enumerate(source.shape):
        at = np.clip(start[axis] + np.arange(n) * steps[axis], 0, size - 1)
        low = np.floor(at).astype(np.intp)
        places.append((low, np.minimum(low + 1, size - 1), at - low))
    part = tuple(slice(low.min(), high.max() + 1) for low, high, _ in places)
    out = source[part].astype(np.float64)
    for axis, (low, high, share) in enumerate(places):
        share = share.reshape([n if a == axis else 1 for a in range(3)])
        below, above = (out.take(i - part[axis].start, axis=axis) for i in (low, high))
        below *= 1 - share
        above *= share
        out = below
        out += above
    return out.astype(np.float32)


def _antialias(data: NDArray, spacing: NDArray, step: float) -> NDArray:
    """Smooth before thinning out; nothing where the grid gets finer."""
    from scipy import ndimage

    sigma = np.where(spacing < step, 0.5 * np.sqrt(np.maximum((step / spacing) ** 2 - 1, 0)), 0.0)
    return ndimage.gaussian_filter(data, sigma, mode="nearest") if sigma.any() else data


def parenchyma(lesion: Lesion) -> float:
    """Median intensity around the VOI over the acquired phases: the common unit of intensity."""
    n = lesion.voxels.shape[1]
    coords = (np.arange(n) - (n - 1) / 2) * lesion.mm_per_voxel
    inside = [np.abs(coords) <= 0.6 * edge for edge in lesion.size_mm]
    shell = ~(inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :])
    voxels = lesion.voxels[lesion.acquired] if lesion.missing else lesion.voxels
    around = voxels[:, shell] if shell.any() else voxels.reshape(1, -1)
    unit = _median(around)
    # No spread is more than half of the range, so it is seldom needed.
    if abs(unit) > 0.025 * (float(voxels.max()) - float(voxels.min())):
        return unit
    spread = float(np.std(voxels))
    return unit if abs(unit) > 0.05 * spread else (spread or 1.0)


def _median(values: NDArray[np.float32]) -> float:
    """np.median of finite values, by one selection."""
    flat = values.ravel()
    half = flat.size // 2
    parted = np.partition(flat, half)
    upper = parted[half]
    return float(upper) if flat.size % 2 else float((parted[:half].max() + upper) / 2)


def normalise(lesion: Lesion, spec: Preprocessing) -> NDArray[np.float32]:
    """Lesion -> base [P, M, M, M]: averaged down, scaled as `spec.intensity` says (Preprocessing).

    A phase that was not acquired is exactly zero.
    """
    n = lesion.voxels.shape[1]
    m = spec.base_voxels
    if n != spec.lesion_voxels or n % m:
        raise InputError(
            "the canonical lesion has another grid than the bundle",
            code="wrong_shape",
            field="lesion",
            found=f"{n} voxels",
            expected=f"{spec.lesion_voxels}",
        )
    k = n // m
    down = _averaged(lesion.voxels, k)
    if spec.intensity == "parenchyma":
        scaled = (down / abs(parenchyma(lesion)) - 1.0) * spec.gain
        base = np.clip(scaled, -spec.clip, spec.clip).astype(np.float32)
    else:
        base = np.stack([_by_itself(plane, spec) for plane in down]).astype(np.float32)
    for i, phase in enumerate(lesion.phases):
        if phase in lesion.missing:
            base[i] = 0.0
    return base


def _averaged(voxels: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """[P, N, N, N] -> means over cubes of k voxels, [P, N/k, N/k, N/k]; axis by axis, which is
    faster than all at once. In float64 such sums of float32 are exact but for extreme ranges."""
    total: NDArray[Any] = voxels
    for axis in (1, 2, 3):
        ahead, behind = total.shape[:axis], total.shape[axis + 1 :]
        split = total.reshape(*ahead, -1, k, *behind)
        parts = [split.take(i, axis=axis + 1) for i in range(k)]
        total = parts[0].astype(np.float64)
        for part in parts[1:]:
            total += part
    mean: NDArray[np.float64] = total / k**3
    return mean


def without(
    base: NDArray[np.float32], lost: Sequence[int] | NDArray[np.intp], spec: Preprocessing
) -> NDArray[np.float32]:
    """The base [P, M, M, M] as if the phases at the indices `lost` had not been acquired.

    They are zero, and the others stand in the unit of intensity that they alone would have given:
    `normalise` knows no other phase's parenchyma either. The unit is read from the base outside of
    0.3 fields of view around the middle, where a box of the usual context does not reach.
    """
    out = base.copy()
    out[list(lost)] = 0.0
    kept = [i for i in range(len(base)) if i not in lost and base[i].any()]
    if spec.intensity != "parenchyma" or not kept or len(lost) == 0:
        return out
    m = spec.base_voxels
    inside = np.abs(np.arange(m) - (m - 1) / 2) <= 0.3 * m
    shell = ~(inside[:, None, None] & inside[None, :, None] & inside[None, None, :])
    ratio = abs(float(np.median(out[kept][:, shell])) / spec.gain + 1.0)
    if ratio > 0.05:
        values = ((out[kept] / spec.gain + 1.0) / ratio - 1.0) * spec.gain
        out[kept] = np.clip(values, -spec.clip, spec.clip)
    return out


def _by_itself(plane: NDArray[np.float64], spec: Preprocessing) -> NDArray[np.float64]:
    """One phase [M, M, M] on a scale of its own; zeros for a phase of one single value."""
    if spec.intensity == "zscore":
        spread = float(plane.std())
        scaled = (plane - plane.mean()) / spread if spread else np.zeros_like(plane)
        return np.clip(scaled, -spec.clip, spec.clip)
    if spec.intensity == "minmax":
        low, high = float(plane.min()), float(plane.max())
    else:
        low, high = np.percentile(plane, [spec.percentile_low, spec.percentile_high])
    return np.clip((plane - low) / (high - low), 0, 1) if high > low else np.zeros_like(plane)


def centre(base: NDArray[np.float32], spec: Preprocessing) -> NDArray[np.float32]:
    """Base -> network tensor [P, K, K, K]: the middle, no resampling."""
    margin = (spec.base_voxels - spec.tensor_voxels) // 2
    cut = slice(margin, margin + spec.tensor_voxels)
    return np.ascontiguousarray(base[:, cut, cut, cut])


def tensor(lesion: Lesion, spec: Preprocessing) -> NDArray[np.float32]:
    """Lesion -> network tensor [P, K, K, K], float32: what a prediction reads."""
    return centre(normalise(lesion, spec), spec)
