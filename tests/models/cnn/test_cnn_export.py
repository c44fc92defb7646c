"""Both ONNX files compute what torch computes, for every output and any batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from models.cnn.architecture import Architecture
from models.cnn.export import (
    check_names,
    classifier_outputs,
    export_classifier,
    export_gradients,
    open_session,
)
from models.cnn.network import LesionNet
from models.cnn.parity import autograd_gradients, check_parity, draw_weights, parity
from models.errors import BundleError

ARCHITECTURES = {
    "default": Architecture(),
    "odd": Architecture(
        channels=(5, 7, 9), kernels=(5, 3, 1), pool=(True, False, True), fc=12, dropout=0.0
    ),
}


def network(architecture: Architecture, seed: int = 0) -> LesionNet:
    """Random weights, with BatchNorm statistics that are not the trivial ones."""
    torch.manual_seed(seed)
    net = LesionNet(architecture, phases=3, classes=6)
    net.train()
    for _ in range(3):
        net(torch.randn(16, 3, 24, 24, 24) * 1.5 + 0.3)
    for block in net.blocks:
        torch.nn.init.uniform_(block.norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(block.norm.bias, -0.3, 0.3)
    return net.eval()


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LesionNet, Path, Path]:
    net = network(ARCHITECTURES[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    export_classifier(net, folder / "classifier.onnx", 24)
    export_gradients(folder / "classifier.onnx", folder / "gradients.onnx")
    return net, folder / "classifier.onnx", folder / "gradients.onnx"


def samples(n: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, 24, 24, 24)).astype(np.float32)


def test_every_output_agrees_at_several_batch_sizes(exported: tuple[LesionNet, Path, Path]) -> None:
    net, classifier, gradients = exported
    figures = parity(net, classifier, gradients, samples(), batches=(1, 2, 7, 16))
    check_parity(figures)
    named = {k.removeprefix("classifier.") for k in figures if k.startswith("classifier.")}
    assert named == set(classifier_outputs(net))
    assert figures["max_abs"] < 1e-4
    assert figures["gradient_median"] < 2e-5
    taps = ["grad_input", *(f"grad_{t}" for t in net.taps)]
    assert all(f"gradients.{t}.median" in figures for t in taps)


def test_batch_axis_is_dynamic_in_the_files(exported: tuple[LesionNet, Path, Path]) -> None:
    for path in exported[1:]:
        graph = onnx.load(str(path)).graph
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param, value.name
    session = open_session(exported[1])
    # Three equals the number of phases, six the number of classes: both must stay free.
    for size in (3, 6, 24):
        assert session.run(["logits"], {"x": samples(size)})[0].shape == (size, 6)


def test_a_lesion_does_not_depend_on_its_neighbours(exported: tuple[LesionNet, Path, Path]) -> None:
    session, x = open_session(exported[1]), samples(5)
    together = session.run(["logits"], {"x": x})[0]
    alone = np.concatenate([session.run(["logits"], {"x": row[None]})[0] for row in x])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_parity_notices_another_network(exported: tuple[LesionNet, Path, Path]) -> None:
    net, classifier, gradients = exported
    other = network(net.architecture, seed=1)
    with pytest.raises(BundleError) as caught:
        check_parity(parity(other, classifier, gradients, samples(4), batches=(2,)))
    assert caught.value.code == "parity"
    assert (caught.value.field or "").startswith("classifier.")


def test_parity_notices_a_wrong_gradient_graph(
    exported: tuple[LesionNet, Path, Path], tmp_path: Path
) -> None:
    net, classifier, gradients = exported
    model = onnx.load(str(gradients))
    weight = next(t for t in model.graph.initializer if list(t.dims) == [6, net.architecture.fc])
    changed = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    onnx.save(model, str(tmp_path / "g.onnx"))
    with pytest.raises(BundleError, match="differs"):
        check_parity(parity(net, classifier, tmp_path / "g.onnx", samples(4), batches=(2,)))


def test_names_are_checked(exported: tuple[LesionNet, Path, Path]) -> None:
    model = onnx.load(str(exported[1]))
    with pytest.raises(BundleError, match="other names"):
        check_names(model, ["x"], ["scores", "logits"])


def test_tap_gradient_is_the_derivative_along_a_uniform_shift() -> None:
    """Finite differences: shift a tap's map by a constant and watch what is weighed."""
    net = network(ARCHITECTURES["odd"]).double()
    x = torch.from_numpy(samples(1)).double()
    weights = {k: torch.from_numpy(v).double() for k, v in draw_weights(net, 1, 3).items()}
    truth = autograd_gradients(net, x, weights)

    def total(tap: int, channel: int, shift: float) -> float:
        def add(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
            moved = output.clone()
            moved[:, channel] += shift
            return moved

        handle = net.blocks[tap].register_forward_hook(add)
        try:
            with torch.no_grad():
                out = net.outputs(x)
        finally:
            handle.remove()
        value = (weights["logits"] * out.logits).sum()
        return float(value + sum((weights[k] * v).sum() for k, v in out.taps.items()))

    step = 1e-6
    for tap, channel in ((0, 2), (1, 0), (2, 4)):
        numeric = (total(tap, channel, step) - total(tap, channel, -step)) / (2 * step)
        assert truth[f"conv{tap + 1}"][0, channel].item() == pytest.approx(numeric, rel=1e-4)


def test_folding_changes_nothing() -> None:
    net = network(ARCHITECTURES["default"])
    x = torch.from_numpy(samples(4))
    with torch.no_grad():
        torch.testing.assert_close(net.folded()(x), net(x), rtol=1e-4, atol=1e-5)


def test_export_is_deterministic(tmp_path: Path) -> None:
    net = network(ARCHITECTURES["odd"])
    for name in ("a", "b"):
        export_classifier(net, tmp_path / name, 24)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_architecture_refuses_uneven_lists() -> None:
    with pytest.raises(ValueError, match="one entry a block"):
        Architecture(channels=(8, 8), kernels=(3,), pool=(True, True))
    with pytest.raises(ValueError, match="odd"):
        Architecture(channels=(8,), kernels=(2,), pool=(True,))
