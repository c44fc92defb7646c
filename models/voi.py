"""The one preprocessing path: a study in, a canonical lesion, a network tensor out.

    Study --extract--> Lesion (64^3 a phase, raw intensities, isotropic mm, RAS axes)
          --normalise--> base (32^3 a phase, scaled by the parenchyma around the VOI)
          --centre--> tensor [P, 24, 24, 24]      (stochastic passes sample from the same base)

One scale serves all three axes, so a lesion is never squeezed into a box; the scale itself (mm per
voxel) and the VOI's size are kept. Intensities of all phases are divided by one parenchyma median,
so enhancement stays comparable between phases and zero means 'like parenchyma'.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from models.errors import InputError
from models.volume import Study


class Preprocessing(BaseModel):
    """Parameters of the path, kept in the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lesion_voxels: int = Field(64, description="Edge of the canonical lesion in voxels.")
    base_voxels: int = Field(32, description="Edge after averaging down; must divide the former.")
    tensor_voxels: int = Field(24, description="Edge of the network's input, the base's centre.")
    context: float = Field(2.0, description="Field of view over the VOI's longest edge.")
    min_fov_mm: float = Field(24.0, description="Smallest field of view.")
    gain: float = Field(2.0, description="Scale after dividing by the parenchyma median.")
    clip: float = Field(6.0, description="Normalised intensities are clipped to +-clip.")

    def shape(self, phases: int) -> tuple[int, int, int, int]:
        n = self.tensor_voxels
        return phases, n, n, n


@dataclass(frozen=True)
class Lesion:
    """A lesion on its canonical grid: everything that an explanation depends on.

    voxels: float32 [P, N, N, N], raw intensities, axes R, A, S, the VOI's centre in the middle.
    phases: ids in order. mm_per_voxel: edge of a voxel. size_mm: edges of the VOI, [3].
    slices: smallest number of slices over the phases (1: no depth).
    """

    voxels: NDArray[np.float32]
    phases: tuple[str, ...]
    mm_per_voxel: float
    size_mm: tuple[float, float, float]
    slices: int

    @property
    def id(self) -> str:
        """Content hash, 'les-' and 20 hex digits."""
        digest = hashlib.sha256(self.voxels.tobytes())
        digest.update(
            repr((self.phases, round(self.mm_per_voxel, 5), self.size_mm, self.slices)).encode()
        )
        return "les-" + digest.hexdigest()[:20]

    def to_bytes(self) -> bytes:
        """As .npz without pickle, for the blob store."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            voxels=self.voxels,
            phases=np.array(self.phases),
            mm_per_voxel=np.float64(self.mm_per_voxel),
            size_mm=np.array(self.size_mm, dtype=np.float64),
            slices=np.int64(self.slices),
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
            )

    @property
    def identical_phases(self) -> list[tuple[str, str]]:
        """Pairs of phases that are one image, up to gain and offset."""
        flat = self.voxels.reshape(len(self.phases), -1)
        return [
            (self.phases[i], self.phases[j])
            for i in range(len(flat))
            for j in range(i + 1, len(flat))
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
    volume repeat its border.
    """
    n = spec.lesion_voxels
    size = np.round(study.size_mm(), 4)
    fov = max(float(size.max()) * spec.context, spec.min_fov_mm)
    step = fov / n
    offsets = (np.arange(n) - (n - 1) / 2) * step
    planes = []
    for phase, volume in study.volumes.items():
        inverse = np.linalg.inv(volume.affine[:3, :3])
        centre = volume.index(study.centre_mm(phase))
        # The output index k lies at centre + inverse @ (offset_k); affine_transform does the rest.
        matrix = inverse * step
        start = centre + inverse @ np.full(3, offsets[0])
        source = _antialias(volume.data, volume.spacing, step)
        planes.append(
            ndimage.affine_transform(
                source, matrix, offset=start, output_shape=(n, n, n), order=1, mode="nearest"
            )
        )
    voxels = np.stack(planes).astype(np.float32)
    if float(np.ptp(voxels)) == 0:
        raise InputError(
            "the region holds one single value",
            code="no_contrast",
            field="box",
            expected="image content inside and around the box",
        )
    return Lesion(
        voxels=voxels,
        phases=tuple(study.volumes),
        mm_per_voxel=step,
        size_mm=tuple(float(v) for v in size),  # type: ignore[arg-type]
        slices=min(v.shape[2] for v in study.volumes.values()),
    )


def _antialias(data: NDArray, spacing: NDArray, step: float) -> NDArray:
    """Smooth before thinning out; nothing where the grid gets finer."""
    sigma = np.where(spacing < step, 0.5 * np.sqrt(np.maximum((step / spacing) ** 2 - 1, 0)), 0.0)
    return ndimage.gaussian_filter(data, sigma, mode="nearest") if sigma.any() else data


def parenchyma(lesion: Lesion) -> float:
    """Median intensity around the VOI over all phases: the common unit of intensity."""
    n = lesion.voxels.shape[1]
    coords = (np.arange(n) - (n - 1) / 2) * lesion.mm_per_voxel
    inside = [np.abs(coords) <= 0.6 * edge for edge in lesion.size_mm]
    shell = ~(inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :])
    around = lesion.voxels[:, shell] if shell.any() else lesion.voxels.reshape(1, -1)
    unit = float(np.median(around))
    spread = float(np.std(lesion.voxels))
    return unit if abs(unit) > 0.05 * spread else (spread or 1.0)


def normalise(lesion: Lesion, spec: Preprocessing) -> NDArray[np.float32]:
    """Lesion -> base [P, M, M, M]: averaged down, (x / parenchyma - 1) * gain, clipped."""
    p, n = lesion.voxels.shape[:2]
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
    down = lesion.voxels.reshape(p, m, k, m, k, m, k).mean(axis=(2, 4, 6), dtype=np.float64)
    scaled = (down / abs(parenchyma(lesion)) - 1.0) * spec.gain
    return np.clip(scaled, -spec.clip, spec.clip).astype(np.float32)


def centre(base: NDArray[np.float32], spec: Preprocessing) -> NDArray[np.float32]:
    """Base -> network tensor [P, K, K, K]: the middle, no resampling."""
    margin = (spec.base_voxels - spec.tensor_voxels) // 2
    cut = slice(margin, margin + spec.tensor_voxels)
    return np.ascontiguousarray(base[:, cut, cut, cut])


def tensor(lesion: Lesion, spec: Preprocessing) -> NDArray[np.float32]:
    """Lesion -> network tensor [P, K, K, K], float32: what a prediction reads."""
    return centre(normalise(lesion, spec), spec)
