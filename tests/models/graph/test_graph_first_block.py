"""ReLU and pooling in numpy, held against onnxruntime's operators, ties included."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper, numpy_helper

from models.graph.first_block import Windows, add_slope, pooled

SHAPE, WINDOW = (2, 4, 6, 2), (2, 3, 1)


def reference() -> ort.InferenceSession:
    """s, g -> pooled, and g taken back to s, by MaxPool, MaxUnpool and Sign."""
    nodes = [
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p", "i"], kernel_shape=WINDOW, strides=WINDOW),
        helper.make_node(
            "MaxUnpool", ["g", "i", "size"], ["u"], kernel_shape=WINDOW, strides=WINDOW
        ),
        helper.make_node("Sign", ["r"], ["on"]),
        helper.make_node("Mul", ["u", "on"], ["back"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(k, 1, None) for k in ("s", "g")],
        [helper.make_tensor_value_info(k, 1, None) for k in ("p", "back")],
        [numpy_helper.from_array(np.array([1, *SHAPE]), "size")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


SESSION = reference()
# Few values, so that windows hold ties and zeros.
IMAGES = arrays.arrays(np.float32, SHAPE, elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))


@settings(max_examples=60, deadline=None)
@given(image=IMAGES, seed=st.integers(0, 99))
def test_both_directions_equal_the_operators(image: np.ndarray, seed: int) -> None:
    windows = Windows(SHAPE, WINDOW)
    slope = np.random.default_rng(seed).normal(size=windows.pooled).astype(np.float32)
    expected, back = SESSION.run(["p", "back"], {"s": image[None], "g": slope[None]})
    laid = windows.lay(image)
    np.testing.assert_array_equal(pooled(laid), expected[0])
    total = np.zeros_like(laid)
    add_slope(total, laid, pooled(laid), slope, np.empty_like(laid))
    np.testing.assert_array_equal(windows.back(total), back[0])


@given(image=IMAGES)
def test_laying_and_back_lose_nothing(image: np.ndarray) -> None:
    windows = Windows(SHAPE, WINDOW)
    np.testing.assert_array_equal(windows.back(windows.lay(image)), image)


def test_windows_must_tile_the_map() -> None:
    with pytest.raises(ValueError, match="do not tile"):
        Windows((2, 5, 6, 2), WINDOW)
