"""A MONAI network with other names, another layout, other classes: adopted, and told apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from monai.networks.nets import DenseNet
from safetensors.torch import save_file

from models.bundle.runtime import load_model
from models.errors import BundleError, InputError, LensError
from services.cli.adopt import adopt as command
from services.training.adopt import ADOPTED, Classifier, adopt, list_taps
from services.training.foreign.check import check, compare
from services.training.foreign.graph import open_graph
from tests.support.foreign import SPEC, foreign_cohort, train_briefly

SMALL = {
    "spatial_dims": 3, "in_channels": 3, "out_channels": 3,
    "init_features": 8, "growth_rate": 4, "block_config": [2, 2],
}  # fmt: skip
QUICK = ADOPTED.model_copy(
    update={
        "preprocessing": SPEC,
        "passes": 3,
        "reference_passes": 2,
        "bootstraps": 50,
        "pairs": 2,
        "trust": False,
    }
)


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_cohort(tiny_cohort, tmp_path_factory.mktemp("elsewhere") / "cohort")


class Softened(torch.nn.Module):
    """As somebody else would export it: space as z, y, x, and probabilities out."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.net(image), dim=1)


@pytest.fixture(scope="module")
def trained(cohort: Path) -> DenseNet:
    torch.manual_seed(0)
    net = DenseNet(**SMALL)
    train_briefly(net, cohort, 12, axes="zyx")
    return net


