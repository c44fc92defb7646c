"""Real processes: front door, worker and Redis; each part is killed while jobs are on their way.

One stack a kind of Redis: the embedded one belongs to the stack, Debian's stands outside of it.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from models.bundle.read import Bundle
from models.errors import Unavailable
from services.cli.stack import Stack, free_ports
from services.common.broker import Broker
from services.common.ledger import Ledger
from services.common.settings import Settings
from services.explain import keys
from tests.support import lesions
from tests.support.redis_servers import KINDS, RedisServer, require
from wire.api import JobState

pytestmark = pytest.mark.system

QUICK = {"passes": "3", "map_steps": "2"}
LONG = {"passes": "100", "map_steps": "96"}


class Site:
    """A running stack, its client and its Redis."""

    def __init__(
        self, kind: str, home: Path, bundle: Bundle, form: tuple[lesions.Files, dict[str, str]]
    ) -> None:
        port, redis_port = free_ports(2)
        self.outside = RedisServer(kind, home / "outside") if kind != "embedded" else None
        if self.outside:
            self.outside.start()
        settings = Settings(
            home=home,
            bundle=bundle.path,
            port=port,
            redis_port=redis_port,
            redis_url=self.outside.url if self.outside else None,
        )
        self.stack = Stack(settings)
        self.client = httpx.Client(base_url=self.stack.url, timeout=20, trust_env=False)
        self.files, self.box = form
        self._seed = 0

    def close(self) -> None:
        self.stack.stop()
        if self.outside:
            self.outside.kill()

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.stack.settings.ledger)

    def redis_down(self, *, and_forget: bool = False) -> None:
        if self.outside:
            self.outside.kill()
        else:
            self.stack.kill("redis")
        if and_forget:
            folder = self.stack.settings.home / ("outside" if self.outside else "redis")
            shutil.rmtree(folder)

    def redis_up(self) -> None:
        if self.outside:
            self.outside.start()
        else:
            self.stack.start_one("redis")
            broker, end = Broker(self.stack.settings), time.monotonic() + 20
            while True:  # it reads its log first
                try:
                    broker.check()
                    break
                except Unavailable:
                    assert time.monotonic() < end
                    time.sleep(0.05)
            broker.close()

    def new(self, what: dict[str, str]) -> dict[str, str]:
        """Parameters that nobody has asked for before."""
        self._seed += 1
        return what | {"seed": str(self._seed)}

    def post(self, fields: dict[str, str]) -> httpx.Response:
        return self.client.post("/v1/explanations", files=self.files, data=self.box | fields)

    def ask(self, what: dict[str, str]) -> str:
        answer = self.post(self.new(what))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def status(self, job_id: str) -> Any:
        answer = self.client.get(f"/v1/explanations/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, job_id: str, until: Callable[[Any], bool], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while not until(status := self.status(job_id)):
            assert time.monotonic() < end, status
            time.sleep(0.05)
        return status

    def done(self, job_id: str, seconds: float = 60) -> Any:
        status = self.wait(job_id, lambda s: JobState(s["state"]).final, seconds)
        assert status["state"] == "done", status
        return status

    def underway(self, job_id: str) -> None:
        self.wait(job_id, lambda s: s["state"] == "running" and s["progress"] > 0.05)

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All events to the end, as data with the event's name."""
        found = []
        with self.client.stream("GET", f"/v1/explanations/{job_id}/events") as answer:
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    found.append(json.loads(line[6:]) | {"event": name})
        return found


@pytest.fixture(scope="module", params=KINDS)
def site(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_cohort: Path,
    bundle: Bundle,
) -> Iterator[Site]:
    require(request.param)
    form = lesions.upload(tiny_cohort, bundle.manifest.phases)
    site = Site(request.param, tmp_path_factory.mktemp("stack"), bundle, form)
    try:
        site.stack.start()
        site.stack.wait_ready()
        yield site
    finally:
        site.close()


def test_asked_twice_computed_once(site: Site) -> None:
    fields = site.new(QUICK)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: site.post(fields), range(4)))
    assert {a.status_code for a in answers} <= {200, 202}
    (job_id,) = {a.json()["id"] for a in answers}
    events = site.events(job_id)
    assert events[-1]["state"] == "done"
    assert "progress" in {e["event"] for e in events}
    job = site.ledger.get(job_id)
    assert job is not None
    assert job.attempts == 1
    first = site.client.get(f"/v1/explanations/{job_id}/document").content
    again = site.post(fields)
    assert (again.status_code, again.json()["id"]) == (200, job_id)
    assert site.ledger.get(job_id) == job
    assert site.client.get(f"/v1/explanations/{job_id}/document").content == first

    # Made again from nothing, it has the same bytes.
    results = site.stack.settings.home / "blobs" / keys.result(job_id)
    shutil.rmtree(results)
    assert site.post(fields).status_code == 202
    site.done(job_id)
    assert site.client.get(f"/v1/explanations/{job_id}/document").content == first


