"""NIfTI in and out: one volume, from a path or from bytes that a stranger sent.

    magic number -> header -> sizes checked -> only then decompressed -> nibabel -> Volume

nibabel reads the header and scales the voxels. What comes before it is here because a header can
promise more than a machine holds, and a compressed body can unfold a thousandfold.
"""

from __future__ import annotations

import gzip
import io
import logging
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.errors import InputError, TooLarge
from models.volume import Volume

# NIfTI datatype code -> bytes a voxel. RGB and complex voxels are no intensities.
_REAL = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
_MM = {1: 1000.0, 3: 0.001}  # metres, micrometres; anything else is taken as millimetres
_HEADER = 540  # NIfTI-2; NIfTI-1 is shorter
_DEFLATE_LIMIT = 1032  # deflate cannot expand by more
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class _Plan:
    """What the header promises."""

    shape: tuple[int, ...]
    itemsize: int
    offset: int
    version: int
    to_mm: float

    @property
    def voxels(self) -> int:
        count = 1
        for n in self.shape:
            count *= n
        return count

    @property
    def end(self) -> int:
        """Length of the uncompressed file."""
        return self.offset + self.voxels * self.itemsize

    @property
    def memory(self) -> int:
        """Bytes of the volume as stored or as float32, whichever is more."""
        return self.voxels * max(self.itemsize, 4)


