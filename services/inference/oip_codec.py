"""Open Inference Protocol v2 bodies: JSON, and JSON followed by raw tensors. No web in here.

    request  = JSON header | tensor bytes | tensor bytes ...
    response = the same; `Inference-Header-Content-Length` says where the JSON ends

Source: the protocol's REST form and its binary tensor data extension
(github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md). Only FP32
tensors exist here: both graphs read and write nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError

HEADER_LENGTH = "Inference-Header-Content-Length"
_FP32_BYTES = 4


class CodecError(InputError):
    """A body that is not of the protocol, or tensors that do not add up."""

    code = "bad_tensor"
    status = 400


@dataclass(frozen=True)
class Wanted:
    """An output that the caller asks for."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A decoded request. outputs is None where the caller asked for none by name."""

    inputs: dict[str, NDArray[np.float32]]
    outputs: tuple[Wanted, ...] | None = None
    binary_default: bool = False
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InferResponse:
    """What goes back. `binary` names the tensors that follow the JSON as bytes."""

    model: str
    version: str
    outputs: Mapping[str, NDArray[np.float32]]
    binary: frozenset[str] = frozenset()
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def decode_request(body: bytes, header_length: int | None = None) -> InferRequest:
    """Bytes of a request -> tensors, read-only views where binary. Raises CodecError."""
    head, tail = _split(body, header_length)
    message = _object(head, "body")
    inputs: dict[str, NDArray[np.float32]] = {}
    at = 0
    for index, entry in enumerate(_list(message, "inputs")):
        name = _name(entry, f"inputs[{index}]")
        if name in inputs:
            raise CodecError("the input stands twice", field=name)
        size = _parameters(entry, name).get("binary_data_size")
        if size is None:
            inputs[name] = _from_json(entry, name)
        else:
            inputs[name] = _from_bytes(entry, name, size, tail, at)
            at += size
    if not inputs:
        raise CodecError("no inputs", field="inputs", expected="at least one tensor")
    if at != len(tail):
        raise CodecError(
            "bytes left over after the last tensor",
            field="body",
            found=f"{len(tail)} bytes of tensors",
            expected=f"{at}",
        )
    parameters = _parameters(message, "parameters")
    default = parameters.get("binary_data_output") is True
    asked = message.get("outputs")
    outputs = None if not asked else tuple(_wanted(message, default))
    label = message.get("id")
    label = label if isinstance(label, str) else None
    return InferRequest(inputs, outputs, default, label, parameters)


def encode_response(response: InferResponse) -> tuple[bytes, int | None]:
    """-> body and header length; the length is None for plain JSON. Raises ValueError on NaN."""
    entries, tail = [], []
    for name, value in response.outputs.items():
        array = np.ascontiguousarray(value, dtype="<f4")
        entry: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
        if name in response.binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail.append(array.tobytes())
        else:
            entry["data"] = [float(v) for v in array.ravel()]
        entries.append(entry)
    message: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "outputs": entries,
    }
    if response.id is not None:
        message["id"] = response.id
    if response.parameters:
        message["parameters"] = dict(response.parameters)
    head = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    if not tail:
        return head, None
    return b"".join([head, *tail]), len(head)


def _split(body: bytes, header_length: int | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    if not 0 < header_length <= len(body):
        raise CodecError(
            "the header length does not fit the body",
            field=HEADER_LENGTH,
            found=str(header_length),
            expected=f"1 to {len(body)}",
        )
    return body[:header_length], body[header_length:]


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CodecError("not a JSON object", code="not_json", field=name)
    return value


def _list(message: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = message.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise CodecError("not a list of objects", field=key, expected="a list of tensors")
    return value


def _name(entry: Mapping[str, Any], where: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise CodecError("the tensor has no name", field=where)
    return name[:100]


def _parameters(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = entry.get("parameters") or {}
    if not isinstance(value, dict):
        raise CodecError("parameters must be an object", field=name)
    if "shared_memory_region" in value:
        raise CodecError("shared memory is not offered", field=name, expected="data in the body")
    return value


def _wanted(message: Mapping[str, Any], default: bool) -> list[Wanted]:
    found: list[Wanted] = []
    for index, entry in enumerate(_list(message, "outputs")):
        name = _name(entry, f"outputs[{index}]")
        parameters = _parameters(entry, name)
        if parameters.get("classification"):
            raise CodecError("the classification extension is not offered", field=name)
        if name not in [w.name for w in found]:
            found.append(Wanted(name, parameters.get("binary_data", default) is True))
    return found


def _shape(entry: Mapping[str, Any], name: str) -> tuple[int, ...]:
    datatype = entry.get("datatype")
    if datatype != "FP32":
        raise CodecError(
            "this datatype is not offered", field=name, found=str(datatype)[:20], expected="FP32"
        )
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise CodecError(
            "not a shape", field=name, found=str(shape)[:60], expected="non-negative integers"
        )
    if len(shape) > 8:
        raise CodecError("too many axes", field=name, found=str(len(shape)), expected="at most 8")
    return tuple(shape)


def _from_bytes(
    entry: Mapping[str, Any], name: str, size: Any, tail: bytes, at: int
) -> NDArray[np.float32]:
    shape = _shape(entry, name)
    expected = math.prod(shape) * _FP32_BYTES
    if type(size) is not int or size != expected or at + size > len(tail):
        raise CodecError(
            "the bytes do not fill the shape",
            field=name,
            found=f"binary_data_size {str(size)[:20]}, {len(tail) - at} bytes in the body",
            expected=f"{expected}",
        )
    return np.frombuffer(tail, dtype="<f4", count=math.prod(shape), offset=at).reshape(shape)


def _from_json(entry: Mapping[str, Any], name: str) -> NDArray[np.float32]:
    shape = _shape(entry, name)
    data = entry.get("data")
    if not isinstance(data, list):
        raise CodecError("the tensor has no data", field=name, expected="a list, or binary data")
    try:
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite; refused by the model
            array = np.asarray(data)
            if array.dtype.kind not in "iuf" and array.size:
                raise TypeError
            array = array.astype(np.float32)
    except (ValueError, TypeError, OverflowError):
        raise CodecError(
            "not numbers of one shape", field=name, expected="a flat or nested list of numbers"
        ) from None
    if array.size != math.prod(shape):
        raise CodecError(
            "the data do not fill the shape",
            field=name,
            found=f"{array.size} numbers",
            expected=f"{math.prod(shape)}",
        )
    return array.reshape(shape)


def encode_request(
    inputs: Mapping[str, NDArray[np.float32]],
    outputs: Sequence[Wanted] = (),
    *,
    binary: frozenset[str] = frozenset(),
    id: str | None = None,
) -> tuple[bytes, int | None]:
    """The client's side: a request body and its header length. The inverse of `decode_request`."""
    entries, tail = [], []
    for name, value in inputs.items():
        array = np.ascontiguousarray(value, dtype="<f4")
        entry: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
        if name in binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail.append(array.tobytes())
        else:
            entry["data"] = [float(v) for v in array.ravel()]
        entries.append(entry)
    message: dict[str, Any] = {"inputs": entries}
    if outputs:
        message["outputs"] = [
            {"name": w.name, "parameters": {"binary_data": w.binary}} for w in outputs
        ]
    if id is not None:
        message["id"] = id
    head = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([head, *tail]), (len(head) if tail else None)
