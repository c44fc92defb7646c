"""Where a gradient graph is split, and which networks are left whole."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from models.graph.reverse import gradient_graph
from models.graph.slices import Whole
from models.graph.split import Split, split
from tests.models.graph.test_graph_slices import pooled

TAPS = ("conv1", "conv2", "fc")


def places(model: onnx.ModelProto) -> Split | None:
    gradients = Whole.read(gradient_graph(model).SerializeToString())
    whole = gradients.joined(Whole.read(model.SerializeToString()))
    assert whole is not None
    return split(whole, TAPS)


def test_a_convolution_relu_and_pooling_are_the_first_block() -> None:
    found = places(pooled())
    assert found is not None
    assert (found.stem, found.cut, found.window) == ("s", "p", (2, 2, 2))
    assert found.taps == ("conv2", "fc")
    assert found.kept


def test_pooling_that_overlaps_leaves_the_stem() -> None:
    model = pooled()
    pool = next(n for n in model.graph.node if n.op_type == "MaxPool")
    pool.attribute.remove(next(a for a in pool.attribute if a.name == "strides"))
    pool.attribute.append(helper.make_attribute("strides", [1, 1, 1]))
    model.graph.output.pop()  # conv2_map has another shape now
    found = places(model)
    assert found is not None
    assert (found.stem, found.cut, found.window) == ("s", "s", None)
    assert found.taps == TAPS


def test_a_first_map_that_is_read_elsewhere_leaves_the_stem() -> None:
    """As where a later block takes up the first one's map."""
    model = pooled()
    late = next(n for n in model.graph.node if n.output[0] == "conv2_map")
    late.input[0] = "joined"
    nodes = list(model.graph.node)
    at = nodes.index(late)
    more = [
        helper.make_node("AveragePool", ["conv1_map"], ["small"], kernel_shape=[4, 4, 4]),
        helper.make_node("ReduceMean", ["small", "one"], ["mean"]),
        helper.make_node("Add", ["c2", "mean"], ["joined"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], *more, *nodes[at:]])
    axis = onnx.numpy_helper.from_array(np.array([1]), "one")
    model.graph.initializer.append(axis)
    found = places(model)
    assert found is not None
    assert (found.cut, found.window) == ("s", None)


def test_a_network_without_a_first_convolution_is_left_whole() -> None:
    model = pooled()
    first = model.graph.node[0]
    first.input[0] = "scaled"
    nodes = [helper.make_node("Sin", ["x"], ["scaled"]), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert places(model) is None


def test_an_input_that_is_read_twice_is_left_whole() -> None:
    model = pooled()
    nodes = list(model.graph.node)
    at = next(i for i, n in enumerate(nodes) if n.output[0] == "s")
    second = helper.make_node("Conv", ["x", "k1"], ["s2"], pads=[1] * 6)
    joined = helper.make_node("Add", ["s0", "s2"], ["s"])
    nodes[at].output[0] = "s0"
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: at + 1], second, joined, *nodes[at + 1 :]])
    assert places(model) is None