def read_nifti(
    source: Path | bytes, *, field: str = "volume", max_bytes: int | None = None
) -> Volume:
    """Read a .nii or .nii.gz, told apart by content, as float32 [X, Y, Z] and a RAS+ affine in mm.

    max_bytes bounds the decompressed volume and is checked before anything is decompressed.
    Raises InputError naming `field`: not_found, not_nifti, truncated, wrong_shape, wrong_dtype,
    wrong_affine, not_finite; TooLarge beyond `max_bytes`.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read(io.BytesIO(source), len(source), field, max_bytes)
    if not source.is_file():
        raise InputError(
            "no such file",
            code="not_found",
            field=field,
            found=f"a folder, {source.name}" if source.is_dir() else source.name,
            expected="a NIfTI file (.nii or .nii.gz)",
        )
    try:
        with source.open("rb") as stream:
            return _read(stream, source.stat().st_size, field, max_bytes)
    except OSError as error:
        raise InputError(
            "the file cannot be read",
            code="unreadable",
            field=field,
            found=f"{source.name} ({error.strerror or type(error).__name__})",
        ) from None


def _read(raw: BinaryIO, size: int, field: str, max_bytes: int | None) -> Volume:
    magic = raw.read(2)
    raw.seek(0)
    packed = magic == _GZIP
    stream: BinaryIO = gzip.GzipFile(fileobj=raw, mode="rb") if packed else raw  # type: ignore[assignment]
    head = _take(stream, _HEADER, field)
    plan = _plan(head, field)
    if max_bytes is not None and plan.memory > max_bytes:
        raise TooLarge(
            "the volume is too large",
            field=field,
            found=f"{' x '.join(map(str, plan.shape))} voxels, {_mb(plan.memory)}",
            expected=f"at most {_mb(max_bytes)} once decompressed",
        )
    most = size * _DEFLATE_LIMIT if packed else size
    if plan.end > most:
        raise _truncated(field, f"a file of {size} bytes", f"{plan.end} bytes of header and voxels")
    body = head + _take(stream, plan.end - len(head), field)
    if len(body) < plan.end:
        raise _truncated(field, f"{len(body)} bytes", f"{plan.end} bytes of header and voxels")
    if packed:
        _take(stream, 1, field)  # reaches the end of the archive, so that its checksum is verified
    data, affine = _decode(body[: plan.end], plan, field)
    return Volume.make(data, affine, field=field)


def _take(stream: BinaryIO, count: int, field: str) -> bytes:
    if count <= 0:
        return b""
    try:
        return stream.read(count)
    except EOFError:
        raise _truncated(field, "a compressed file that ends early", "a complete file") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            "the compressed data are damaged",
            code="truncated",
            field=field,
            found=str(error)[:80],
            expected="an intact .nii.gz",
        ) from None


def _plan(head: bytes, field: str) -> _Plan:
    """Read the sizes from the header bytes; refuse what is no NIfTI single file."""
    order, version = _version(head)
    if not version:
        raise InputError(
            "not a NIfTI file",
            code="not_nifti",
            field=field,
            found=_describe(head),
            expected="a .nii or .nii.gz file",
        )
    if len(head) < (348 if version == 1 else 540):
        raise _truncated(field, f"{len(head)} bytes", "a whole header")
    if version == 1:
        dims = struct.unpack_from(order + "8h", head, 40)
        (datatype,) = struct.unpack_from(order + "h", head, 70)
        (start,) = struct.unpack_from(order + "f", head, 108)
        units = head[123]
    else:
        dims = struct.unpack_from(order + "8q", head, 16)
        (datatype,) = struct.unpack_from(order + "h", head, 12)
        (start,) = struct.unpack_from(order + "q", head, 168)
        (units,) = struct.unpack_from(order + "i", head, 500)
    if datatype not in _REAL:
        raise InputError(
            "voxels are not real numbers",
            code="wrong_dtype",
            field=field,
            found=f"NIfTI datatype {datatype}",
            expected="integers or floats of up to 64 bits",
        )
    smallest = 352 if version == 1 else 544
    sensible = np.isfinite(start) and (start == 0 or smallest <= start < 2**31)
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]) or not sensible:
        raise InputError(
            "the header makes no sense",
            code="wrong_shape",
            field=field,
            found=f"dimensions {list(dims)}, data at byte {start:g}",
            expected="three positive dimensions",
        )
    shape = dims[1 : dims[0] + 1]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    shape += (1,) * (3 - len(shape))
    return _Plan(shape, _REAL[datatype], int(start) or smallest, version, _MM.get(units & 7, 1.0))


def _version(head: bytes) -> tuple[str, int]:
    """Byte order and NIfTI version of a single-file header; version 0 when it is none."""
    for order in "<>":
        if len(head) >= 4:
            (size,) = struct.unpack_from(order + "i", head)
            if size == 348 and (len(head) < 348 or head[344:348] == b"n+1\0"):
                return order, 1
            if size == 540 and (len(head) < 8 or head[4:8] == b"n+2\0"):
                return order, 2
    return "<", 0


def _describe(head: bytes) -> str:
    if head[128:132] == b"DICM":
        return "a DICOM file"
    if head[344:348] == b"ni1\0":
        return "a NIfTI header whose voxels are in another file (.hdr/.img)"
    if not head:
        return "no data"
    return f"data that start with {head[:4].hex(' ')}"


def _decode(body: bytes, plan: _Plan, field: str) -> tuple[NDArray, NDArray[np.float64]]:
    kind = nib.Nifti1Image if plan.version == 1 else nib.Nifti2Image
    quiet = logging.getLogger("nibabel.global")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)  # nibabel would tell stderr what is said in one line here
    try:
        image = kind.from_bytes(body)
        # Scaling may overflow to infinity; Volume.make refuses that in its own words.
        with np.errstate(all="ignore"):
            data = image.get_fdata(caching="unchanged", dtype=np.float32)
            data = data.reshape(plan.shape, order="F")
            affine = np.asarray(image.affine, dtype=np.float64).copy()
        affine[:3] *= plan.to_mm
        return data, affine
    except Exception as error:  # nibabel has no one error for a bad header
        raise InputError(
            "the header makes no sense",
            code="not_nifti",
            field=field,
            found=str(error).splitlines()[0][:100] if str(error) else type(error).__name__,
            expected="a valid NIfTI file",
        ) from None
    finally:
        quiet.setLevel(level)


def _truncated(field: str, found: str, expected: str) -> InputError:
    return InputError(
        "the file is truncated", code="truncated", field=field, found=found, expected=expected
    )


def _mb(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def write_nifti(path: Path, volume: Volume, dtype: DTypeLike = np.float32) -> None:
    """Write .nii, or .nii.gz by name. Integer types round to the nearest. Same volume, same bytes.

    Raises InputError where a voxel does not fit in `dtype`.
    """
    raw = _encode(volume, dtype)
    path.write_bytes(_pack(raw) if path.name.endswith(".gz") else raw)


def nifti_bytes(volume: Volume, dtype: DTypeLike = np.float32) -> bytes:
    """The volume as .nii.gz; no time stamp inside, so equal volumes give equal bytes."""
    return _pack(_encode(volume, dtype))


def _pack(raw: bytes) -> bytes:
    return gzip.compress(raw, compresslevel=1, mtime=0)


def _encode(volume: Volume, dtype: DTypeLike) -> bytes:
    kind = np.dtype(dtype)
    data: NDArray = volume.data
    if kind.kind in "iu":
        data, limits = np.rint(data), np.iinfo(kind)
        if data.size and (data.min() < limits.min or data.max() > limits.max):
            raise InputError(
                f"voxels do not fit in {kind.name}",
                code="wrong_dtype",
                field="volume",
                found=f"{float(data.min()):g} to {float(data.max()):g}",
                expected=f"{limits.min} to {limits.max}",
            )
    image = nib.Nifti1Image(data.astype(kind), volume.affine)
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())
