"""`passes` and `paths` as served models: one request a recipe, and clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.http as oip
from tritonclient.utils import InferenceServerException

from models.bundle.read import read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.recipes import Draw, Line
from tests.support.front_server import Front

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def model(front: Front) -> OnnxModel:
    return load_model(front.bundle)


@pytest.fixture
def client(front: Front) -> oip.InferenceServerClient:
    return oip.InferenceServerClient(front.url.removeprefix("http://"))


def tensor(name: str, value: np.ndarray) -> oip.InferInput:
    held = oip.InferInput(name, list(value.shape), "FP32")
    held.set_data_from_numpy(np.ascontiguousarray(value, np.float32), binary_data=True)
    return held


def base_of(model: OnnxModel) -> np.ndarray:
    edge = read_bundle(model.bundle.path).preprocessing.base_voxels  # type: ignore[attr-defined]
    shape = (1, model.info.input_shape[0], edge, edge, edge)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def images(model: OnnxModel, count: int) -> np.ndarray:
    shape = (count, *model.info.input_shape)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_metadata_tells_shapes_and_the_recipe(client: oip.InferenceServerClient) -> None:
    inputs = {i["name"]: i["shape"] for i in client.get_model_metadata("passes")["inputs"]}
    assert inputs["base"][0] == inputs["w_logits"][0] == 1
    outputs = {o["name"] for o in client.get_model_metadata("passes")["outputs"]}
    assert {"logits", "fc", "grad_fc"} <= outputs
    assert "grad_input" not in outputs
    config = client.get_model_config("paths")
    assert {"preprocessing", "passes"} <= set(config["parameters"])


def test_passes_in_one_request(client: oip.InferenceServerClient, model: OnnxModel) -> None:
    base, weights = base_of(model), np.linspace(-1, 1, 6, dtype=np.float32)
    wanted = [oip.InferRequestedOutput(n, binary_data=True) for n in ("logits", "grad_fc")]
    result = client.infer(
        "passes",
        [tensor("base", base), tensor("w_logits", weights[None])],
        outputs=wanted,
        parameters={"count": 6, "seed": 9, "first": 2},
    )
    bundle = model.bundle
    draw = Draw(base[0], bundle.preprocessing, bundle.recipe, 6, 9, 2)  # type: ignore[attr-defined]
    expected = model.passes(draw, ["logits", "grad_fc"], {"logits": weights})
    for name, value in expected.items():
        np.testing.assert_array_equal(result.as_numpy(name), value, strict=True)


def test_a_path_without_a_comparison_starts_at_zero(
    client: oip.InferenceServerClient, model: OnnxModel
) -> None:
    x = images(model, 1)
    weights = np.eye(6, dtype=np.float32)[:2]
    result = client.infer(
        "paths", [tensor("x", x), tensor("w_logits", weights)], parameters={"steps": 4}
    )
    line = Line(x[0], np.zeros((2, *x.shape[1:]), np.float32), 4)
    expected = model.paths(line, {"logits": weights})
    np.testing.assert_array_equal(result.as_numpy("gradient"), expected["gradient"])
    np.testing.assert_array_equal(result.as_numpy("change")[:, 0], expected["change"])


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [
        ("passes", {"seed": 0}, "parameters.count"),
        ("passes", {"count": 0, "seed": 0}, "parameters.count"),
        ("passes", {"count": 257, "seed": 0}, "parameters.count"),
        ("passes", {"count": 2, "seed": -1}, "parameters.seed"),
        ("passes", {"count": "many", "seed": 0}, "parameters.count"),
        ("passes", {"count": True, "seed": 0}, "parameters.count"),
        ("paths", {}, "parameters.steps"),
        ("paths", {"steps": 100_000}, "parameters.steps"),
        ("paths", {"steps": 4, "first": 4}, "parameters.first"),
        ("paths", {"steps": 4, "first": 2, "count": 3}, "parameters.count"),
    ],
)
def test_parameters_out_of_bounds(
    client: oip.InferenceServerClient, model: OnnxModel, name: str, parameters: dict, field: str
) -> None:
    weights = tensor("w_logits", np.zeros((1, 6), np.float32))
    first = tensor("base", base_of(model)) if name == "passes" else tensor("x", images(model, 1))
    with pytest.raises(InferenceServerException) as caught:
        client.infer(name, [first, weights], parameters=parameters or None)
    assert caught.value.status() == "400"
    assert field in caught.value.message()


def test_too_much_for_one_request(client: oip.InferenceServerClient, model: OnnxModel) -> None:
    goals = tensor("w_logits", np.zeros((5, 6), np.float32))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("paths", [tensor("x", images(model, 1)), goals], parameters={"steps": 128})
    assert caught.value.status() == "413"
    assert "goals times points <= 256" in caught.value.message()


def test_rows_that_do_not_fit(client: oip.InferenceServerClient, model: OnnxModel) -> None:
    goals = tensor("w_logits", np.zeros((2, 6), np.float32))
    three = tensor("baseline", images(model, 3))
    for inputs, text in (
        ([tensor("x", images(model, 2)), goals], "wrong shape"),
        ([tensor("x", images(model, 1)), goals, three], "batch sizes differ"),
        ([tensor("x", images(model, 1))], "no target"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            client.infer("paths", inputs, parameters={"steps": 2})
        assert caught.value.status() == "400"
        assert text in caught.value.message()
