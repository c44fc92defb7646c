"""Graphs read and cut without the onnx package, held against the package."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from models.errors import BundleError
from models.graph.reverse import gradient_graph
from models.graph.slices import Whole


def pooled(seed: int = 0) -> onnx.ModelProto:
    """x [batch, 2, 4, 4, 4] -> conv1_map = relu(conv) -> pool -> conv2_map -> fc -> logits."""
    rng = np.random.default_rng(seed)
    shapes = {"k1": (3, 2, 3, 3, 3), "k2": (4, 3, 1, 1, 1), "w": (4, 5), "v": (5, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["s"], pads=[1] * 6),
        helper.make_node("Relu", ["s"], ["conv1_map"]),
        helper.make_node("ReduceMean", ["conv1_map", "space"], ["conv1"], keepdims=0),
        helper.make_node(
            "MaxPool", ["conv1_map"], ["p"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]
        ),
        helper.make_node("Conv", ["p", "k2"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["conv2_map"]),
        helper.make_node("ReduceMean", ["conv2_map", "space"], ["conv2"], keepdims=0),
        helper.make_node("MatMul", ["conv2", "w"], ["dense"]),
        helper.make_node("Relu", ["dense"], ["fc"]),
        helper.make_node("MatMul", ["fc", "v"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    lengths = {"logits": 3, "scores": 3, "conv1": 3, "conv2": 4, "fc": 5}
    maps = {"conv1_map": (3, 4, 4, 4), "conv2_map": (4, 2, 2, 2)}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", 1, ["batch", 2, 4, 4, 4])],
        [helper.make_tensor_value_info(k, 1, ["batch", n]) for k, n in lengths.items()]
        + [helper.make_tensor_value_info(k, 1, ["batch", *n]) for k, n in maps.items()],
        [numpy_helper.from_array(rng.normal(size=s).astype("f"), k) for k, s in shapes.items()]
        + [numpy_helper.from_array(np.array([2, 3, 4]), "space")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def both(seed: int = 0) -> tuple[bytes, bytes]:
    """(classifier, gradients)"""
    model = pooled(seed)
    return model.SerializeToString(), gradient_graph(model).SerializeToString()


def run(data: bytes, names: list[str], **feed: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(names, feed)


def test_a_file_reads_as_the_package_reads_it() -> None:
    for data in both():
        theirs, mine = onnx.load_from_string(data).graph, Whole.read(data)
        assert [n.op for n in mine.nodes] == [n.op_type for n in theirs.node]
        assert [n.outputs for n in mine.nodes] == [tuple(n.output) for n in theirs.node]
        assert [n.inputs for n in mine.nodes] == [tuple(n.input) for n in theirs.node]
        assert set(mine.weights) == {t.name for t in theirs.initializer}
        assert list(mine.inputs) == [i.name for i in theirs.input]
        assert list(mine.outputs) == [o.name for o in theirs.output]
        assert mine.plain
        pool = next(n for n in mine.nodes if n.op == "MaxPool")
        assert pool.numbers["kernel_shape"] == (2, 2, 2)


def test_negative_and_packed_integers_are_read() -> None:
    node = helper.make_node("Softmax", ["x"], ["logits"], axis=-1)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 2])],
        [helper.make_tensor_value_info("logits", 1, [1, 2])],
    )
    read = Whole.read(helper.make_model(graph).SerializeToString())
    assert read.nodes[0].numbers == {"axis": (-1,)}


def test_a_cut_gives_the_numbers_of_the_whole() -> None:
    classifier, gradients = both()
    whole = Whole.read(gradients).joined(Whole.read(classifier))
    assert whole is not None
    x = np.random.default_rng(1).normal(size=(3, 2, 4, 4, 4)).astype("f")
    w = np.random.default_rng(2).normal(size=(3, 3)).astype("f")
    zero = {f"w_{k}": np.zeros((3, n), "f") for k, n in {"conv2": 4, "fc": 5}.items()}
    names = ["logits", "fc", "grad_fc", "grad_conv2"]
    data = whole.cut(names)
    onnx.checker.check_model(onnx.load_from_string(data))
    found = run(data, names, x=x, w_logits=w, **zero)
    expected = run(classifier, names[:2], x=x)
    expected += run(gradients, names[2:], x=x, w_logits=w, w_conv1=np.zeros((3, 3), "f"), **zero)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, other)
    ops = [n.op for n in Whole.read(data).nodes]
    assert "MaxUnpool" not in ops
    # Nobody reads the pooling's indices here, so they are not computed.
    assert [len(n.outputs) for n in Whole.read(data).nodes if n.op == "MaxPool"] == [1]


def test_a_value_inside_can_be_the_input() -> None:
    classifier, _ = both()
    x = np.random.default_rng(3).normal(size=(2, 2, 4, 4, 4)).astype("f")
    whole = Whole.read(classifier)
    middle = run(whole.cut(["p"]), ["p"], x=x)[0]
    data = whole.cut(["logits"], {"p": ("tensor(float)", [None, 3, 2, 2, 2])})
    assert list(Whole.read(data).inputs) == ["p"]
    np.testing.assert_array_equal(
        run(data, ["logits"], p=middle)[0], run(classifier, ["logits"], x=x)[0]
    )


def test_graphs_of_two_networks_do_not_join() -> None:
    classifier, _ = both(seed=0)
    _, gradients = both(seed=1)
    assert Whole.read(gradients).joined(Whole.read(classifier)) is None


@pytest.mark.parametrize("data", [b"\xff" * 12, b"\x3a\x05ab", b"\x0b"])
def test_what_is_no_file_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        Whole.read(data)
    assert caught.value.code == "bundle_manifest"