def test_a_worker_killed_in_the_middle_of_a_job(site: Site, record_property: Any) -> None:
    job_id = site.ask(LONG)
    site.underway(job_id)
    site.stack.kill("worker")
    assert site.status(job_id)["state"] == "running"
    started = time.monotonic()
    site.stack.start_one("worker")
    site.wait(job_id, lambda s: s["state"] == "queued" or s["progress"] == 0, 15)
    site.underway(job_id)
    resumed = time.monotonic() - started
    record_property("restart_to_underway_seconds", round(resumed, 1))
    assert resumed < 15
    site.done(job_id, 90)
    job = site.ledger.get(job_id)
    assert job is not None
    assert job.attempts == 2


def test_a_killed_child_is_replaced(site: Site) -> None:
    job_id = site.ask(LONG)
    site.underway(job_id)
    leader = site.stack.alive()["worker"].process
    assert leader is not None
    for child in leader.children():
        child.send_signal(signal.SIGKILL)
    site.done(job_id, 90)
    assert psutil.pid_exists(leader.pid)


def test_cancel_while_running_and_the_worker_takes_the_next(site: Site) -> None:
    job_id = site.ask(LONG)
    next_id = site.ask(QUICK)
    site.underway(job_id)
    answer = site.client.delete(f"/v1/explanations/{job_id}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    site.done(next_id, 15)
    assert site.status(job_id)["state"] == "cancelled"
    assert site.events(job_id)[-1]["state"] == "cancelled"
    assert site.client.delete(f"/v1/explanations/{next_id}").status_code == 409


def test_without_a_worker_jobs_wait_and_may_be_cancelled(site: Site) -> None:
    site.stack.kill("worker")
    waits, goes = site.ask(QUICK), site.ask(QUICK)
    time.sleep(1)
    assert site.status(waits)["state"] == "queued"
    assert site.client.delete(f"/v1/explanations/{goes}").json()["state"] == "cancelled"
    site.stack.start_one("worker")
    site.done(waits)
    assert site.status(goes)["state"] == "cancelled"


def test_without_redis_503_and_what_was_accepted_is_not_lost(site: Site) -> None:
    site.stack.kill("worker")
    accepted = site.ask(QUICK)
    site.redis_down(and_forget=True)
    started = time.monotonic()
    refused = site.post(site.new(QUICK))
    assert time.monotonic() - started < 5
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.json()["type"] == "urn:lesionlens:problem:redis_down"
    assert site.ledger.counts()[JobState.QUEUED] == 1
    assert site.status(accepted)["state"] == "queued"

    # A listener without Redis hears of it from the ledger, and of the rest when it is back.
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(site.events, accepted)
        time.sleep(1.5)
        site.redis_up()
        site.stack.start_one("worker")
        events = heard.result(60)
    assert [events[0]["state"], events[-1]["state"]] == ["queued", "done"]
    assert site.status(accepted)["state"] == "done"


@pytest.mark.parametrize("back", ["before the job ends", "after the job ended"])
def test_redis_restarts_while_a_worker_is_at_work(site: Site, back: str) -> None:
    job_id = site.ask(LONG)
    site.underway(job_id)
    site.redis_down()
    if back == "before the job ends":
        time.sleep(1)
    else:
        site.done(job_id, 90)  # without Redis: the work needs the ledger alone
        time.sleep(1)  # for the ack, which fails now
    site.redis_up()
    site.done(job_id, 90)
    # The worker takes from the queue again; that it is alive would not be enough.
    site.done(site.ask(QUICK), 30)
    site.done(site.ask(QUICK), 10)


def test_unknown_is_404(site: Site) -> None:
    assert site.client.get("/v1/explanations/exp-0123").status_code == 404


def test_the_inference_service_restarts_in_the_middle_of_a_job(site: Site) -> None:
    job_id = site.ask(LONG)
    site.underway(job_id)
    site.stack.kill("front")
    time.sleep(1)
    site.stack.start_one("front")
    site.stack.wait_ready(60)
    site.done(job_id, 90)
    job = site.ledger.get(job_id)
    assert job is not None
    assert job.attempts == 1


def test_stop_leaves_nothing_and_is_idempotent(site: Site) -> None:
    members = site.stack.alive()
    assert set(members) == set(site.stack.names)
    processes = [m.process for m in members.values()]
    family = [c for p in processes if p for c in [p, *p.children(recursive=True)]]
    site.stack.stop()
    assert not any(p.is_running() and p.status() != "zombie" for p in family)
    site.stack.stop()
    assert site.stack.alive() == {}
