"""Tensors of the protocol as they stand in a message; inside, every tensor is float32.

    FP32    as it is
    FP16    widened, exactly
    UINT8   a quantised image: value = u * scale + offset, both given as parameters

The parameters of the tensor count, or else those of the request, since not every client can set the
former. REST and gRPC read through here, so that both say the same of the same fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError, TooLarge

INPUTS: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP16": np.dtype("<f2"),
    "UINT8": np.dtype("u1"),
}
OUTPUTS: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}
MAX_AXES = 8


class CodecError(InputError):
    """A body that is not of the protocol, or tensors that do not add up."""

    code = "bad_tensor"
    status = 400


@dataclass(frozen=True)
class Declared:
    """What a message says of an input before its data: scale and offset are UINT8's."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    scale: float = 1.0
    offset: float = 0.0

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * INPUTS[self.datatype].itemsize


def declared(
    name: str,
    datatype: object,
    shape: object,
    own: Mapping[str, Any],
    whole: Mapping[str, Any],
    limit: int | None = None,
) -> Declared:
    """Check an input's head, before its data are touched.

    own, whole: parameters of tensor and request. limit: bytes that it may have as float32, since a
    body of bytes becomes four times as large. Raises CodecError, TooLarge.
    """
    if not isinstance(datatype, str) or datatype not in INPUTS:
        raise CodecError(
            "this datatype is not offered",
            field=name,
            found=str(datatype)[:20],
            expected=", ".join(INPUTS),
        )
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise CodecError(
            "not a shape", field=name, found=str(shape)[:60], expected="non-negative integers"
        )
    if len(shape) > MAX_AXES:
        raise CodecError(
            "too many axes", field=name, found=str(len(shape)), expected=f"at most {MAX_AXES}"
        )
    if limit is not None and math.prod(shape) * 4 > limit:
        raise TooLarge(
            "the tensor is too large",
            field=name,
            found=str(shape),
            expected=f"at most {limit / 2**20:.1f} MiB as FP32",
        )
    if datatype != "UINT8":
        return Declared(name, datatype, tuple(shape))
    scale, offset = (_number(name, key, own, whole) for key in ("scale", "offset"))
    return Declared(name, datatype, tuple(shape), scale, offset)


def from_bytes(head: Declared, data: bytes | bytearray | memoryview) -> NDArray[np.float32]:
    """Little-endian bytes -> float32, a read-only view where they are FP32. Raises CodecError."""
    if len(data) != head.nbytes:
        raise CodecError(
            "the bytes do not fill the shape",
            field=head.name,
            found=f"{len(data)} bytes",
            expected=f"{head.nbytes}",
        )
    flat = np.frombuffer(data, dtype=INPUTS[head.datatype])
    return _widened(head, flat).reshape(head.shape)


def from_numbers(head: Declared, data: object) -> NDArray[np.float32]:
    """A flat or nested sequence of numbers -> float32. Raises CodecError."""
    try:
        array = np.asarray(data)
        if array.dtype.kind not in "iuf" and array.size:
            raise TypeError
    except (ValueError, TypeError, OverflowError):
        raise CodecError(
            "not numbers of one shape",
            field=head.name,
            expected="a flat or nested list of numbers",
        ) from None
    if array.size != head.count:
        raise CodecError(
            "the data do not fill the shape",
            field=head.name,
            found=f"{array.size} numbers",
            expected=f"{head.count}",
        )
    if head.datatype == "UINT8" and array.size:
        if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
            raise CodecError("not bytes", field=head.name, expected="whole numbers from 0 to 255")
        array = array.astype(np.uint8)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite; refused by the model
        if head.datatype == "FP16":
            array = array.astype(np.float16)
        return _widened(head, array).reshape(head.shape)


def narrowed(name: str, value: NDArray[np.float32], datatype: str) -> NDArray:
    """An output as it is sent, contiguous. Raises CodecError where it does not fit the datatype."""
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(value, dtype=OUTPUTS[datatype])
    if datatype != "FP32" and not np.isfinite(array).all():
        raise CodecError("values beyond this datatype", field=name, found=datatype, expected="FP32")
    return array


def output_datatype(name: str, found: object) -> str:
    """Raises CodecError where an output is asked for in a datatype that is not offered."""
    if not isinstance(found, str) or found not in OUTPUTS:
        raise CodecError(
            "this output datatype is not offered",
            field=name,
            found=str(found)[:20],
            expected=", ".join(OUTPUTS),
        )
    return found


def _widened(head: Declared, array: NDArray) -> NDArray[np.float32]:
    if head.datatype != "UINT8":
        return array.astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.multiply(array, np.float32(head.scale), dtype=np.float32)
        value += np.float32(head.offset)
    return value


def _number(name: str, key: str, own: Mapping[str, Any], whole: Mapping[str, Any]) -> float:
    value: Any = own[key] if key in own else whole.get(key)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise CodecError(
            f"UINT8 needs the parameter {key}: value = u * scale + offset",
            code="not_scaled",
            field=name,
            found="none" if value is None else str(value)[:40],
            expected="a finite number, a parameter of the tensor or of the request",
        )
    return float(value)
