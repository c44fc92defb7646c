"""The shorter ways through a bundle's graphs give what the whole graphs give.

Passes to the bit: the same operators on the same rows. Paths to rounding: the images are blended
behind the first convolution, so that a ReLU or a pooling may fall the other way at a near-tie; the
median over maps is held to 1e-5 and each to 5e-3 in relative L2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.attribution.goal import centred_logit
from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.errors import InputError
from models.recipes import Composed, Draw, Line
from tests.models.bundle import tiny_onnx
from tests.support import tiny_bundle as trained


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Of a network that was really trained, pooling and all."""
    return read_bundle(trained.tiny_bundle())


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> OnnxModel:
    return load_model(bundle)


@pytest.fixture(scope="module")
def draw(bundle: Bundle) -> Draw:
    edge = bundle.preprocessing.base_voxels
    base = np.random.default_rng(2).normal(size=(3, edge, edge, edge)).astype(np.float32)
    return Draw(base, bundle.preprocessing, bundle.recipe, count=9, seed=5)


def images(model: OnnxModel, count: int) -> np.ndarray:
    shape = (count, *model.info.input_shape)
    return np.random.default_rng(8).normal(size=shape).astype(np.float32)


def test_passes_equal_the_plain_way_to_the_bit(model: OnnxModel, draw: Draw) -> None:
    taps = list(model.info.taps)[-2:]
    weights = {"logits": centred_logit(2, 6), taps[0]: np.ones(model.info.taps[taps[0]], "f")}
    names = ["logits", "scores", *taps, *(f"grad_{tap}" for tap in taps)]
    found, plain = model.passes(draw, names, weights), Composed.passes(model, draw, names, weights)
    assert list(found) == names
    for name in names:
        np.testing.assert_array_equal(found[name], plain[name], strict=True)


def test_gradients_of_some_taps_equal_those_of_all(model: OnnxModel) -> None:
    x = images(model, 3)
    weights = {"logits": np.eye(6, dtype=np.float32)[:3]}
    every = model.gradients(x, weights)
    for wanted in (["fc"], list(model.info.taps), ["input"], ["conv1", "input"]):
        found = model.gradients(x, weights, wanted)
        assert list(found) == wanted
        for name in wanted:
            np.testing.assert_array_equal(found[name], every[name], strict=True)
    assert model.gradients(x, weights, []) == {}


def gaps(found: np.ndarray, plain: np.ndarray) -> list[float]:
    flat = [v.reshape(len(v), -1).astype(float) for v in (found, plain)]
    return list(np.linalg.norm(flat[0] - flat[1], axis=1) / np.linalg.norm(flat[1], axis=1))


def test_paths_equal_the_plain_way(model: OnnxModel) -> None:
    x, *starts = images(model, 5)
    starts = [np.zeros_like(x), *starts]
    rng = np.random.default_rng(0)
    weights = {
        "logits": rng.normal(size=(5, 6)).astype(np.float32),
        "fc": rng.normal(size=(5, model.info.taps["fc"])).astype(np.float32),
    }
    line = Line(x, np.stack(starts), steps=11)
    found, plain = model.paths(line, weights), Composed.paths(model, line, weights)
    errors = gaps(found["gradient"], plain["gradient"])
    assert np.median(errors) <= 1e-5
    assert max(errors) <= 5e-3
    np.testing.assert_allclose(found["change"], plain["change"], rtol=1e-5, atol=1e-6)


def test_a_goal_alone_and_among_others_has_the_same_bits(model: OnnxModel) -> None:
    x, near, far = images(model, 3)
    starts = np.stack([near, far, near])
    weights = {"logits": np.eye(6, dtype=np.float32)[:3]}
    together = model.paths(Line(x, starts, 5), weights)
    for i in range(3):
        alone = model.paths(Line(x, starts[i : i + 1], 5), {"logits": weights["logits"][i : i + 1]})
        np.testing.assert_array_equal(together["gradient"][i], alone["gradient"][0])
        assert together["change"][i] == alone["change"][0]


def test_a_goal_on_the_first_block_goes_the_plain_way(model: OnnxModel) -> None:
    x, start = images(model, 2)
    weights = {"conv1": np.ones((1, model.info.taps["conv1"]), np.float32)}
    line = Line(x, start[None], 4)
    found, plain = model.paths(line, weights), Composed.paths(model, line, weights)
    np.testing.assert_array_equal(found["gradient"], plain["gradient"])
    assert np.abs(found["gradient"]).max() > 0


def test_parity_holds_the_short_ways_too(model: OnnxModel) -> None:
    assert model.check_parity()["paths"] < 1e-3


def test_a_network_without_pooling_is_split_behind_its_convolution(tmp_path: Path) -> None:
    from models.bundle.write import write_bundle

    write_bundle(tmp_path / "bundle", tiny_onnx.parts())
    model = load_model(tmp_path / "bundle")
    assert "paths" in model.check_parity()
    x, start = tiny_onnx.images(2, 7)
    weights = {"logits": np.eye(6, dtype=np.float32)[1:2], "conv1": np.ones((1, 5), np.float32)}
    line = Line(x, start[None], steps=64)
    found, plain = model.paths(line, weights), Composed.paths(model, line, weights)
    np.testing.assert_allclose(found["gradient"], plain["gradient"], rtol=1e-3, atol=1e-5)
    total = float((found["gradient"][0] * (x - start)).sum())
    assert total == pytest.approx(float(found["change"][0]), rel=0.05, abs=0.02)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda m, d, x: m.passes(d, ["nothing"], {}), "outputs"),
        (lambda m, d, x: m.passes(d, ["logits"], {"nothing": np.zeros(2, "f")}), "weights"),
        (
            lambda m, d, x: m.passes(d, ["grad_fc"], {"logits": np.zeros(2, "f")}),
            "weights.logits",
        ),
        (lambda m, d, x: m.paths(Line(x, x[None], 2), {"logits": np.zeros((2, 6), "f")}),
         "weights.logits"),
        (lambda m, d, x: m.paths(Line(x[:1], x[None], 2), {}), "x"),
        (lambda m, d, x: m.paths(Line(x, x[None, :1], 2), {}), "baselines"),
        (lambda m, d, x: m.gradients(x[None], {}, ["nothing"]), "wanted"),
    ],
)  # fmt: skip
def test_refusals(model: OnnxModel, draw: Draw, call, field: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as caught:
        call(model, draw, images(model, 1)[0])
    assert caught.value.field == field
