"""ONNX files taken apart and put together without the `onnx` package, which serving does not have.

Only what cutting a graph needs: messages as lists of (field, wire type, value), in order. Unknown
fields are carried along as they are. Source: protobuf's encoding
(protobuf.dev/programming-guides/encoding) and the field numbers of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from models.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}

Field = tuple[int, int, int | bytes]


def fields(data: bytes) -> Iterator[Field]:
    """The fields of one message. Raises BundleError for bytes that are none."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == VARINT:
            value, at = _varint(data, at)
        elif kind == BYTES:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif kind in _FIXED:
            value, at = data[at : at + _FIXED[kind]], at + _FIXED[kind]
        else:
            raise _broken()
        if at > end:
            raise _broken()
        yield number, kind, value


def text(value: int | bytes) -> str:
    """A string field. Raises BundleError."""
    if not isinstance(value, bytes):
        raise _broken()
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise _broken() from None


def raw(value: int | bytes) -> bytes:
    """A field of bytes or of a message. Raises BundleError."""
    if not isinstance(value, bytes):
        raise _broken()
    return value


def message(parts: Sequence[tuple[int, int | bytes | str]]) -> bytes:
    """A message of (field, value): integers as varints, text and bytes with their length."""
    out = bytearray()
    for number, value in parts:
        if isinstance(value, int):
            out += _number(number << 3 | VARINT) + _number(value)
        else:
            data = value.encode("utf-8") if isinstance(value, str) else value
            out += _number(number << 3 | BYTES) + _number(len(data)) + data
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _broken()
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _number(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1  # negative integers travel as 64 bits
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _broken() -> BundleError:
    return BundleError("not an ONNX file", code="bundle_manifest", field="classifier.onnx")
