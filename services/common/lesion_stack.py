"""Many canonical lesions in one body: safetensors, so plain arrays behind a JSON header.

    voxels        F32  [N, P, n, n, n]  raw intensities on the canonical grid (models.voi.Lesion)
    mm_per_voxel  F64  [N]
    size_mm       F64  [N, 3]           edges of the VOI
    slices        I64  [N]              smallest number of slices over the phases
    missing       U8   [N, P]           1: the phase was not acquired, and its voxels are zero

For clients that resample where the images lie: a canonical lesion is a few MB, its study a hundred.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from models.errors import InputError, TooLarge
from models.voi import Lesion, Preprocessing

MEDIA_TYPE = "application/x-safetensors"
MOST = 32
_KINDS = {
    "voxels": ("float32", "[N, P, n, n, n]"),
    "mm_per_voxel": ("float64", "[N]"),
    "size_mm": ("float64", "[N, 3]"),
    "slices": ("int64", "[N]"),
    "missing": ("uint8", "[N, P]"),
}


def pack(lesions: Sequence[Lesion]) -> bytes:
    """At least one lesion, all with the same phases and grid.

    Written by hand, since the library copies everything twice; the format is a length, a JSON
    header and the arrays.
    """
    phases = lesions[0].phases
    small: dict[str, NDArray] = {
        "mm_per_voxel": np.array([one.mm_per_voxel for one in lesions], "<f8"),
        "size_mm": np.array([one.size_mm for one in lesions], "<f8"),
        "slices": np.array([one.slices for one in lesions], "<i8"),
        "missing": np.array([[p in one.missing for p in phases] for one in lesions], np.uint8),
    }
    voxels = [np.ascontiguousarray(one.voxels, "<f4") for one in lesions]
    names = {"float64": "F64", "int64": "I64", "uint8": "U8"}
    header: dict[str, Any] = {}
    start = 0
    for name, kind, shape, size in (
        ("voxels", "F32", (len(lesions), *voxels[0].shape), sum(v.nbytes for v in voxels)),
        *((n, names[a.dtype.name], a.shape, a.nbytes) for n, a in small.items()),
    ):
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    parts = [len(text).to_bytes(8, "little"), text]
    return b"".join([*parts, *(a.data for a in voxels), *(a.tobytes() for a in small.values())])


def unpack(
    data: bytes, phases: Sequence[str], optional: Sequence[str], spec: Preprocessing
) -> list[Lesion]:
    """The inverse, with every value checked: data come from outside.

    phases: of the bundle, in its order; optional: those that may be missing. Raises InputError,
    whose field names the lesion by its place: 'lesions[3].voxels'; TooLarge beyond MOST lesions.
    """
    tensors = _tensors(data)
    count, n, p = len(tensors["mm_per_voxel"]), spec.lesion_voxels, len(phases)
    if count > MOST:
        raise TooLarge(
            "too many lesions in one request",
            field="voxels",
            found=str(count),
            expected=f"at most {MOST}",
        )
    shapes = {
        "voxels": (count, p, n, n, n),
        "mm_per_voxel": (count,),
        "size_mm": (count, 3),
        "slices": (count,),
        "missing": (count, p),
    }
    for name, shape in shapes.items():
        if tensors[name].shape != shape or count == 0:
            raise InputError(
                "another shape",
                code="wrong_shape",
                field=name,
                found=str(list(tensors[name].shape)),
                expected=f"{_KINDS[name][1]}, here {['N', *shape[1:]]}".replace("'", ""),
            )
    return [_lesion(tensors, i, phases, optional) for i in range(count)]


def _tensors(data: bytes) -> dict[str, NDArray]:
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError):
        raise InputError(
            "the body cannot be read",
            code="not_safetensors",
            field="body",
            found=f"{len(data)} bytes",
            expected="a safetensors file",
        ) from None
    for name, (kind, shape) in _KINDS.items():
        found = tensors.get(name)
        if found is None or found.dtype != kind or found.ndim == 0:
            raise InputError(
                "missing" if found is None else "another type",
                code="wrong_tensor",
                field=name,
                found=None if found is None else str(found.dtype),
                expected=f"{kind} {shape}",
            )
    unknown = sorted(set(tensors) - set(_KINDS))
    if unknown:
        raise InputError(
            "an unknown tensor",
            code="unknown_field",
            field=unknown[0][:60],
            expected=", ".join(_KINDS),
        )
    return tensors


def _lesion(
    tensors: dict[str, NDArray], i: int, phases: Sequence[str], optional: Sequence[str]
) -> Lesion:
    voxels, edge = tensors["voxels"][i], float(tensors["mm_per_voxel"][i])
    size, slices, absent = tensors["size_mm"][i], int(tensors["slices"][i]), tensors["missing"][i]
    missing = tuple(p for p, gone in zip(phases, absent, strict=True) if gone)

    def refuse(name: str, message: str, expected: str, found: str | None = None) -> InputError:
        return InputError(
            message,
            code="wrong_lesion",
            field=f"lesions[{i}].{name}",
            found=found,
            expected=expected,
        )

    if not np.isfinite(voxels).all():
        raise refuse("voxels", "not a number", "finite intensities")
    if not (np.isfinite(edge) and edge > 0):
        raise refuse("mm_per_voxel", "out of range", "above 0", f"{edge:g}")
    if not (np.isfinite(size).all() and (size > 0).all()):
        raise refuse("size_mm", "out of range", "above 0", str(size.tolist()))
    if slices < 1:
        raise refuse("slices", "out of range", "at least 1", str(slices))
    if any(p not in optional for p in missing):
        raise refuse(
            "missing",
            "a phase is missing",
            f"only {', '.join(optional)} may be" if optional else "every phase",
            ", ".join(missing),
        )
    if (voxels[absent > 0] != 0).any():
        raise refuse("voxels", "a missing phase has voxels", "zeros")
    if len(missing) == len(phases) or float(np.ptp(voxels[absent == 0])) == 0:
        raise refuse("voxels", "one single value", "image content inside and around the box")
    return Lesion(
        voxels=voxels,
        phases=tuple(phases),
        mm_per_voxel=edge,
        size_mm=tuple(float(v) for v in size),  # type: ignore[arg-type]
        slices=slices,
        missing=missing,
    )
