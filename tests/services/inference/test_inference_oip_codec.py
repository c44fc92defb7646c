"""The codec: what goes in comes out, and nothing else raises but CodecError."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.inference.oip_codec import (
    CodecError,
    InferResponse,
    Wanted,
    decode_request,
    encode_request,
    encode_response,
)

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
TENSOR = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4), elements=FINITE
)
NAME = st.text("abcdefghijklmnop_0123456789", min_size=1, max_size=12)
TENSORS = st.dictionaries(NAME, TENSOR, min_size=1, max_size=4)


@given(TENSORS, st.data())
@settings(max_examples=150, deadline=None)
def test_a_request_comes_back(tensors: dict[str, np.ndarray], data: st.DataObject) -> None:
    binary = frozenset(data.draw(st.sets(st.sampled_from(sorted(tensors)))))
    outputs = data.draw(
        st.lists(st.builds(Wanted, NAME, st.booleans()), unique_by=lambda w: w.name)
    )
    label = data.draw(st.none() | st.text(max_size=8))
    body, length = encode_request(tensors, outputs, binary=binary, id=label)
    request = decode_request(body, length)
    assert (length is None) == (not binary)
    assert list(request.inputs) == list(tensors)
    for name, value in tensors.items():
        assert request.inputs[name].dtype == np.float32
        np.testing.assert_array_equal(request.inputs[name], value, strict=True)
    assert request.outputs == (tuple(outputs) or None)
    assert request.id == label


@given(TENSORS, st.data())
@settings(max_examples=100, deadline=None)
def test_the_real_client_reads_a_response(
    tensors: dict[str, np.ndarray], data: st.DataObject
) -> None:
    from tritonclient.http import InferResult

    binary = frozenset(data.draw(st.sets(st.sampled_from(sorted(tensors)))))
    body, length = encode_response(InferResponse("m", "1", tensors, binary, "7", {"bundle": "b-1"}))
    result = InferResult.from_response_body(body, header_length=length)
    assert result.get_response()["parameters"] == {"bundle": "b-1"}
    for name, value in tensors.items():
        np.testing.assert_array_equal(result.as_numpy(name), value)


def _request(**changes: object) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]} | changes
    return json.dumps({"inputs": [{k: v for k, v in tensor.items() if v is not None}]}).encode()


@pytest.mark.parametrize(
    ("body", "length", "field"),
    [
        (b"", None, "body"),
        (b"[]", None, "body"),
        (b"\xff\xfe", None, "body"),
        (b"[" * 100_000, None, "body"),
        (b"{}", None, "inputs"),
        (b'{"inputs": []}', None, "inputs"),
        (b'{"inputs": [3]}', None, "inputs"),
        (_request(name=None), None, "inputs[0]"),
        (_request(datatype="FP64"), None, "x"),
        (_request(datatype=["FP32"]), None, "x"),
        (_request(shape=[3]), None, "x"),
        (_request(shape=[-2]), None, "x"),
        (_request(shape=[True]), None, "x"),
        (_request(shape=[2**31]), None, "x"),
        (_request(shape=[1] * 9), None, "x"),
        (_request(data=[[1], [2, 3]]), None, "x"),
        (_request(data=["a", "b"]), None, "x"),
        (_request(data=[None, 1]), None, "x"),
        (_request(data=[10**400, 1]), None, "x"),
        (_request(data=None), None, "x"),
        (_request(data=None, parameters={"binary_data_size": None}), None, "x"),
        (_request(parameters=[1]), None, "x"),
        (_request(), 10**6, "Inference-Header-Content-Length"),
        (_request() + b"1234", len(_request()), "body"),
        (_request(data=None, parameters={"binary_data_size": 4}), None, "x"),
        (_request(data=None, parameters={"binary_data_size": -8}), None, "x"),
        (_request(data=None, parameters={"binary_data_size": "8"}), None, "x"),
        (_request(data=None, parameters={"binary_data_size": 8}), None, "x"),
    ],
)
def test_what_is_off_is_named(body: bytes, length: int | None, field: str) -> None:
    with pytest.raises(CodecError) as caught:
        decode_request(body, length)
    assert caught.value.field == field
    assert caught.value.status == 400


@given(st.binary(max_size=200), st.none() | st.integers(-5, 300))
@settings(max_examples=300, deadline=None)
def test_noise_raises_codec_errors_only(body: bytes, length: int | None) -> None:
    with pytest.raises(CodecError):
        decode_request(body, length)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "datatype", "shape", "data", "parameters"])


@given(st.dictionaries(KEYS, JSON), JSON, JSON)
@settings(max_examples=200, deadline=None)
def test_odd_json_raises_codec_errors_only(tensor: object, outputs: object, more: object) -> None:
    whole = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    message = {"inputs": [whole | dict(tensor)], "outputs": outputs, "parameters": more}
    with contextlib.suppress(CodecError):
        decode_request(json.dumps(message).encode())


def test_nothing_that_is_not_a_number_is_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_response(InferResponse("m", "1", {"x": np.array([np.nan], np.float32)}))