@pytest.fixture(scope="module")
def model(trained: DenseNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("theirs") / "theirs.onnx"
    torch.onnx.export(
        Softened(trained).eval(),
        (torch.zeros(1, 3, 32, 32, 32),),
        str(path),
        dynamo=False,
        input_names=["image"],
        output_names=["probability"],
        dynamic_axes={"image": {0: "n"}, "probability": {0: "n"}},
        opset_version=17,
    )
    return path


def find(model: Path, words: str) -> str:
    """The last value whose name holds the words."""
    return [p.name for p in list_taps(Classifier(model), 3, 32) if words in p.name][-1]


@pytest.fixture(scope="module")
def adopted(model: Path, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adopted")
    # Named against the network's order, to see it put right.
    taps = [f"deep={find(model, 'denseblock2')}", f"shallow={find(model, 'pool0')}"]
    result = adopt(
        Classifier(model, layout="bpzyx"), cohort, taps, out,
        vocabulary=cohort / "vocabulary.json", config=QUICK, store=False,
    )  # fmt: skip
    assert list(result.taps) == ["shallow", "deep"]
    assert result.figures["slope_median"] < 5e-2
    return out / "bundle"


def test_the_bundle_says_what_it_is(adopted: Path, cohort: Path) -> None:
    manifest = json.loads((adopted / "manifest.json").read_text("utf-8"))
    assert manifest["origin"] == "adopted"
    assert manifest["classes"] == ["arising_here", "harmless", "spread_from_elsewhere"]
    assert manifest["features"][0] == "late_darkening"
    assert manifest["preprocessing"]["tensor_voxels"] == 32
    training = json.loads((adopted / "training.json").read_text("utf-8"))
    assert training["adopted"] == "theirs.onnx"
    assert len(training["sha256"]) == 64


def test_it_computes_what_the_network_computes(adopted: Path, trained: DenseNet) -> None:
    model = load_model(adopted)
    x = np.random.default_rng(0).normal(size=(3, 3, 32, 32, 32)).astype(np.float32)
    caught = {}
    hook = trained.features.pool0.register_forward_hook(
        lambda m, i, o: caught.update(map=o.permute(0, 1, 4, 3, 2))
    )
    turned = torch.from_numpy(x).permute(0, 1, 4, 3, 2).contiguous().requires_grad_()
    logits = trained(turned)
    hook.remove()
    found = model.forward(x, ["scores", "logits", "shallow", "shallow_map"])
    np.testing.assert_allclose(found["logits"], logits.detach(), atol=1e-4)
    np.testing.assert_allclose(found["scores"], torch.softmax(logits, 1).detach(), atol=1e-5)
    np.testing.assert_allclose(found["shallow_map"], caught["map"].detach(), atol=1e-4)
    np.testing.assert_allclose(found["shallow"], found["shallow_map"].mean((2, 3, 4)), atol=1e-5)
    weights = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    (logits * torch.from_numpy(weights)).sum().backward()
    expected = turned.grad.permute(0, 1, 4, 3, 2).numpy()
    slope = model.gradients(x, {"logits": weights})["input"]
    gap = np.linalg.norm((slope - expected).reshape(3, -1), axis=1)
    assert np.median(gap / np.linalg.norm(expected.reshape(3, -1), axis=1)) < 1e-4


def test_a_module_goes_the_same_way(trained: DenseNet, cohort: Path, tmp_path: Path) -> None:
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    source = Classifier(
        module="monai.networks.nets:DenseNet", arguments=SMALL, weights=tmp_path / "w.safetensors"
    )
    paths = [p.name for p in list_taps(source, 3, 32)]
    assert "features.denseblock1" in paths
    result = adopt(
        source, cohort, ["features.denseblock1", "class_layers.flatten"], tmp_path / "out",
        config=QUICK, store=False,
    )  # fmt: skip
    assert result.taps == {"features_denseblock1": 16, "class_layers_flatten": 16}
    assert result.figures["gradient_median"] < 1e-5
    assert result.figures["scores_against_torch"] < 1e-5


def refused(
    model: Path | onnx.ModelProto, cohort: Path, tmp_path: Path, **more: object
) -> LensError:
    if not isinstance(model, Path):
        onnx.save(model, str(tmp_path / "m.onnx"))
        model = tmp_path / "m.onnx"
    source = Classifier(model, **{k: more.pop(k) for k in ("logits", "layout") if k in more})
    arguments = {"taps": [find_any(model)], "config": QUICK} | more
    with pytest.raises(LensError) as caught:
        adopt(source, cohort, out=tmp_path / "out", store=False, **arguments)
    assert not (tmp_path / "out" / "bundle").exists()
    assert "\n" not in caught.value.line
    return caught.value


def find_any(model: Path) -> str:
    return next(o for n in onnx.load(str(model)).graph.node for o in n.output if "pool0" in o)


def test_refusals_name_what_does_not_fit(
    model: Path, cohort: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    error = refused(model, tiny_cohort, tmp_path)
    assert (error.code, error.found) == ("adopt_classes", "3")
    error = refused(model, cohort, tmp_path, config=ADOPTED)
    assert error.code == "adopt_shape"
    assert "tensor_voxels" in (error.expected or "")
    error = refused(model, cohort, tmp_path, taps=["denseblok2"])
    assert error.code == "unknown_value"
    assert "denseblock2" in (error.expected or "")
    error = refused(model, cohort, tmp_path, taps=["logits=image"])
    assert error.code == "adopt_tap"
    error = refused(model, cohort, tmp_path, classes=["harmless"])
    assert error.code == "adopt_classes"
    assert refused(model, cohort, tmp_path, layout="bxyz").code == "adopt_layout"
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="not a valid ONNX model"):
        adopt(Classifier(tmp_path / "no.onnx"), cohort, ["a"], tmp_path / "o", store=False)


def test_an_operator_without_a_rule_is_named(model: Path, cohort: Path, tmp_path: Path) -> None:
    changed = onnx.load(str(model))
    last = next(n for n in changed.graph.node if n.op_type == "Relu")
    last.op_type, last.name = "Cosh", "strange"
    error = refused(changed, cohort, tmp_path)
    assert isinstance(error, BundleError)
    assert error.code == "no_derivative"
    assert "strange" in error.line
    assert "Cosh" in error.line


def test_a_fixed_batch_is_refused(trained: DenseNet, cohort: Path, tmp_path: Path) -> None:
    class Fixed(Softened):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x).reshape(1, 3)

    torch.onnx.export(
        Fixed(trained).eval(), (torch.zeros(1, 3, 32, 32, 32),), str(tmp_path / "f.onnx"),
        dynamo=False,
        input_names=["image"], output_names=["y"], opset_version=17,
    )  # fmt: skip
    changed = onnx.load(str(tmp_path / "f.onnx"))
    error = refused(changed, cohort, tmp_path)
    assert error.code == "adopt_batch"
    assert "dynamic batch" in (error.expected or "")


def test_rows_that_see_each_other_are_refused(
    trained: DenseNet, cohort: Path, tmp_path: Path
) -> None:
    class Mixing(Softened):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x - x.mean(dim=0, keepdim=True))

    torch.onnx.export(
        Mixing(trained).eval(), (torch.zeros(2, 3, 32, 32, 32),), str(tmp_path / "f.onnx"),
        dynamo=False,
        input_names=["image"], output_names=["y"], opset_version=17,
        dynamic_axes={"image": {0: "n"}, "y": {0: "n"}},
    )  # fmt: skip
    assert refused(onnx.load(str(tmp_path / "f.onnx")), cohort, tmp_path).code == "adopt_batch"


