"""POST /v1/predictions without a phase, on the real process with a bundle that allows it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.bundle.write import write_bundle
from models.reasons.predict import predict
from models.voi import extract
from models.volume import Box, Study, Volume
from tests.models.bundle import tiny_onnx
from tests.support.front_server import await_ready, free_port, start_front, stop

pytestmark = pytest.mark.system
BOX = "8,8,4,20,20,10"
PHASES = ("arterial", "portal_venous", "delayed")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lenient") / "bundle"
    write_bundle(folder, replace(tiny_onnx.parts(), optional_phases=PHASES[1:]))
    return folder


@pytest.fixture(scope="module")
def http(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home, port = tmp_path_factory.mktemp("front-lenient"), free_port()
    process = start_front(bundle, home, port)
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process, home / "stderr.log")
        with httpx.Client(base_url=url, timeout=30) as client:
            yield client
    finally:
        stop(process)


def test_every_form_gives_the_librarys_answer(
    http: httpx.Client, bundle: Path, files: dict[str, Any], volumes: dict[str, Volume]
) -> None:
    opened = read_bundle(bundle)
    two = {p: files[p] for p in ("arterial", "delayed")}
    study = Study.make({p: volumes[p] for p in two}, Box.parse(BOX), PHASES, PHASES[1:])
    lesion = extract(study, opened.preprocessing)
    expected = predict(lesion, opened, load_model(opened)).model_dump(mode="json")
    buffer = io.BytesIO()
    np.save(buffer, np.stack([volumes[p].data for p in two]))
    answers = {
        "form": http.post("/v1/predictions", files=two, data={"box": BOX}),
        "npy": http.post(
            "/v1/predictions",
            params={"spacing": "1.5,1.5,3", "box": BOX, "phases": "arterial,delayed"},
            content=buffer.getvalue(),
            headers={"content-type": "application/x-npy"},
        ),
        "json": http.post(
            "/v1/predictions",
            json={
                "phases": {p: {"nifti": base64.b64encode(f[1]).decode()} for p, f in two.items()},
                "box": BOX,
            },
        ),
    }
    for form, answer in answers.items():
        assert answer.status_code == 200, (form, answer.text)
        assert answer.json() == expected, form
    (caution,) = [c for c in expected["cautions"] if c["code"] == "phase_missing"]
    assert caution["text"].startswith("The portal venous phase was not acquired.")


def test_the_first_phase_is_required(http: httpx.Client, files: dict[str, Any]) -> None:
    two = {p: f for p, f in files.items() if p != "arterial"}
    answer = http.post("/v1/predictions", files=two, data={"box": BOX})
    assert answer.status_code == 422
    assert answer.json()["field"] == "arterial"


def test_openapi_requires_only_what_is_required(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    for path, extra in (("/v1/predictions", set()), ("/v1/explanations", {"box"})):
        content = paths[path]["post"]["requestBody"]["content"]
        form = content["multipart/form-data"]["schema"]
        assert set(form["required"]) == {"arterial"} | extra
        assert set(form["properties"]) >= set(PHASES)
    names = [p["name"] for p in paths["/v1/predictions"]["post"]["parameters"]]
    assert "phases" in names
