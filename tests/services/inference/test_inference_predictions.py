"""POST /v1/predictions on the real process: every form, every kind of bad input, the queue."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.cohort.nifti import nifti_bytes
from models.reasons.predict import predict
from models.voi import extract
from models.volume import Box, Study, Volume
from services.common.settings import Settings

pytestmark = pytest.mark.system
BOX = "8,8,4,20,20,10"
PHASES = ("arterial", "portal_venous", "delayed")


@pytest.fixture(scope="module")
def http(front) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=front.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def expected(tiny_bundle, volumes) -> dict[str, Any]:
    """What the library says in this process."""
    bundle = read_bundle(tiny_bundle)
    study = Study.make(volumes, Box.parse(BOX), bundle.manifest.phases)
    lesion = extract(study, bundle.preprocessing)
    return predict(lesion, bundle, load_model(bundle), ["fc"]).model_dump(mode="json")


def test_every_form_gives_the_librarys_answer(http, files, volumes, expected) -> None:
    answers = {
        "form": http.post("/v1/predictions", files=files, data={"box": BOX, "activations": "fc"}),
        "npy": http.post(
            "/v1/predictions",
            params={"spacing": "1.5,1.5,3", "box": BOX, "activations": "fc"},
            content=_npy(np.stack([volumes[p].data for p in PHASES])),
            headers={"content-type": "application/x-npy"},
        ),
        "json": http.post(
            "/v1/predictions",
            json={
                "phases": {p: {"nifti": base64.b64encode(f[1]).decode()} for p, f in files.items()},
                "box": [[8, 8, 4], [20, 20, 10]],
                "activations": ["fc"],
            },
        ),
    }
    for form, answer in answers.items():
        assert answer.status_code == 200, (form, answer.text)
        assert answer.json() == expected, form
    assert len(expected["activations"]["fc"]) > 0
    assert sum(p["probability"] for p in expected["probabilities"]) == pytest.approx(1, abs=1e-3)


def test_another_lesion_gets_another_answer(http, volumes, expected) -> None:
    other = {p: Volume(v.data[::-1].copy() ** 1.2, v.affine) for p, v in volumes.items()}
    parts = {p: (p, nifti_bytes(v), "application/gzip") for p, v in other.items()}
    answer = http.post("/v1/predictions", files=parts, data={"box": BOX})
    assert answer.json()["logits"] != expected["logits"]
    assert answer.json()["activations"] == {}


def test_models_and_features(http, tiny_bundle) -> None:
    bundle = read_bundle(tiny_bundle)
    (model,) = http.get("/v1/models").json()["models"]
    assert model["manifest"] == bundle.manifest.model_dump(mode="json")
    assert model["card"] == bundle.card
    found = http.get("/v1/features").json()
    assert found["bundle"] == bundle.hash
    assert [f["id"] for f in found["features"]] == bundle.vocabulary.feature_ids
    assert all(set(f["quality"]) >= {"auroc", "ci", "n_present"} for f in found["features"])


def _problem(answer: httpx.Response, status: int, code: str, field: str | None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:lesionlens:problem:{code}"
    assert problem["status"] == status
    assert problem["detail"]
    assert "\n" not in problem["detail"]
    assert "Traceback" not in answer.text
    assert problem.get("field") == field
    return problem


def _nan(volumes: dict[str, Volume]) -> bytes:
    data = volumes["delayed"].data.copy()
    data[1, 2, 3] = np.nan
    return nifti_bytes(Volume(data, volumes["delayed"].affine))


@pytest.mark.parametrize(
    ("make", "status", "code", "field"),
    [
        (lambda f, v: {"delayed": None}, 422, "missing_phase", "delayed"),
        (lambda f, v: {"box": None}, 422, "wrong_box", "box"),
        (lambda f, v: {"box": "8,8,4,20,20,99"}, 422, "box_outside", "box"),
        (lambda f, v: {"activations": "fc,nothing"}, 422, "unknown_tap", "activations"),
        (lambda f, v: {"delayed": ("d", _nan(v))}, 422, "not_finite", "delayed"),
        (lambda f, v: {"delayed": ("d", b"no nifti" * 90)}, 422, "not_nifti", "delayed"),
        (lambda f, v: {"delayed": ("d", f["delayed"][1][:-99])}, 422, "truncated", "delayed"),
        (lambda f, v: {"delayed": ("d", pickle.dumps(v["delayed"].data))}, 415,
         "unsupported_media_type", "delayed"),
        (lambda f, v: {"delayed": ("d", f["delayed"][1], "application/x-pickle")}, 415,
         "unsupported_media_type", "delayed"),
    ],
)  # fmt: skip
def test_bad_forms(http, files, volumes, make, status, code, field) -> None:
    fields = {**files, "box": (None, BOX)} | make(files, volumes)
    parts = {k: (None, v) if isinstance(v, str) else v for k, v in fields.items() if v is not None}
    _problem(http.post("/v1/predictions", files=parts), status, code, field)


def test_wrong_shape(http) -> None:
    answer = http.post(
        "/v1/predictions",
        params={"spacing": "1,1,1", "box": BOX},
        content=_npy(np.zeros((2, 9, 9, 9), np.float32)),
        headers={"content-type": "application/x-npy"},
    )
    problem = _problem(answer, 422, "wrong_shape", "body")
    assert "(2, 9, 9, 9)" in problem["found"]
    assert "arterial" in problem["expected"]


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.bentoml+pickle",
        "application/x-pickle",
        "application/python-pickle",
        "application/pickle",
        "application/x-python-pickle",
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/predictions", "/v1/explanations", "/v2/models/classifier/infer", "/", "/predict"]
)
def test_pickle_is_refused_everywhere(http, kind: str, path: str) -> None:
    bomb = b"cos\nsystem\n(S'touch /tmp/lesionlens-pickle-ran'\ntR."
    answer = http.post(path, content=bomb, headers={"content-type": kind, "Payload-Container": "x"})
    _problem(answer, 415, "unsupported_media_type", "body")
    assert not Path("/tmp/lesionlens-pickle-ran").exists()


def _worker_memory(front) -> int:
    """Resident bytes of the server's processes."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in front.children()]
    return sum(pages) * os.sysconf("SC_PAGESIZE")


