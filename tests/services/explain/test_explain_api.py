"""The routes over a real app and queue, with nobody at work: what a client sees of each state."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import redis
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.bundle.read import Bundle
from models.bundle.runtime import load_model
from models.model import Model
from models.reasons.explain import maps_from_bytes
from services.common.blobs import Blobs
from services.common.broker import Broker
from services.common.events import MemoryEvents
from services.common.ledger import Ledger
from services.common.problems import install
from services.common.settings import Settings
from services.explain.api import build_router, request_of
from services.explain.jobs import Jobs
from services.explain.runner import Runner
from tests.support import lesions
from tests.support.redis_servers import RedisServer
from wire.api import ExplanationParameters, JobStatus


class Site:
    """A client of the routes, and the parts behind them."""

    def __init__(
        self, bundle: Bundle, server: RedisServer, home: Path, form: tuple[Any, Any]
    ) -> None:
        self.files, self.box = form
        self.jobs = Jobs(
            settings := Settings(home=home, redis_url=server.url),
            ledger=Ledger("sqlite://"),
            blobs=Blobs(f"memory://{uuid.uuid4().hex}"),
            events=MemoryEvents(),
            broker=Broker(settings),
        )
        self.bundle = bundle
        app = FastAPI()
        app.include_router(
            build_router(lambda: bundle, {bundle.hash: bundle}.__getitem__, settings, self.jobs)
        )
        install(app)
        self.client = TestClient(app)

    def post(self, **fields: str) -> Any:
        data = self.box | {"passes": "3", "map_steps": "2"} | fields
        return self.client.post("/v1/explanations", files=self.files, data=data)

    def work(self, job_id: str, model: Model) -> None:
        """What a worker does, here and now."""
        Runner(
            lambda _: self.bundle,
            lambda _: model,
            ledger=self.jobs.ledger,
            blobs=self.jobs.blobs,
            events=self.jobs.events,
            attempts=3,
        ).run(job_id)


@pytest.fixture(scope="module")
def form(tiny_cohort: Path, bundle: Bundle) -> tuple[Any, Any]:
    return lesions.upload(tiny_cohort, bundle.manifest.phases)


@pytest.fixture
def site(
    bundle: Bundle, redis_server: RedisServer, tmp_path: Path, form: tuple[Any, Any]
) -> Iterator[Site]:
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    client.close()
    site = Site(bundle, redis_server, tmp_path, form)
    with site.client:  # runs the lifespan, so the reconciler too
        yield site


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return load_model(bundle, threads=1)


def sse(text: str) -> list[dict[str, str]]:
    """Parsed server-sent events; comments and 'retry' are left out."""
    events = []
    for block in text.split("\n\n"):
        lines = [line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")]
        fields = dict(line for line in lines if len(line) == 2)
        if "event" in fields:
            events.append(fields)
    return events


def test_accepted_then_done(site: Site, model: Model) -> None:
    accepted = site.post()
    assert accepted.status_code == 202
    status = JobStatus.model_validate(accepted.json())
    assert accepted.headers["Location"] == status.links.self == f"/v1/explanations/{status.id}"
    assert (status.state, status.result) == ("queued", None)
    assert site.post().json()["id"] == status.id

    for path in ("/document", "/report.html", "/maps", "/maps/class/x.nii.gz"):
        early = site.client.get(status.links.self + path)
        assert early.status_code == 409
        assert early.json()["type"] == "urn:lesionlens:problem:not_done"

    site.work(status.id, model)
    again = site.post()
    assert again.status_code == 200
    done = JobStatus.model_validate(again.json())
    assert done == JobStatus.model_validate(site.client.get(status.links.self).json())
    assert done.state == "done"
    assert done.seconds is not None
    assert done.result is not None
    document = site.client.get(status.links.self + "/document")
    assert json.loads(document.content) == done.result
    report = site.client.get(status.links.report)
    assert report.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in report.headers["content-security-policy"]

    maps = maps_from_bytes(site.client.get(status.links.maps).content)
    assert sorted(maps) == sorted(m["name"] for m in done.result["maps"])
    for name, array in maps.items():
        answer = site.client.get(f"{status.links.maps}/{name}.nii.gz")
        image = nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))
        np.testing.assert_array_equal(np.moveaxis(np.asarray(image.dataobj), -1, 0), array)
        edge = done.result["lesion"]["mm_per_voxel"] * 2
        np.testing.assert_allclose(image.header.get_zooms()[:3], edge, rtol=1e-2)
        centre = image.affine @ [*((np.array(array.shape[1:]) - 1) / 2), 1]
        np.testing.assert_allclose(centre[:3], 0, atol=1e-4)
    wrong = site.client.get(f"{status.links.maps}/class/nothing.nii.gz")
    assert wrong.status_code == 404
    assert wrong.json()["expected"]

    refused = site.client.delete(status.links.self)
    assert refused.status_code == 409
    assert site.client.get(status.links.self).json()["state"] == "done"


def test_events_until_the_end_and_resumed(site: Site, model: Model) -> None:
    status = site.post().json()
    site.work(status["id"], model)
    answer = site.client.get(status["links"]["events"])
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = sse(answer.text)
    states = [json.loads(e["data"])["state"] for e in events]
    assert states[0] == "queued"
    assert states[-1] == "done"
    assert "progress" in {e["event"] for e in events}
    fractions = [json.loads(e["data"])["progress"] for e in events]
    assert fractions == sorted(fractions)
    assert all(e.get("id") for e in events)

    middle = events[2]["id"]
    rest = sse(site.client.get(status["links"]["events"], headers={"Last-Event-ID": middle}).text)
    assert rest == events[3:]
    # The events are gone (their TTL, a lost Redis): the ledger still tells the end.
    site.jobs.events._streams.clear()  # type: ignore[attr-defined]
    late = sse(site.client.get(status["links"]["events"]).text)
    assert [json.loads(e["data"])["state"] for e in late] == ["done"]


def test_cancel(site: Site, model: Model) -> None:
    status = site.post().json()
    cancelled = site.client.delete(status["links"]["self"])
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert site.client.delete(status["links"]["self"]).status_code == 200
    site.work(status["id"], model)
    assert site.client.get(status["links"]["self"]).json()["state"] == "cancelled"
    events = sse(site.client.get(status["links"]["events"]).text)
    assert json.loads(events[-1]["data"])["state"] == "cancelled"
    assert site.post().json()["state"] == "queued"  # asked again, it lives again
    site.work(status["id"], model)
    events = sse(site.client.get(status["links"]["events"]).text)
    assert json.loads(events[-1]["data"])["state"] == "done"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/document"),
        ("GET", "/report.html"),
        ("GET", "/maps"),
        ("GET", "/maps/a.nii.gz"),
        ("GET", "/events"),
    ],
)
def test_an_unknown_id_is_404(site: Site, method: str, path: str) -> None:
    answer = site.client.request(method, f"/v1/explanations/exp-unknown{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["found"] == "exp-unknown"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("passes", "0"),
        ("passes", "many"),
        ("seed", "-1"),
        ("map_steps", "1e9"),
        ("passes", "2.5"),
        ("reader_features", "washout=maybe"),
        ("reader_features", "{"),
        ("reader_features", "no_such=present"),
        ("reader_source", "nobody"),
        ("map_method", "magic"),
    ],
)
def test_wrong_parameters_name_their_field(site: Site, field: str, value: str) -> None:
    answer = site.post(**{field: value})
    assert answer.status_code == 422
    assert answer.json()["field"].partition(".")[0] == field
    assert sum(site.jobs.ledger.counts().values()) == 0


def test_parameters_make_another_job(site: Site) -> None:
    ids = {site.post(seed=str(seed)).json()["id"] for seed in (0, 1, 1)}
    assert len(ids) == 2
    parameters = [j.parameters for j in site.jobs.ledger.waiting(2e9)]
    assert ExplanationParameters(passes=3, map_steps=2, seed=1).model_dump() in parameters


def test_a_readers_features_are_part_of_the_question_in_any_order(site: Site) -> None:
    texts = ("washout=present,thin_walled=absent", '{"thin_walled":"absent","washout":"present"}')
    one, other = (site.post(reader_features=text).json()["id"] for text in texts)
    assert one == other
    assert one != site.post().json()["id"]
    assert one != site.post(reader_features=texts[0], reader_source="report").json()["id"]


def test_a_late_report_is_410(site: Site, model: Model) -> None:
    status = site.post().json()
    site.work(status["id"], model)
    site.jobs.settings = site.jobs.settings.model_copy(update={"result_days": 0})
    for path in ("", "/document", "/report.html", "/maps", "/events"):
        assert site.client.get(status["links"]["self"] + path).status_code == 410


def test_openapi_describes_form_and_answers(site: Site, bundle: Bundle) -> None:
    # The front door puts the form of the bundle that is served into its schema.
    body = request_of(bundle.manifest)["requestBody"]
    form = body["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) >= {*bundle.manifest.phases, "box", "passes", "seed"}
    schema = site.client.get("/openapi.json").json()
    post = schema["paths"]["/v1/explanations"]["post"]
    assert {"200", "202", "422", "503"} <= set(post["responses"])
