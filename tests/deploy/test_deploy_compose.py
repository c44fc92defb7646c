"""The shipped docker-compose.yml: built, up, healthy, and one lesion through it over HTTP."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from deploy_report import Report
from deploy_stack import OURS, Stack

from models.cohort.format import Cohort, read_cohort
from wire.cohort import CohortLesion

pytestmark = [pytest.mark.deploy, pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Any) -> Cohort:
    return tiny_cohort if isinstance(tiny_cohort, Cohort) else read_cohort(Path(tiny_cohort))


@pytest.fixture(scope="module")
def lesion(cohort: Cohort) -> CohortLesion:
    return cohort.lesions("test")[0]


@pytest.fixture(scope="module")
def manifest(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stack.bundle / "manifest.json").read_text("utf-8"))
    return found


def _study(cohort: Cohort, lesion: CohortLesion) -> dict[str, Any]:
    """A multipart body: one NIfTI a phase, and a box a phase."""
    files = {}
    for phase in cohort.file.phases:
        path = cohort.root / lesion.image[phase]
        files[phase] = (path.name, path.read_bytes(), "application/octet-stream")
    boxes = {
        f"box.{phase}": ",".join(str(v) for corner in lesion.voi[phase] for v in corner)
        for phase in cohort.file.phases
    }
    return {"files": files, "data": boxes}


def test_every_service_is_healthy(stack: Stack) -> None:
    for service in ("redis", *OURS):
        assert stack.inspect(service)["State"]["Health"]["Status"] == "healthy", service


@pytest.mark.parametrize("service", OURS)
def test_image_has_no_torch(stack: Stack, service: str) -> None:
    done = stack.run_python(service, "import torch")
    assert done.returncode != 0
    assert "No module named 'torch'" in done.stderr


def test_prediction(
    stack: Stack,
    cohort: Cohort,
    lesion: CohortLesion,
    manifest: dict[str, Any],
    deploy_report: Report,
) -> None:
    start = time.monotonic()
    answer = httpx.post(f"{stack.url}/v1/predictions", **_study(cohort, lesion), timeout=60)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["synthetic"] is True
    assert {p["id"] for p in found["probabilities"]} == set(cohort.file.classes)
    assert sum(p["probability"] for p in found["probabilities"]) == pytest.approx(1, abs=1e-3)
    assert found["bundle"] == manifest["hash"]
    deploy_report.add(seconds={"prediction": time.monotonic() - start})


def test_explanation(
    stack: Stack,
    cohort: Cohort,
    lesion: CohortLesion,
    manifest: dict[str, Any],
    deploy_report: Report,
) -> None:
    """202, then done by the worker in its own container, from activations asked of inference."""
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        study = _study(cohort, lesion)
        study["data"] |= {"passes": "4", "map_steps": "4"}
        accepted = client.post("/v1/explanations", **study)
        assert accepted.status_code == 202, accepted.text
        where = accepted.headers["location"]
        job = accepted.json()
        end = time.monotonic() + 120
        while job["state"] in ("queued", "running"):
            assert time.monotonic() < end, job
            time.sleep(0.3)
            job = client.get(where).json()
        assert job["state"] == "done", job.get("error")
        assert job["result"]["provenance"]["bundle"] == manifest["hash"]
        report = client.get(job["links"]["report"])
        assert report.status_code == 200
        assert "synthetic" in report.text
        again = client.post("/v1/explanations", **study)
        assert again.status_code == 200, "the same explanation is computed once"
        assert again.json()["id"] == job["id"]
    deploy_report.add(
        job={"id": job["id"], "state": job["state"], "seconds": job["seconds"]},
    )


@pytest.mark.parametrize("service", ["redis", *OURS])
def test_container_is_confined(stack: Stack, service: str) -> None:
    found = stack.inspect(service)
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert not host["Privileged"]
    assert host["Memory"] > 0
    assert found["Config"]["User"].split(":")[0] not in ("", "0", "root")


@pytest.mark.parametrize("service", OURS)
def test_writes_only_state_and_tmp(stack: Stack, service: str) -> None:
    code = """
import os
from pathlib import Path
assert os.getuid() != 0
expected = dict.fromkeys(("/", "/opt/app", "/opt/venv", "/bundle"), False)
expected |= {"/data": True, "/tmp": True}
for folder, writable in expected.items():
    probe = Path(folder, ".probe")
    try:
        probe.write_text("x")
        probe.unlink()
        found = True
    except OSError:
        found = False
    assert found == writable, folder
"""
    done = stack.run_python(service, code)
    assert done.returncode == 0, done.stderr


def test_server_keeps_its_own_files_apart(stack: Stack) -> None:
    """The chart gives each replica this folder of its own: it must be the one that is used."""
    code = "import os; assert os.listdir('/data/front-3000')"
    done = stack.run_python("inference", code)
    assert done.returncode == 0, done.stderr


def test_only_inference_is_reachable_from_outside(stack: Stack) -> None:
    networks = {}
    for service in ("redis", *OURS):
        found = stack.inspect(service)["NetworkSettings"]
        networks[service] = set(found["Networks"])
        published = [b["HostIp"] for bindings in found["Ports"].values() for b in bindings or []]
        # HTTP and gRPC
        assert published == (["127.0.0.1"] * 2 if service == "inference" else []), service
    backend = f"{stack.project}_backend"
    assert networks["redis"] == networks["worker"] == {backend}
    network = stack.engine.docker("network", "inspect", "--format", "{{.Internal}}", backend)
    assert network.stdout.strip() == "true"