def test_two_gigabytes_declared(front) -> None:
    """Refused by Content-Length alone: the answer comes before the body."""
    import socket

    host, port = front.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 2147483648\r\n\r\n--b\r\n"
        )
        start, answer = time.monotonic(), b""
        while not answer.endswith(b"}"):
            answer += raw.recv(65536)
        assert time.monotonic() - start < 5
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"urn:lesionlens:problem:too_large" in answer


@pytest.mark.parametrize("declared", [True, False])
def test_two_gigabytes_sent(front, declared: bool) -> None:
    """A client that really sends gets a 413, and the server's memory stays flat."""
    before, total, sent = _worker_memory(front), 2 << 30, 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        head = b'--b\r\nContent-Disposition: form-data; name="arterial"; filename="a"\r\n\r\n'
        yield head + b"x" * ((1 << 20) - len(head))
        while sent < total - (1 << 20):
            sent += 1 << 20
            yield b"x" * (1 << 20)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    if declared:
        headers["content-length"] = str(total)
    try:
        answer = httpx.post(
            f"{front.url}/v1/predictions", content=body(), headers=headers, timeout=60
        )
        _problem(answer, 413, "too_large", "body")
    except httpx.TransportError:  # a client that writes on after the answer may see a reset
        assert sent < total - (1 << 20)
    assert _worker_memory(front) - before < 64 << 20
    assert httpx.get(f"{front.url}/readyz").status_code == 200


def test_a_truncated_request_leaves_the_server_well(front) -> None:
    import socket

    host, port = front.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n"
            b"Content-Type: application/x-npy\r\n\r\nabc"
        )
    assert httpx.get(f"{front.url}/readyz").status_code == 200


def test_health_answers_while_predictions_run(front, files) -> None:
    """The event loop is not where the work is done."""
    slowest = 0.0
    done = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=60) as client:
            while not done.is_set():
                client.post(f"{front.url}/v1/predictions", files=files, data={"box": BOX})

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with httpx.Client(timeout=30) as client:
            client.get(f"{front.url}/livez")
            for _ in range(20):
                start = time.monotonic()
                assert client.get(f"{front.url}/v2/health/live").status_code == 200
                slowest = max(slowest, time.monotonic() - start)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert slowest < 2


def test_a_full_queue_refuses_at_once(tiny_bundle, tmp_path, files) -> None:
    """Not ready, then places run out: 503 with Retry-After; they are given back."""
    from services.front.app import create_app

    settings = Settings(_env_file=None, home=tmp_path, bundle=tiny_bundle, sessions=1, queue=1)
    app = create_app(read_bundle(tiny_bundle), settings)
    fleet = app.fleet

    async def whole() -> None:
        _problem(await _post(app, files), 503, "not_ready", None)
        await fleet.load()
        try:
            with fleet.admit(), fleet.admit():
                answer = await _post(app, files)
                _problem(answer, 503, "queue_full", None)
                assert int(answer.headers["retry-after"]) >= 1
            assert (await _post(app, files)).status_code == 200
        finally:
            await fleet.close()
        _problem(await _post(app, files), 503, "not_ready", None)

    asyncio.run(whole())


async def _post(app: Any, files: dict[str, Any]) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post("/v1/predictions", files=files, data={"box": BOX})


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_json_of_a_problem_is_one_document(http) -> None:
    answer = http.get("/v1/nothing")
    problem = _problem(answer, 404, "not_found", None)
    assert json.loads(answer.text) == problem
    answer = http.put("/v1/predictions")
    problem = _problem(answer, 405, "method_not_allowed", None)
    assert problem["expected"] == "POST"
