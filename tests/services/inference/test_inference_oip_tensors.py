"""Datatypes: halves are exact, bytes are scaled by what the caller said, nothing is guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.inference.oip_tensors import (
    CodecError,
    declared,
    from_bytes,
    from_numbers,
    narrowed,
    output_datatype,
)

SCALED = {"scale": 0.5, "offset": -3}


def _head(datatype: str, shape: list[int], own: dict[str, Any], whole: dict[str, Any]) -> Any:
    return declared("x", datatype, shape, own, whole)


@given(hnp.arrays(np.float16, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)))
@settings(max_examples=80, deadline=None)
def test_halves_are_exact(value: np.ndarray) -> None:
    head = _head("FP16", list(value.shape), {}, {})
    found = from_bytes(head, value.tobytes())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, value.astype(np.float32), strict=True)
    if np.isfinite(value).all():
        again = from_numbers(head, value.astype(float).tolist())
        np.testing.assert_array_equal(again, found, strict=True)
        np.testing.assert_array_equal(narrowed("x", found, "FP16"), value, strict=True)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)),
    st.floats(-100, 100, width=32),
    st.floats(-100, 100, width=32),
)
@settings(max_examples=80, deadline=None)
def test_a_quantised_image(value: np.ndarray, scale: float, offset: float) -> None:
    head = _head("UINT8", list(value.shape), {"scale": scale}, {"scale": 7.0, "offset": offset})
    expected = value * np.float32(scale) + np.float32(offset)
    for found in (from_bytes(head, value.tobytes()), from_numbers(head, value.tolist())):
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize(
    ("own", "whole"),
    [
        ({}, {}),
        ({"scale": 1}, {}),
        ({"offset": 1}, {}),
        (SCALED | {"scale": float("nan")}, {}),
        (SCALED | {"offset": float("inf")}, {}),
        (SCALED | {"scale": "1"}, {}),
        (SCALED | {"scale": True}, {}),
        ({"scale": None, "offset": 0}, SCALED),
    ],
)
def test_bytes_without_a_scale_are_refused(own: dict[str, Any], whole: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="UINT8 needs the parameter") as caught:
        _head("UINT8", [1], own, whole)
    assert (caught.value.code, caught.value.field) == ("not_scaled", "x")


@pytest.mark.parametrize("data", [[-1], [256], [1.5], [True], ["1"], [2**70]])
def test_what_is_no_byte(data: list[Any]) -> None:
    with pytest.raises(CodecError):
        from_numbers(_head("UINT8", [1], SCALED, {}), data)


@pytest.mark.parametrize("datatype", ["FP64", "INT8", "BYTES", "fp32", "", None, 3])
def test_other_datatypes(datatype: Any) -> None:
    with pytest.raises(CodecError, match="datatype"):
        _head(datatype, [1], SCALED, {})
    with pytest.raises(CodecError, match="datatype"):
        output_datatype("y", datatype)


@pytest.mark.parametrize(("datatype", "size"), [("FP32", 8), ("FP16", 4), ("UINT8", 2)])
def test_the_bytes_fill_the_shape(datatype: str, size: int) -> None:
    head = _head(datatype, [1, 2], SCALED, {})
    assert from_bytes(head, bytes(size)).shape == (1, 2)
    for wrong in (0, size - 1, size + 1):
        with pytest.raises(CodecError, match="fill the shape") as caught:
            from_bytes(head, bytes(wrong))
        assert caught.value.expected == str(size)


def test_an_output_beyond_halves_is_refused_not_infinite() -> None:
    with pytest.raises(CodecError, match="beyond this datatype"):
        narrowed("y", np.array([1e6], np.float32), "FP16")
    assert narrowed("y", np.array([1e6], np.float32), "FP32")[0] == np.float32(1e6)