def test_a_wrong_gradient_is_noticed(adopted: Path, model: Path, tmp_path: Path) -> None:
    """One kernel of the way back is half too large."""
    export = adopted.parent / "export"
    graph = onnx.load(str(export / "gradients.onnx"))
    kernels = [t for t in graph.graph.initializer if t.name.startswith("reverse/")]
    widest = max(kernels, key=lambda t: len(t.raw_data))
    array = onnx.numpy_helper.to_array(widest) * np.float32(1.5)
    widest.CopyFrom(onnx.numpy_helper.from_array(array, widest.name))
    onnx.save(graph, str(tmp_path / "wrong.onnx"))
    foreign = open_graph(onnx.load(str(model)), 3, 32, layout="bpzyx")
    x = np.random.default_rng(0).normal(size=(6, 3, 32, 32, 32)).astype(np.float32)
    widths = {"shallow": 8, "deep": 16}
    for name, right in (("gradients.onnx", True), ("wrong.onnx", False)):
        path = export / name if right else tmp_path / name
        figures = compare(foreign, export / "classifier.onnx", path, widths, x, 0).figures
        if right:
            check(figures)
            continue
        with pytest.raises(BundleError) as caught:
            check(figures)
        assert caught.value.code == "parity"


def test_pads_that_a_graph_works_out_become_constants() -> None:
    """Exporters read pads off the input's shape; the derivative needs them fixed."""
    h = onnx.helper
    nodes = [
        ("Shape", ["image"], ["s"], {}),
        ("Slice", ["s", "from", "to"], ["edge"], {}),
        ("Sub", ["edge", "edge"], ["none"], {}),
        ("Add", ["none", "one"], ["one_each"], {}),
        ("Concat", ["two_none", "one_each", "two_none", "one_each"], ["pads"], {"axis": 0}),
        ("Pad", ["image", "pads"], ["wide"], {}),
        ("Relu", ["wide"], ["bright"], {}),
        ("ReduceMean", ["bright", "space"], ["y"], {"keepdims": 0}),
    ]
    integers = {"from": [2], "to": [5], "one": [1], "two_none": [0, 0], "space": [2, 3, 4]}
    graph = h.make_graph(
        [h.make_node(op, i, o, **a) for op, i, o, a in nodes],
        "g",
        [h.make_tensor_value_info("image", 1, ["n", 3, 4, 4, 4])],
        [h.make_tensor_value_info("y", 1, ["n", 3])],
        [onnx.numpy_helper.from_array(np.array(v), k) for k, v in integers.items()],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=10)
    foreign = open_graph(model, 3, 4)
    assert not {"Slice", "Sub", "Concat"} & {n.op_type for n in foreign.model.graph.node}
    assert foreign.known.shapes["wide"] == (None, 3, 6, 6, 6)


def test_list_taps_shows_names_shapes_and_what_goes_around(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"tensor_voxels": 32}', "utf-8")
    done = CliRunner().invoke(
        command, [str(model), "--list-taps", "--preprocessing", str(tmp_path / "p.json")]
    )
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line for line in done.output.splitlines()}
    assert "[batch, 8, 8, 8, 8]" in lines[find(model, "pool0")]
    inner = next(v for k, v in lines.items() if "denselayer1/layers/conv2" in k)
    assert "around" in inner
    assert "around" not in lines[find(model, "denseblock1")]
