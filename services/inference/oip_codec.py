"""Open Inference Protocol v2 bodies: JSON, and JSON followed by raw tensors. No web in here.

    request  = JSON header | tensor bytes | tensor bytes ...
    response = the same; `Inference-Header-Content-Length` says where the JSON ends

Source: the protocol's REST form and its binary tensor data and shared memory extensions
(github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.inference.oip_outputs import Given, class_count, given
from services.inference.oip_tensors import (
    CodecError as CodecError,
)
from services.inference.oip_tensors import (
    declared,
    from_bytes,
    from_numbers,
    output_datatype,
)
from services.inference.shared_memory import Place, Regions, offered

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Wanted:
    """An output that the caller asks for, and where it goes."""

    name: str
    binary: bool
    datatype: str = "FP32"
    place: Place | None = None
    classes: int = 0


@dataclass(frozen=True)
class InferRequest:
    """A decoded request. outputs is None where the caller asked for none by name."""

    inputs: dict[str, NDArray[np.float32]]
    outputs: tuple[Wanted, ...] | None = None
    binary_default: bool = False
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def wanted(self, name: str) -> Wanted:
        """How an output is to be given. Raises CodecError."""
        for wanted in self.outputs or ():
            if wanted.name == name:
                return wanted
        datatype = output_datatype(name, self.parameters.get("output_datatype", "FP32"))
        return Wanted(name, self.binary_default, datatype)


@dataclass(frozen=True)
class InferResponse:
    """What goes back. `binary` names the tensors that follow the JSON as bytes.

    wanted: how to give an output, where that is not FP32 in the message. labels: of the classes.
    """

    model: str
    version: str
    outputs: Mapping[str, NDArray[np.float32]]
    binary: frozenset[str] = frozenset()
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    labels: Sequence[str] = ()

    def given(self, name: str) -> tuple[Wanted, Given]:
        """An output, and how it was asked for. Raises CodecError."""
        how = self.wanted.get(name) or Wanted(name, name in self.binary)
        return how, given(
            name,
            self.outputs[name],
            datatype=how.datatype,
            classes=how.classes,
            labels=self.labels,
        )


def decode_request(
    body: bytes,
    header_length: int | None = None,
    regions: Regions | None = None,
    limit: int | None = None,
) -> InferRequest:
    """Bytes of a request -> tensors, read-only views where FP32 in binary.

    regions: shared memory, where it is offered. limit: bytes of one tensor as FP32. Raises
    CodecError, TooLarge, NotFound, NotOffered.
    """
    head, tail = _split(body, header_length)
    message = _object(head, "body")
    whole = parameters_of(message, "parameters")
    inputs: dict[str, NDArray[np.float32]] = {}
    at = 0
    for index, entry in enumerate(_list(message, "inputs")):
        name = _name(entry, f"inputs[{index}]")
        if name in inputs:
            raise CodecError("the input stands twice", field=name)
        own = parameters_of(entry, name)
        described = declared(name, entry.get("datatype"), entry.get("shape"), own, whole, limit)
        if "shared_memory_region" in own:
            shared = offered(regions, name)
            place = shared.place(own, name)
            inputs[name] = from_bytes(described, shared.read(place, name, described.nbytes))
        elif "binary_data_size" in own:
            data = _bytes(own["binary_data_size"], name, tail, at)
            inputs[name] = from_bytes(described, data)
            at += len(data)
        else:
            data_ = entry.get("data")
            if not isinstance(data_, list):
                raise CodecError(
                    "the tensor has no data", field=name, expected="a list, or binary data"
                )
            inputs[name] = from_numbers(described, data_)
    if not inputs:
        raise CodecError("no inputs", field="inputs", expected="at least one tensor")
    if at != len(tail):
        raise CodecError(
            "bytes left over after the last tensor",
            field="body",
            found=f"{len(tail)} bytes of tensors",
            expected=f"{at}",
        )
    default = whole.get("binary_data_output") is True
    outputs = tuple(_outputs(message, default, whole, regions)) if message.get("outputs") else None
    label = message.get("id")
    label = label if isinstance(label, str) else None
    return InferRequest(inputs, outputs, default, label, whole)


def encode_response(
    response: InferResponse, regions: Regions | None = None
) -> tuple[bytes, int | None]:
    """-> body and header length; the length is None for plain JSON.

    Outputs that have a place in shared memory are written there. Raises ValueError on NaN, else
    CodecError.
    """
    entries, tail = [], []
    for name in response.outputs:
        how, output = response.given(name)
        entry: dict[str, Any] = {
            "name": name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        if how.place is not None:
            entry["parameters"] = delivered(how.place, name, output.raw, regions)
        elif name in response.binary:
            entry["parameters"] = {"binary_data_size": output.raw.nbytes}
            tail.append(output.raw.tobytes())
        else:
            entry["data"] = output.listed()
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


def delivered(
    place: Place, name: str, array: NDArray[Any], regions: Regions | None
) -> dict[str, Any]:
    """Write an output to its place; the parameters that say so. Raises CodecError, NotFound."""
    size = offered(regions, name).write(place, name, array)
    found = {"shared_memory_region": place.region, "shared_memory_byte_size": size}
    return found | ({"shared_memory_offset": place.offset} if place.offset else {})


def wanted_of(
    name: str,
    own: Mapping[str, Any],
    whole: Mapping[str, Any],
    regions: Regions | None,
    *,
    binary: bool,
) -> Wanted:
    """An asked output by its parameters and the request's. Raises CodecError, NotFound."""
    classes = class_count(name, own.get("classification", 0))
    datatype = own["datatype"] if "datatype" in own else whole.get("output_datatype", "FP32")
    place = None
    if "shared_memory_region" in own:
        place = offered(regions, name).place(own, name)
        if classes:
            raise CodecError("classes cannot go into shared memory", field=name)
    binary = binary and place is None
    return Wanted(name, binary, output_datatype(name, datatype), place, classes)


def parameters_of(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters of a tensor or a message. Raises CodecError."""
    value = entry.get("parameters") or {}
    if not isinstance(value, dict):
        raise CodecError("parameters must be an object", field=name)
    return value


def _split(body: bytes, header_length: int | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    if not 0 < header_length <= len(body):
        raise CodecError(
            "the header length does not fit the body",
            field=HEADER_LENGTH,
            found=str(header_length),
            expected=f"1 to {len(body)}",
        )
    return body[:header_length], memoryview(body)[header_length:]


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


def _bytes(size: object, name: str, tail: memoryview, at: int) -> memoryview:
    if type(size) is not int or size < 0 or at + size > len(tail):
        raise CodecError(
            "the bytes are not in the body",
            field=name,
            found=f"binary_data_size {str(size)[:20]}",
            expected=f"at most {len(tail) - at}",
        )
    return tail[at : at + size]


def _outputs(
    message: Mapping[str, Any],
    default: bool,
    whole: Mapping[str, Any],
    regions: Regions | None,
) -> list[Wanted]:
    found: dict[str, Wanted] = {}
    for index, entry in enumerate(_list(message, "outputs")):
        name = _name(entry, f"outputs[{index}]")
        own = parameters_of(entry, name)
        binary = own.get("binary_data", default) is True
        wanted = wanted_of(name, own, whole, regions, binary=binary)
        found.setdefault(name, wanted)
    return list(found.values())


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
