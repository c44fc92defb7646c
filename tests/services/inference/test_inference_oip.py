"""Open Inference Protocol v2: the real client against the real process."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.http as oip
from tritonclient.utils import InferenceServerException

from models.bundle.runtime import OnnxModel, load_model
from models.errors import TooLarge
from services.inference.core import MAX_BATCH, check_inputs

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def client(front) -> Iterator[oip.InferenceServerClient]:
    with oip.InferenceServerClient(front.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def model(tiny_bundle) -> OnnxModel:
    return load_model(tiny_bundle)


@pytest.fixture(scope="module")
def x(model: OnnxModel) -> np.ndarray:
    shape = (2, *model.info.input_shape)
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def _input(name: str, value: np.ndarray, binary: bool) -> oip.InferInput:
    return oip.InferInput(name, list(value.shape), "FP32").set_data_from_numpy(value, binary)


def test_health_and_metadata(client: oip.InferenceServerClient, model: OnnxModel) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("classifier", "1")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["name"] == "lesionlens"
    assert {m["name"] for m in client.get_model_repository_index()} == {
        "classifier",
        "gradients",
        "passes",
        "paths",
    }
    found = client.get_model_metadata("classifier", "1")
    assert found["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, *model.info.input_shape]}
    ]
    assert found["parameters"]["bundle"] == model.info.bundle
    assert [o["name"] for o in found["outputs"]] == model.outputs
    shapes = {o["name"]: o["shape"] for o in found["outputs"]}
    assert shapes["logits"] == [-1, len(model.info.classes)]
    for tap, length in model.info.taps.items():
        assert shapes[tap] == [-1, length]
    config = client.get_model_config("gradients")
    assert {i["name"] for i in config["input"]} >= {"x", "w_logits", "w_fc"}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_every_output_json_and_binary(
    client: oip.InferenceServerClient,
    model: OnnxModel,
    x: np.ndarray,
    binary_in: bool,
    binary_out: bool,
) -> None:
    wanted = [oip.InferRequestedOutput(name, binary_data=binary_out) for name in model.outputs]
    result = client.infer(
        "classifier", [_input("x", x, binary_in)], outputs=wanted, request_id="r-1"
    )
    assert result.get_response()["id"] == "r-1"
    for name, expected in model.forward(x, model.outputs).items():
        np.testing.assert_array_equal(result.as_numpy(name), expected, strict=True)


def test_without_outputs_scores_and_logits(
    client: oip.InferenceServerClient, model: OnnxModel, x: np.ndarray
) -> None:
    result = client.infer("classifier", [_input("x", x, True)])
    assert {o["name"] for o in result.get_response()["outputs"]} == {"scores", "logits"}
    np.testing.assert_allclose(result.as_numpy("scores").sum(axis=1), 1, atol=1e-5)


def test_only_what_is_asked(client: oip.InferenceServerClient, x: np.ndarray) -> None:
    wanted = [oip.InferRequestedOutput("fc", binary_data=True)]
    result = client.infer("classifier", [_input("x", x, True)], model_version="1", outputs=wanted)
    assert [o["name"] for o in result.get_response()["outputs"]] == ["fc"]


@pytest.mark.parametrize("binary", [True, False])
def test_gradients(
    client: oip.InferenceServerClient, model: OnnxModel, x: np.ndarray, binary: bool
) -> None:
    weights = {"logits": np.eye(len(model.info.classes), dtype=np.float32)[:2]}
    expected = model.gradients(x, weights)
    wanted = [
        oip.InferRequestedOutput(name, binary_data=binary) for name in ("grad_input", "grad_fc")
    ]
    inputs = [_input("x", x, binary), _input("w_logits", weights["logits"], binary)]
    result = client.infer("gradients", inputs, outputs=wanted)
    np.testing.assert_array_equal(result.as_numpy("grad_input"), expected["input"], strict=True)
    np.testing.assert_array_equal(result.as_numpy("grad_fc"), expected["fc"], strict=True)
    assert np.abs(expected["input"]).max() > 0


@pytest.mark.parametrize(
    ("model_name", "change", "message", "status"),
    [
        ("classifier", {"name": "y"}, "no such input", "400"),
        ("classifier", {"axes": 3}, "wrong shape", "400"),
        ("classifier", {"nan": True}, "NaN", "400"),
        ("classifier", {"output": "nope"}, "no such output", "400"),
        ("nothing", {}, "no such model", "404"),
        ("gradients", {"output": "scores"}, "no such output", "400"),
    ],
)
def test_errors_reach_the_client_in_words(
    client: oip.InferenceServerClient,
    x: np.ndarray,
    model_name: str,
    change: dict,
    message: str,
    status: str,
) -> None:
    value = x[:, :1] if "axes" in change else x
    value = value * np.float32(np.nan) if "nan" in change else value
    wanted = [oip.InferRequestedOutput(change["output"])] if "output" in change else None
    with pytest.raises(InferenceServerException, match=message) as caught:
        client.infer(model_name, [_input(change.get("name", "x"), value, True)], outputs=wanted)
    assert caught.value.status() == status


def test_terms_as_the_real_client_sends_them(
    client: oip.InferenceServerClient, x: np.ndarray
) -> None:
    inputs = [_input("x", x, True)]
    assert "schedule_policy" in client.get_server_metadata()["extensions"]
    result = client.infer("classifier", inputs, priority=1, timeout=60_000_000)
    assert result.as_numpy("scores") is not None
    with pytest.raises(InferenceServerException, match="no such priority") as refused:
        client.infer("classifier", inputs, priority=9)
    assert refused.value.status() == "400"
    with pytest.raises(InferenceServerException, match="deadline") as late:
        client.infer("classifier", inputs, timeout=1)  # a microsecond
    assert late.value.status() == "504"


def test_errors_have_the_protocols_form(front) -> None:
    for path, body, status in [
        ("/v2/models/classifier/infer", b"no json", 400),
        ("/v2/models/classifier/versions/2/infer", b"{}", 404),
        ("/v2/nothing", b"", 404),
    ]:
        answer = httpx.post(front.url + path, content=body)
        assert answer.status_code == status
        assert isinstance(answer.json()["error"], str)
        assert answer.json()["type"].startswith("urn:lesionlens:problem:")
    answer = httpx.get(front.url + "/v2/models/classifier/infer")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert "not allowed" in answer.json()["error"]


def test_the_batch_is_bounded() -> None:
    known = {"x": [-1, 1]}
    check_inputs({"x": np.zeros((MAX_BATCH, 1), np.float32)}, known, ["x"])
    with pytest.raises(TooLarge) as caught:
        check_inputs({"x": np.zeros((MAX_BATCH + 1, 1), np.float32)}, known, ["x"])
    assert caught.value.field == "x"
