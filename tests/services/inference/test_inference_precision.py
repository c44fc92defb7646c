"""The precision of an answer: chosen by setting and by request, said in it, refused in one line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as oip

from models.bundle.precision import VariantModel, load_variant
from models.bundle.runtime import OnnxModel, load_model
from models.bundle.write import write_bundle
from models.reasons.predict import predict
from models.voi import extract
from models.volume import Box, Study
from services.common.remote import RemoteModel
from tests.models.bundle import tiny_onnx
from tests.support.front_server import Front, await_ready, free_port, start_front, stop
from tests.support.variants import REASON, add

pytestmark = pytest.mark.system
BOX = "8,8,4,20,20,10"
SET = "openvino-int8"  # what the service is set to


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with two variants that may serve and one that was refused."""
    folder = tmp_path_factory.mktemp("varied") / "bundle"
    write_bundle(folder, tiny_onnx.parts())
    add(folder, "int8")
    add(folder, SET)
    add(folder, "openvino-bf16", accepted=False)
    return folder


@pytest.fixture(scope="module")
def served(varied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    home, port = tmp_path_factory.mktemp("home"), free_port()
    process = start_front(varied, home, port, LESIONLENS_PRECISION=SET)
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process, home / "stderr.log")
        yield Front(url, varied, process, home / "stderr.log")
    finally:
        stop(process)


@pytest.fixture(scope="module")
def fp32(varied: Path) -> OnnxModel:
    return load_model(varied)


@pytest.fixture(scope="module")
def variants(fp32: OnnxModel) -> dict[str, VariantModel]:
    return {kind: load_variant(fp32.bundle, kind, fp32) for kind in ("int8", SET)}  # type: ignore[arg-type]


X = tiny_onnx.images(2, 5)


def ask(front: Front, model: str = "classifier", **parameters: object) -> httpx.Response:
    body = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": list(X.shape), "data": X.ravel().tolist()}
        ],
        "parameters": parameters,
    }
    return httpx.post(f"{front.url}/v2/models/{model}/infer", json=body, timeout=30)


def logits(answer: httpx.Response) -> np.ndarray:
    (found,) = (o for o in answer.json()["outputs"] if o["name"] == "logits")
    return np.array(found["data"], np.float32).reshape(found["shape"])


def test_the_setting_answers_and_a_request_may_choose(served, fp32, variants) -> None:
    expected = {None: variants[SET], SET: variants[SET], "int8": variants["int8"], "fp32": fp32}
    for asked, model in expected.items():
        answer = ask(served, **({} if asked is None else {"precision": asked}))
        assert answer.status_code == 200, answer.text
        assert answer.json()["parameters"]["precision"] == (asked or SET)
        np.testing.assert_allclose(
            logits(answer), model.forward(X, ["logits"])["logits"], rtol=1e-5, atol=1e-5
        )
    exact = fp32.forward(X, ["logits"])["logits"]
    assert np.abs(logits(ask(served)) - exact).max() > 1e-4  # integers answered


def test_the_protocols_own_client_may_choose(served: Front, variants) -> None:
    with oip.InferenceServerClient(served.url.removeprefix("http://")) as client:
        x = oip.InferInput("x", list(X.shape), "FP32").set_data_from_numpy(X)
        answer = client.infer("classifier", [x], parameters={"precision": "int8"})
    assert answer.get_response()["parameters"]["precision"] == "int8"
    expected = variants["int8"].forward(X, ["logits"])["logits"]
    np.testing.assert_allclose(answer.as_numpy("logits"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ("openvino-bf16", 422, REASON),
        ("openvino-fp32", 422, "has no variant 'openvino-fp32'"),
        ("int4", 422, "no such precision"),
        (8, 400, "not at this precision"),
    ],
)
def test_what_is_not_served_is_refused_with_the_reason(served, asked, status, says) -> None:
    answer = ask(served, precision=asked)
    assert answer.status_code == status
    problem = answer.json()
    assert problem["field"] == "precision"
    assert says in problem["detail"] + problem.get("found", "")
    assert "Traceback" not in answer.text


def test_gradients_are_fp32_and_say_so(served: Front, fp32: OnnxModel) -> None:
    answer = ask(served, "gradients")
    assert answer.json()["parameters"]["precision"] == "fp32"
    assert ask(served, "gradients", precision="fp32").status_code == 200
    refused = ask(served, "gradients", precision="int8")
    assert (refused.status_code, refused.json()["field"]) == (400, "precision")


def test_explanations_read_fp32_whatever_the_setting(served: Front, fp32: OnnxModel) -> None:
    remote = RemoteModel(served.url, bundle=fp32.info.bundle)
    for name, value in fp32.forward(X, ["logits", "fc"]).items():
        np.testing.assert_array_equal(remote.forward(X, [name])[name], value)


def test_a_prediction_says_its_precision(served: Front, files, volumes, fp32, variants) -> None:
    bundle = fp32.bundle
    lesion = extract(
        Study.make(volumes, Box.parse(BOX), bundle.manifest.phases), bundle.preprocessing
    )

    def asked(**fields: str) -> httpx.Response:
        return httpx.post(
            f"{served.url}/v1/predictions", files=files, data={"box": BOX, **fields}, timeout=30
        )

    default, exact = asked(), asked(precision="fp32")
    assert default.json()["precision"] == SET
    assert exact.json()["precision"] == "fp32"
    for answer, model in ((default, variants[SET]), (exact, fp32)):
        expected = predict(lesion, bundle, model)
        assert answer.json()["class_id"] == expected.class_id
        assert answer.json()["logits"] == pytest.approx(expected.logits, abs=1e-3)
    assert default.json()["logits"] != exact.json()["logits"]
    refused = asked(precision="openvino-bf16")
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("variant_refused")
    by_query = httpx.post(
        f"{served.url}/v1/predictions?precision=int8", files=files, data={"box": BOX}, timeout=30
    )
    assert by_query.json()["precision"] == "int8"


def test_a_service_set_to_a_refused_variant_does_not_start(varied: Path, tmp_path: Path) -> None:
    process = start_front(varied, tmp_path, free_port(), LESIONLENS_PRECISION="openvino-bf16")
    try:
        assert process.wait(120) == 2
    except subprocess.TimeoutExpired:
        pytest.fail("it started")
    finally:
        stop(process)
    said = (tmp_path / "stderr.log").read_text()
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("lesionlens:")]
    assert "refused" in line
    assert REASON in line
