"""Batches over a real app and queue, with nobody at work but where a test works."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.bundle.read import Bundle
from models.bundle.runtime import load_model
from models.reasons.explain import document_bytes, explain, maps_bytes
from models.report.page import render
from models.voi import Lesion
from services.common.blobs import Blobs
from services.common.broker import BULK_QUEUE, QUEUE, Broker
from services.common.events import MemoryEvents
from services.common.ledger import Ledger
from services.common.lesion_stack import MEDIA_TYPE, pack
from services.common.problems import install
from services.common.settings import Settings
from services.explain import api, bulk_api, keys, reconciler
from services.explain.jobs import Jobs
from services.explain.reconciler import Reconciler
from services.explain.runner import Runner
from tests.support import lesions as support
from tests.support.redis_servers import RedisServer
from wire.api import BatchAccepted, BatchStatus, ExplanationParameters, JobState

QUICK = {"passes": "2", "map_steps": "2"}
ASKED = ExplanationParameters(passes=2, map_steps=2)


class Site:
    """A client of the routes, and the parts behind them."""

    def __init__(self, bundle: Bundle, server: RedisServer, home: Path, cohort: Path) -> None:
        self.bundle, self.server = bundle, server
        settings = Settings(home=home, redis_url=server.url, bulk_queue=6)
        self.jobs = Jobs(
            settings,
            ledger=Ledger("sqlite://"),
            blobs=Blobs(f"memory://{uuid.uuid4().hex}"),
            events=MemoryEvents(),
            broker=Broker(settings),
        )
        app = FastAPI()
        known = {bundle.hash: bundle}
        app.include_router(api.build_router(lambda: bundle, known.__getitem__, settings, self.jobs))
        app.include_router(bulk_api.build_router(lambda: bundle, known.__getitem__, self.jobs))
        install(app)
        self.client = TestClient(app)
        self.lesions = [
            support.lesion(cohort, bundle.manifest.phases, bundle.preprocessing, i)
            for i in range(4)
        ]
        self.upload = support.upload(cohort, bundle.manifest.phases, 0)

    def post(self, lesions: list[Lesion], **query: str) -> Any:
        return self.client.post(
            "/v1/explanations:batch",
            params=QUICK | query,
            content=pack(lesions),
            headers={"Content-Type": MEDIA_TYPE},
        )

    def accepted(self, lesions: list[Lesion], **query: str) -> BatchAccepted:
        answer = self.post(lesions, **query)
        assert answer.status_code == 202, answer.text
        accepted = BatchAccepted.model_validate(answer.json())
        assert answer.headers["Location"] == f"/v1/batches/{accepted.batch}"
        return accepted

    def status(self, batch: str) -> BatchStatus:
        return BatchStatus.model_validate(self.client.get(f"/v1/batches/{batch}").json())

    def work(self, job_id: str) -> None:
        Runner(
            lambda _: self.bundle, lambda _: load_model(self.bundle, 1), ledger=self.jobs.ledger,
            blobs=self.jobs.blobs, events=self.jobs.events, attempts=3,
        ).run(job_id)  # fmt: skip

    def queue(self, name: str) -> list[str]:
        """Job ids in a queue, the next one first."""
        with redis.Redis.from_url(self.server.url) as client:
            found: Any = client.lrange(name, 0, -1)
        return [json.loads(raw)["headers"]["id"].split(".")[0] for raw in reversed(found)]


@pytest.fixture
def site(
    bundle: Bundle, redis_server: RedisServer, tmp_path: Path, tiny_cohort: Path
) -> Iterator[Site]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    site = Site(bundle, redis_server, tmp_path, tiny_cohort)
    with site.client:
        yield site


def test_a_batch_is_jobs_in_the_bulk_queue_in_the_lesions_order(site: Site) -> None:
    accepted = site.accepted(site.lesions[:3])
    ids = [job.id for job in accepted.jobs]
    assert accepted.bundle == site.bundle.hash
    assert site.queue(BULK_QUEUE) == ids
    assert site.queue(QUEUE) == []
    assert site.jobs.broker.waiting() == set(ids)
    status = site.status(accepted.batch)
    assert (status.jobs, status.states[JobState.QUEUED], status.finished) == (3, 3, False)
    # Sent again, as a client does that was killed: nothing new, and the batch grows by the others.
    again = site.accepted(site.lesions[1:], batch=accepted.batch)
    assert [job.id for job in again.jobs][:2] == ids[1:]
    assert site.status(accepted.batch).jobs == 4
    assert len(site.queue(BULK_QUEUE)) == 4

    listed = site.client.get("/v1/explanations", params={"batch": accepted.batch}).json()
    assert sorted(job["id"] for job in listed["jobs"]) == sorted({*ids, again.jobs[2].id})
    some = site.client.get("/v1/explanations", params={"id": [ids[2], "exp-no", ids[0]]}).json()
    assert [job["id"] for job in some["jobs"]] == [ids[2], ids[0]]


def test_the_answer_is_that_of_a_single_request(site: Site) -> None:
    lesion = site.lesions[0]
    job_id = site.accepted([lesion]).jobs[0].id
    site.work(job_id)
    single = explain(lesion, site.bundle, load_model(site.bundle, 1), ASKED)
    document = site.client.get(f"/v1/explanations/{job_id}/document")
    assert document.content == document_bytes(single.document)
    # Report and packed maps were not made before; asked for, they are those of a single job.
    made = {f"{keys.result(job_id)}/{name}" for name in (keys.REPORT, keys.MAPS)}
    assert not any(site.jobs.blobs.exists(name) for name in made)
    page = site.client.get(f"/v1/explanations/{job_id}/report.html")
    assert page.text == render(single.document, lesion, single.maps)
    maps = site.client.get(f"/v1/explanations/{job_id}/maps")
    assert maps.content == maps_bytes(single.maps)
    assert all(site.jobs.blobs.exists(name) for name in made)
    early = site.accepted(site.lesions[1:2]).jobs[0].id
    for path in ("report.html", "maps", "document"):
        assert site.client.get(f"/v1/explanations/{early}/{path}").status_code == 409
    # The same study sent alone is the same job.
    files, box = site.upload
    alone = site.client.post("/v1/explanations", files=files, data=box | QUICK)
    assert (alone.status_code, alone.json()["id"]) == (200, job_id)


def test_who_asks_alone_for_a_waiting_bulk_job_does_not_wait_behind_the_bulk(site: Site) -> None:
    first, second = (job.id for job in site.accepted(site.lesions[:2]).jobs)
    files, box = site.upload
    answer = site.client.post("/v1/explanations", files=files, data=box | QUICK)
    assert answer.json()["id"] == first
    assert site.queue(QUEUE) == [first]
    job = site.jobs.ledger.get(first)
    assert job is not None
    assert job.lane == "interactive"
    assert site.jobs.ledger.queued("bulk") == 1
    assert second in site.queue(BULK_QUEUE)


def test_the_bulk_queue_is_bounded(site: Site) -> None:
    variants = [str(seed) for seed in range(3)]
    site.accepted(site.lesions, seed=variants[0])
    refused = site.post(site.lesions, seed=variants[1])
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.json()["type"] == "urn:lesionlens:problem:bulk_full"
    assert site.jobs.ledger.queued("bulk") == 4
    site.accepted(site.lesions[:2], seed=variants[1])  # as many as there is room for
    site.accepted(site.lesions, seed=variants[0])  # what waits already takes no room
    files, box = site.upload
    assert site.client.post("/v1/explanations", files=files, data=box | QUICK).status_code == 202


def test_a_lost_queue_is_filled_again_by_lane_in_few_round_trips(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = [job.id for job in site.accepted(site.lesions[:3]).jobs]
    files, box = site.upload
    fields = box | QUICK | {"seed": "9"}
    alone = site.client.post("/v1/explanations", files=files, data=fields).json()["id"]
    with redis.Redis.from_url(site.server.url) as client:
        client.flushall()
    monkeypatch.setattr(reconciler, "GRACE", 0.0)
    assert Reconciler(site.jobs).tick() == 4
    assert (sorted(site.queue(BULK_QUEUE)), site.queue(QUEUE)) == (sorted(bulk), [alone])
    assert Reconciler(site.jobs).tick() == 0


def test_a_failed_job_of_a_batch_says_why_and_may_be_asked_again(site: Site) -> None:
    accepted = site.accepted(site.lesions[:1])
    job = site.jobs.ledger.get(accepted.jobs[0].id)
    assert job is not None
    site.jobs.ledger.fail(job, {"type": "t", "title": "T", "status": 500, "detail": "why"})
    (listed,) = site.client.get("/v1/explanations", params={"id": job.id}).json()["jobs"]
    assert (listed["state"], listed["error"]["detail"]) == ("failed", "why")
    assert site.status(accepted.batch).finished
    (again,) = site.accepted(site.lesions[:1]).jobs
    assert (again.id, again.state, again.error) == (job.id, JobState.QUEUED, None)
    renewed = site.jobs.ledger.get(job.id)
    assert renewed is not None
    assert renewed.lane == "bulk"


@pytest.mark.parametrize(
    ("query", "kind", "body", "status", "field"),
    [
        ({}, "application/x-pickle", b"x", 415, "body"),
        ({}, "application/json", b"{}", 415, "Content-Type"),
        ({}, MEDIA_TYPE, b"\x80\x04K\x01.", 422, "body"),
        ({"passes": "0"}, MEDIA_TYPE, b"", 422, "passes"),
        ({"passes": "many"}, MEDIA_TYPE, b"", 422, "passes"),
        ({"map_method": "nothing"}, MEDIA_TYPE, b"", 422, "map_method"),
        ({"bundle": "b-" + "0" * 20}, MEDIA_TYPE, b"", 404, "bundle"),
        ({"batch": "../x"}, MEDIA_TYPE, b"", 422, "batch"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_accepted(
    site: Site, query: dict[str, str], kind: str, body: bytes, status: int, field: str
) -> None:
    answer = site.client.post(
        "/v1/explanations:batch", params=query, content=body, headers={"Content-Type": kind}
    )
    assert answer.status_code == status, answer.text
    assert answer.json()["field"] == field
    assert sum(site.jobs.ledger.counts().values()) == 0


def test_unknown_batches_and_unclear_questions(site: Site) -> None:
    assert site.client.get("/v1/batches/bat-0").status_code == 404
    assert site.client.get("/v1/explanations", params={"batch": "bat-0"}).status_code == 404
    assert site.client.get("/v1/explanations").status_code == 422
    both = {"batch": "bat-0", "id": "exp-0"}
    assert site.client.get("/v1/explanations", params=both).status_code == 422


def test_without_redis_no_batch_is_accepted(site: Site, tmp_path: Path) -> None:
    site.jobs.broker = Broker(Settings(home=tmp_path, redis_url="redis://127.0.0.1:1/0"))
    answer = site.post(site.lesions[:1])
    assert answer.status_code == 503
    assert sum(site.jobs.ledger.counts().values()) == 0


def test_workers_look_into_the_bulk_queue_last(site: Site) -> None:
    """The order in which kombu asks Redis: one BRPOP over both queues, interactive first."""
    app: Celery = site.jobs.celery
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        for queue in app.amqp.queues.consume_from:
            channel.basic_consume(queue, True, lambda _: None, queue)
        for _ in range(3):
            assert channel._queue_cycle.consume(9) == [QUEUE, BULK_QUEUE]
            channel._queue_cycle.rotate(QUEUE)  # what happens after a message came out of it
