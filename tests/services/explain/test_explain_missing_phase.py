"""A study without a phase, over the real routes of a job: refused by name, or explained."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import load_model
from models.bundle.write import write_bundle
from models.volume import Volume
from services.common.blobs import Blobs
from services.common.broker import Broker
from services.common.events import MemoryEvents
from services.common.ledger import Ledger
from services.common.problems import install
from services.common.settings import Settings
from services.explain.api import build_router
from services.explain.jobs import Jobs
from services.explain.runner import Runner
from tests.models.bundle import tiny_onnx
from tests.support.redis_servers import RedisServer

BOX = "8,8,4,20,20,10"
PARAMETERS = {"passes": "3", "map_steps": "2"}


class Site:
    """The routes of one bundle, and a worker."""

    def __init__(self, bundle: Bundle, server: RedisServer, home: Path) -> None:
        settings = Settings(_env_file=None, home=home, redis_url=server.url)
        self.bundle = bundle
        self.jobs = Jobs(
            settings,
            ledger=Ledger("sqlite://"),
            blobs=Blobs(f"memory://{uuid.uuid4().hex}"),
            events=MemoryEvents(),
            broker=Broker(settings),
        )
        app = FastAPI()
        app.include_router(
            build_router(lambda: bundle, {bundle.hash: bundle}.__getitem__, settings, self.jobs)
        )
        install(app)
        self.client = TestClient(app)

    def post(self, files: dict[str, Any]) -> Any:
        return self.client.post("/v1/explanations", files=files, data={"box": BOX, **PARAMETERS})

    def work(self, job_id: str) -> None:
        model = load_model(self.bundle, threads=1)
        Runner(
            lambda _: self.bundle,
            lambda _: model,
            ledger=self.jobs.ledger,
            blobs=self.jobs.blobs,
            events=self.jobs.events,
            attempts=3,
        ).run(job_id)


@pytest.fixture(
    scope="module", params=[(), ("portal_venous", "delayed")], ids=["strict", "lenient"]
)
def site(
    request: pytest.FixtureRequest,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("missing")
    write_bundle(home / "bundle", replace(tiny_onnx.parts(), optional_phases=request.param))
    site = Site(read_bundle(home / "bundle"), redis_server, home)
    with site.client:
        yield site


def test_a_job_without_a_late_phase(
    site: Site, files: dict[str, Any], volumes: dict[str, Volume]
) -> None:
    answer = site.post({p: f for p, f in files.items() if p != "delayed"})
    if not site.bundle.manifest.optional_phases:
        assert answer.status_code == 422
        problem = answer.json()
        assert problem["type"] == "urn:lesionlens:problem:missing_phase"
        assert problem["field"] == "delayed"
        assert "not trained with phase dropout" in problem["expected"]
        return
    assert answer.status_code == 202, answer.text
    whole = site.post(files)
    assert whole.json()["id"] != answer.json()["id"]
    site.work(answer.json()["id"])
    done = site.client.get(answer.json()["links"]["self"]).json()
    assert done["state"] == "done", done
    document = done["result"]
    assert document["lesion"]["missing_phases"] == ["delayed"]
    assert "phase_missing" in [c["code"] for c in document["cautions"]]
    report = site.client.get(done["links"]["report"]).text
    assert ">not acquired</span>" in report


def test_the_first_phase_is_always_needed(site: Site, files: dict[str, Any]) -> None:
    answer = site.post({p: f for p, f in files.items() if p != "arterial"})
    assert answer.status_code == 422
    assert answer.json()["field"] == "arterial"
