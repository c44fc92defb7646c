"""Open Inference Protocol v2 over gRPC: protobuf messages to InferRequest, InferResponse to them.

The messages are those that `tritonclient` ships. Tensors are raw bytes or typed contents; the
answer comes in the form of the request, FP16 always raw, since there are no typed contents of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from services.inference.oip_codec import (
    CodecError,
    InferRequest,
    InferResponse,
    Wanted,
    delivered,
    wanted_of,
)
from services.inference.oip_tensors import (
    Declared,
    declared,
    from_bytes,
    from_numbers,
)
from services.inference.shared_memory import Regions, offered

_TYPED = {"FP32": "fp32_contents", "UINT8": "uint_contents"}
_FIELDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def decode(
    message: Any,
    seconds: float | None,
    regions: Regions | None = None,
    limit: int | None = None,
) -> InferRequest:
    """ModelInferRequest -> InferRequest, read-only views where raw FP32.

    seconds: what is left of the client's deadline; it goes into the parameter `timeout`, in
    microseconds as in the protocol, unless that is sooner. limit: bytes of one tensor as FP32.
    Raises CodecError, TooLarge, NotFound, NotOffered.
    """
    whole = parameters_of(message.parameters)
    if seconds is not None:
        left = max(int(seconds * 1e6), 1)
        given = whole.get("timeout")
        whole["timeout"] = min(left, given) if type(given) is int and given > 0 else left
    raw = list(message.raw_input_contents)
    inputs: dict[str, NDArray[np.float32]] = {}
    at = 0
    for index, entry in enumerate(message.inputs):
        name = _name(entry.name, f"inputs[{index}]")
        if name in inputs:
            raise CodecError("the input stands twice", field=name)
        own = parameters_of(entry.parameters)
        described = declared(name, entry.datatype, list(entry.shape), own, whole, limit)
        if "shared_memory_region" in own:
            shared = offered(regions, name)
            place = shared.place(own, name)
            inputs[name] = from_bytes(described, shared.read(place, name, described.nbytes))
        elif raw:
            if at >= len(raw):
                raise CodecError(
                    "the tensor has no data", field=name, expected="an entry of raw_input_contents"
                )
            inputs[name] = from_bytes(described, raw[at])
            at += 1
        else:
            inputs[name] = _typed(described, entry)
    if not inputs:
        raise CodecError("no inputs", field="inputs", expected="at least one tensor")
    if at != len(raw):
        raise CodecError(
            "bytes left over after the last tensor",
            field="raw_input_contents",
            found=f"{len(raw)} entries",
            expected=f"{at}",
        )
    typed = not raw and any(entry.HasField("contents") for entry in message.inputs)
    outputs: dict[str, Wanted] = {}
    for index, entry in enumerate(message.outputs):
        name = _name(entry.name, f"outputs[{index}]")
        own = parameters_of(entry.parameters)
        wanted = wanted_of(name, own, whole, regions, binary=not typed)
        outputs.setdefault(name, wanted)
    return InferRequest(inputs, tuple(outputs.values()) or None, not typed, message.id, whole)


def encode(response: InferResponse, regions: Regions | None = None) -> Any:
    """-> ModelInferResponse; writes what has a place in shared memory. Raises as `delivered`."""
    message = pb.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id or ""
    )
    _set(message.parameters, response.parameters)
    found = {name: response.given(name) for name in response.outputs}
    raw = any(how.binary or output.datatype == "FP16" for how, output in found.values())
    for name, (how, output) in found.items():
        entry = message.outputs.add(name=name, datatype=output.datatype, shape=output.shape)
        if how.place is not None:
            _set(entry.parameters, delivered(how.place, name, output.raw, regions))
            message.raw_output_contents.append(b"")  # entries count as outputs do
        elif raw:
            message.raw_output_contents.append(output.raw.tobytes())
        elif output.texts is not None:
            entry.contents.bytes_contents.extend(text.encode() for text in output.texts)
        else:
            entry.contents.fp32_contents.extend(output.raw.ravel())
    return message


def parameters_of(entries: Mapping[str, Any]) -> dict[str, Any]:
    """A map of InferParameter as plain values."""
    found = {}
    for key, value in entries.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            found[key] = getattr(value, kind)
    return found


def _set(entries: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        setattr(entries[key], _FIELDS[type(value)], value)


def _typed(described: Declared, entry: Any) -> NDArray[np.float32]:
    kind = _TYPED.get(described.datatype)
    if kind is None:
        raise CodecError(
            "there are no typed contents of this datatype",
            field=described.name,
            found=described.datatype,
            expected="raw_input_contents",
        )
    if not entry.HasField("contents"):
        raise CodecError(
            "the tensor has no data",
            field=described.name,
            expected=f"contents.{kind}, or raw_input_contents",
        )
    numbers: Iterable[float] = getattr(entry.contents, kind)
    exact = np.float32 if described.datatype == "FP32" else np.int64
    return from_numbers(described, np.array(numbers, dtype=exact))


def _name(name: str, where: str) -> str:
    if not name:
        raise CodecError("the tensor has no name", field=where)
    return name[:100]
