"""Whole networks from MONAI, exported both ways: the written gradient equals autograd's."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from monai.networks import nets
from monai.networks.blocks import ResidualSELayer
from torch import nn

from models.errors import BundleError
from models.graph.reverse import gradient_graph

EDGE = 32
NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "densenet": lambda: nets.DenseNet(3, 3, 4, init_features=8, growth_rate=4, block_config=(2, 2)),
    "resnet": lambda: nets.ResNet(
        "basic", [1, 1, 1, 1], [8, 12, 16, 20], spatial_dims=3, n_input_channels=3, num_classes=4,
        conv1_t_stride=2, shortcut_type="B",
    ),
    # Squeeze and excitation, norms and activations that the others lack.
    "mixed": lambda: nn.Sequential(
        nn.Conv3d(3, 8, 3, stride=2, padding=1), nn.InstanceNorm3d(8, affine=True), nn.PReLU(8),
        ResidualSELayer(3, 8, r=2), nn.AvgPool3d(3, 2, 1), nn.Conv3d(8, 12, 3, groups=4),
        nn.GroupNorm(3, 12), nn.SiLU(), nn.MaxPool3d(3, 2, 1), nn.AdaptiveAvgPool3d(1),
        nn.Flatten(), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 4),
    ),
}  # fmt: skip


def network(name: str) -> torch.nn.Module:
    """Random weights, with running statistics that are not the trivial ones."""
    torch.manual_seed(0)
    net = NETWORKS[name]()
    net.train()
    net(torch.randn(8, 3, EDGE, EDGE, EDGE))
    return net.eval()


def exported(net: torch.nn.Module, dynamo: bool) -> onnx.ModelProto:
    x = torch.zeros(5, 3, EDGE, EDGE, EDGE)
    if dynamo:
        program = torch.onnx.export(
            net, (x,), dynamo=True, input_names=["x"], output_names=["logits"], opset_version=18,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},), verbose=False,
        )  # fmt: skip
        assert program is not None
        return program.model_proto
    buffer = io.BytesIO()
    torch.onnx.export(
        net, (x,), buffer, dynamo=False, input_names=["x"], output_names=["logits"],
        dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}}, opset_version=18,
    )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [("densenet", False), ("resnet", False), ("mixed", True), ("mixed", False)],
)
@pytest.mark.filterwarnings("ignore")
def test_gradient_equals_autograd(name: str, dynamo: bool) -> None:
    net = network(name)
    graph = gradient_graph(exported(net, dynamo), [])
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ratios: list[float] = []
    for batch in (1, 6):
        x = torch.randn(batch, 3, EDGE, EDGE, EDGE, requires_grad=True)
        logits = net(x)
        weights = torch.randn_like(logits)
        (logits * weights).sum().backward()
        feed = {"x": x.detach().numpy(), "w_logits": weights.numpy()}
        found = session.run(["grad_input"], feed)[0]
        assert x.grad is not None
        truth = x.grad.numpy().reshape(batch, -1)
        gap = np.linalg.norm(found.reshape(batch, -1) - truth, axis=1)
        ratios += list(gap / np.linalg.norm(truth, axis=1))
    # Single lesions may hold a flipped near-tie of a ReLU or a pooling.
    assert np.median(ratios) < 1e-4
    assert max(ratios) < 0.25


def small(
    nodes: list[tuple[str, list[str], str, dict]], outputs: dict[str, int]
) -> onnx.ModelProto:
    """x [batch, 3] through some nodes; outputs by name and length."""
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node(op, i, [o], **a) for op, i, o, a in nodes],
        "g",
        [helper.make_tensor_value_info("x", 1, ["batch", 3])],
        [helper.make_tensor_value_info(k, 1, ["batch", d]) for k, d in outputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def gradients(model: onnx.ModelProto, **feed: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(
        gradient_graph(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


X = np.array([[1.0, -2.0, 0.5]], np.float32)
W = np.array([[2.0, 3.0, 5.0]], np.float32)


def test_a_tap_beside_the_way_feels_its_own_weight_alone() -> None:
    model = small(
        [("Relu", ["x"], "logits", {}), ("Exp", ["x"], "beside", {})], {"logits": 3, "beside": 3}
    )
    found = gradients(model, x=X, w_logits=W, w_beside=W)
    np.testing.assert_allclose(found["grad_beside"], W)
    np.testing.assert_allclose(found["grad_input"], W * (X > 0) + W * np.exp(X), rtol=1e-6)


def test_a_tap_that_joins_members_gets_their_gradients_side_by_side() -> None:
    """As in an ensemble: each member goes its own way to the logits, the tap only shows them."""
    model = small(
        [
            ("Relu", ["x"], "one", {}),
            ("Tanh", ["x"], "two", {}),
            ("Mean", ["one", "two"], "logits", {}),
            ("Concat", ["one", "two"], "tap", {"axis": 1}),
        ],
        {"logits": 3, "tap": 6},
    )
    own = np.arange(6, dtype=np.float32)[None]
    found = gradients(model, x=X, w_logits=W, w_tap=own)
    np.testing.assert_allclose(found["grad_tap"], own + np.tile(W / 2, 2))


def test_what_is_not_there_is_refused() -> None:
    model = small([("Relu", ["x"], "scores", {})], {"scores": 3})
    with pytest.raises(BundleError, match="no output 'logits'"):
        gradient_graph(model)
    apart = small([("Shape", ["x"], "s", {}), ("Cast", ["s"], "logits", {"to": 1})], {"logits": 3})
    with pytest.raises(BundleError, match="does not lead to the logits"):
        gradient_graph(apart)
