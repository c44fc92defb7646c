"""The graphs in onnxruntime: right values, refused input, parity, threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from models.bundle.parts import BundleParts, ParitySample
from models.bundle.read import read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.bundle.write import write_bundle
from models.errors import BundleError, InputError
from models.model import Model


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> OnnxModel:
    return load_model(tiny_bundle)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_forward_gives_what_was_asked_and_nothing_else(model: OnnxModel, batch: int) -> None:
    x = tiny_onnx.images(batch, 3)
    expected = tiny_onnx.expected_outputs(x)
    found = model.forward(x, ["fc", "scores", "conv1_map"])
    assert list(found) == ["fc", "scores", "conv1_map"]
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5)
    assert model.forward(x, []) == {}


@pytest.mark.parametrize("names", [("logits",), ("fc",), ("logits", "conv1", "fc"), ()])
def test_gradients_fill_missing_weights_with_zeros(
    model: OnnxModel, names: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(1)
    x = tiny_onnx.images(3, 4)
    lengths = {"logits": tiny_onnx.C, "conv1": tiny_onnx.CONV, "fc": tiny_onnx.FC}
    given = {n: rng.normal(size=(3, lengths[n])).astype(np.float32) for n in names}
    expected = tiny_onnx.expected_gradients(x, given)
    found = model.gradients(x, given)
    assert list(found) == ["input", "conv1", "fc"]
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5)


def test_gradients_are_derivatives(model: OnnxModel) -> None:
    """Against central differences of the forward graph: nothing is shared but the weights."""
    x = tiny_onnx.images(1, 6)
    w = np.zeros((1, 6), dtype=np.float32)
    w[0, 2] = 1
    gradient = model.gradients(x, {"logits": w})["input"].ravel().astype(float)
    way = np.random.default_rng(0).normal(size=gradient.size)
    step = (1e-2 * way).reshape(x.shape).astype(np.float32)
    ends = [model.forward(x + s, ["logits"])["logits"][0, 2] for s in (step, -step)]
    assert (float(ends[0]) - float(ends[1])) / 2e-2 == pytest.approx(gradient @ way, rel=0.02)


@pytest.mark.parametrize(
    ("x", "code"),
    [
        (np.zeros((1, 3, 8, 8, 8)), "wrong_dtype"),
        ([[1.0]], "wrong_dtype"),
        (np.zeros((3, 8, 8, 8), np.float32), "wrong_shape"),
        (np.zeros((1, 2, 8, 8, 8), np.float32), "wrong_shape"),
        (np.zeros((0, 3, 8, 8, 8), np.float32), "wrong_shape"),
        (np.full((1, 3, 8, 8, 8), np.nan, np.float32), "not_finite"),
        (np.full((1, 3, 8, 8, 8), np.inf, np.float32), "not_finite"),
    ],
)
def test_bad_input_is_an_input_error(model: OnnxModel, x: np.ndarray, code: str) -> None:
    for call in (lambda: model.forward(x, ["scores"]), lambda: model.gradients(x, {})):
        with pytest.raises(InputError) as refusal:
            call()
        assert refusal.value.code == code
        assert refusal.value.field == "x"


def test_unknown_names_and_bad_weights(model: OnnxModel) -> None:
    x = tiny_onnx.images(2, 0)
    with pytest.raises(InputError, match="no such output"):
        model.forward(x, ["conv7"])
    with pytest.raises(InputError, match="no such output"):
        model.gradients(x, {"conv7": np.zeros((2, 5), np.float32)})
    with pytest.raises(InputError) as refusal:
        model.gradients(x, {"fc": np.zeros((1, tiny_onnx.FC), np.float32)})
    assert refusal.value.field == "weights.fc"
    assert refusal.value.expected == "[2, 4]"


def test_many_threads_get_their_own_answers(model: OnnxModel) -> None:
    inputs = [tiny_onnx.images(2, seed) for seed in range(40)]
    alone = [model.forward(x, ["logits"])["logits"] for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda x: model.forward(x, ["logits"])["logits"], inputs))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_parity_reports_every_output(model: OnnxModel) -> None:
    errors = model.check_parity()
    assert set(errors) >= {"scores", "logits", "conv1", "fc", "conv1_map"}
    assert set(errors) >= {"grad_input", "grad_conv1", "grad_fc"}
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize("part", ["classifier", "gradients"])
def test_a_graph_with_other_weights_fails_parity(
    tmp_path: Path, tiny_parts: BundleParts, part: str
) -> None:
    other = replace(tiny_parts, **{part: tiny_onnx.graph(part, 1)})
    write_bundle(tmp_path / "b", other)
    with pytest.raises(BundleError) as refusal:
        load_model(tmp_path / "b")
    assert refusal.value.code == "bundle_parity"
    assert refusal.value.field == "parity.safetensors"


def _shifted(values: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {k: v + np.float32(0.1 * (k == name)) for k, v in values.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: replace(s, x=s.x * np.float32(1.2)), "differs from what was computed"),
        (lambda s: replace(s, outputs=_shifted(s.outputs, "logits")), "logits differs"),
        (lambda s: replace(s, outputs=_shifted(s.outputs, "conv1")), "conv1 differs"),
        (lambda s: replace(s, gradients=_shifted(s.gradients, "fc")), "grad_fc differs"),
        (lambda s: replace(s, outputs={}), "lacks the output 'scores'"),
        (lambda s: replace(s, gradients={}), "lacks the gradient 'input'"),
        (lambda s: replace(s, x=s.x[:, :2]), "wrong shape"),
        (lambda s: replace(s, x=s.x * np.float32(np.nan)), "NaN"),
    ],
    ids=["input", "logits", "tap", "gradient", "no outputs", "no gradients", "shape", "nan"],
)
def test_a_wrong_sample_is_refused_in_one_line(
    tmp_path: Path,
    tiny_parts: BundleParts,
    change: Callable[[ParitySample], ParitySample],
    words: str,
) -> None:
    """Every checksum holds, and still the numbers are not those of this network."""
    write_bundle(tmp_path / "b", replace(tiny_parts, parity=change(tiny_parts.parity)))
    read_bundle(tmp_path / "b")
    with pytest.raises(BundleError) as refusal:
        load_model(tmp_path / "b")
    assert (refusal.value.code, refusal.value.field) == ("bundle_parity", "parity.safetensors")
    assert words in refusal.value.line
    assert "\n" not in refusal.value.line


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("classifier", b"not a graph"),
        ("gradients", b""),
        ("classifier", tiny_onnx.graph("gradients")),
        ("gradients", tiny_onnx.graph("classifier")),
    ],
)
def test_a_file_that_is_no_such_graph_is_named(
    tmp_path: Path, tiny_parts: BundleParts, part: str, content: bytes
) -> None:
    write_bundle(tmp_path / "b", replace(tiny_parts, **{part: content}))
    with pytest.raises(BundleError) as refusal:
        load_model(tmp_path / "b")
    assert refusal.value.code == "bundle_manifest"
    assert refusal.value.field == f"{part}.onnx"


def test_it_is_the_port(model: OnnxModel, tiny_bundle: Path) -> None:
    port: Model = model
    bundle = read_bundle(tiny_bundle)
    assert port.info == bundle.info
    assert port.info.input_shape == (3, 8, 8, 8)
    assert dict(port.info.taps) == {"conv1": 5, "fc": 4}
    vector = bundle.probe_vector(model.forward(tiny_onnx.images(2, 0), ["conv1", "fc"]))
    assert vector.shape == (2, bundle.probes.length)
    assert bundle.evidence.slices == {"conv1": slice(0, 5), "fc": slice(5, 9)}
