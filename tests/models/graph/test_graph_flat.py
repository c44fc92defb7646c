"""Convolutions over slices equal those over volumes, and what cannot be turned stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from models.graph.flat import flat_file, flattened
from models.graph.slices import Whole


def one(shape: tuple[int, ...], bias: bool = False, **attributes: object) -> bytes:
    """x -> y, one convolution with the kernel of this shape."""
    rng = np.random.default_rng(3)
    held = {"k": rng.normal(size=shape).astype("f")}
    if bias:
        held["b"] = rng.normal(size=shape[0]).astype("f")
    channels = shape[1] * int(attributes.get("group", 1))  # type: ignore[call-overload]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", *held], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", 1, ["batch", channels, None, None, None])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(v, k) for k, v in held.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return made.SerializeToString()


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pads", [None, [0] * 6, [2, 1, 0, 0, 1, 2]])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 3, 1), (3, 3, 2), (1, 1, 4)])
def test_a_turned_convolution_gives_the_same(
    kernel: tuple[int, int, int], pads: list[int] | None, bias: bool
) -> None:
    data = one((6, 9, *kernel), bias, pads=pads or [k // 2 for k in kernel] * 2)
    turned = flat_file(data)
    onnx.load_from_string(turned)
    assert max(len(dict(n.numbers).get("kernel_shape", ())) for n in Whole.read(turned).nodes) == 2
    smallest = (2, 3, 3) if pads is None else (5, 4, 4)  # unpadded, a kernel must fit in
    for size in ((1, 9, 5, 6, 7), (4, 9, *smallest)):
        x = np.random.default_rng(1).normal(size=size).astype("f")
        np.testing.assert_allclose(run(turned, x), run(data, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((6, 9, 3, 3, 3), {}),
        ((6, 9, 3, 3, 3), {"pads": [1] * 6, "strides": [2, 2, 2]}),
        ((6, 9, 3, 3, 3), {"pads": [1] * 6, "dilations": [2, 2, 2]}),
        ((6, 9, 3, 3, 3), {"pads": [1] * 6, "group": 2}),
        ((6, 9, 1, 1, 1), {"pads": [0] * 6}),
        ((6, 9, 3, 3, 3), {"auto_pad": "SAME_UPPER"}),
    ],
)
def test_what_cannot_be_turned_stays(shape: tuple[int, ...], attributes: dict) -> None:
    whole = Whole.read(one(shape, **attributes))
    assert flattened(whole).nodes == whole.nodes


def test_a_file_without_volumes_stays_as_it_is() -> None:
    data = one((6, 9, 1, 1, 1), pads=[0] * 6)
    assert flat_file(data) is data
