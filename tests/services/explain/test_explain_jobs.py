"""Jobs and the reconciler over a real queue, with nobody at work."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest
import redis

from models.errors import NotFound, Unavailable
from models.voi import Lesion
from services.common.blobs import Blobs
from services.common.broker import Broker
from services.common.events import MemoryEvents
from services.common.ledger import Job, Ledger
from services.common.settings import Settings
from services.explain import keys, reconciler
from services.explain.jobs import Conflict, Gone, Jobs
from services.explain.reconciler import Reconciler
from tests.support.redis_servers import RedisServer
from wire.api import ExplanationParameters, JobState

ASKED = ExplanationParameters(passes=3, map_steps=2)
BUNDLE = "b-0123456789abcdef0123"


def make_jobs(settings: Settings) -> Jobs:
    return Jobs(
        settings,
        ledger=Ledger("sqlite://"),
        blobs=Blobs(f"memory://{uuid.uuid4().hex}"),
        events=MemoryEvents(),
        broker=Broker(settings),
    )


@pytest.fixture
def jobs(redis_server: RedisServer, tmp_path: Path) -> Jobs:
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    client.close()
    return make_jobs(Settings(home=tmp_path, redis_url=redis_server.url))


def lose_the_queue(server: RedisServer) -> None:
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.close()


def done(jobs: Jobs, job: Job) -> Job:
    """As the worker leaves it."""
    running = jobs.ledger.claim(job.id)
    assert running is not None
    for name in keys.RESULTS:
        jobs.blobs.put(f"{keys.result(job.id)}/{name}", b"{}")
    finished = jobs.ledger.finish(running, keys.result(job.id))
    assert finished is not None
    return finished


def test_submit_keeps_the_lesion_the_row_and_the_message(jobs: Jobs, lesion: Lesion) -> None:
    job, new = jobs.submit(lesion, ASKED, BUNDLE)
    assert new
    assert job.state is JobState.QUEUED
    assert jobs.broker.waiting() == {job.id}
    assert jobs.lesion(job).id == lesion.id
    assert jobs.submit(lesion, ASKED, BUNDLE) == (job, False)
    assert jobs.broker.length() == 1
    other, new = jobs.submit(lesion, ASKED.model_copy(update={"seed": 1}), BUNDLE)
    assert new
    assert other.id != job.id


def test_without_redis_nothing_is_accepted(lesion: Lesion, tmp_path: Path) -> None:
    jobs = make_jobs(Settings(home=tmp_path, redis_url="redis://127.0.0.1:1/0"))
    with pytest.raises(Unavailable) as refused:
        jobs.submit(lesion, ASKED, BUNDLE)
    assert refused.value.retry_after > 0
    assert sum(jobs.ledger.counts().values()) == 0


def test_a_finished_answer_needs_no_redis(jobs: Jobs, lesion: Lesion, tmp_path: Path) -> None:
    job, _ = jobs.submit(lesion, ASKED, BUNDLE)
    done(jobs, job)
    jobs.broker = Broker(Settings(home=tmp_path, redis_url="redis://127.0.0.1:1/0"))
    again, new = jobs.submit(lesion, ASKED, BUNDLE)
    assert (again.state, new) == (JobState.DONE, False)


@pytest.mark.parametrize("how", ["failed", "cancelled", "result lost", "expired"])
def test_what_has_no_answer_may_be_asked_again(jobs: Jobs, lesion: Lesion, how: str) -> None:
    job, _ = jobs.submit(lesion, ASKED, BUNDLE)
    if how == "failed":
        jobs.ledger.fail(job, {"type": "t", "title": "T", "status": 500, "detail": "d"})
    elif how == "cancelled":
        jobs.cancel(job.id)
    else:
        done(jobs, job)
        if how == "result lost":
            jobs.blobs.delete(f"{keys.result(job.id)}/{keys.DOCUMENT}")
        else:
            jobs.settings = jobs.settings.model_copy(update={"result_days": 0})
    again, new = jobs.submit(lesion, ASKED, BUNDLE)
    assert (again.state, new, again.id) == (JobState.QUEUED, True, job.id)
    assert jobs.status(again).error is None


def test_unknown_expired_and_unfinished_differ(jobs: Jobs, lesion: Lesion) -> None:
    with pytest.raises(NotFound) as unknown:
        jobs.find("exp-unknown")
    assert unknown.value.status == 404
    job, _ = jobs.submit(lesion, ASKED, BUNDLE)
    with pytest.raises(Conflict, match="not done"):
        jobs.read(job, keys.DOCUMENT)
    done(jobs, job)
    jobs.settings = jobs.settings.model_copy(update={"result_days": 0})
    with pytest.raises(Gone) as gone:
        jobs.find(job.id)
    assert gone.value.status == 410


def test_cancel_twice_is_fine_and_done_stays_done(jobs: Jobs, lesion: Lesion) -> None:
    job, _ = jobs.submit(lesion, ASKED, BUNDLE)
    assert jobs.cancel(job.id).state is JobState.CANCELLED
    assert jobs.cancel(job.id).state is JobState.CANCELLED
    again, _ = jobs.submit(lesion, ASKED, BUNDLE)
    done(jobs, again)
    with pytest.raises(Conflict) as refused:
        jobs.cancel(job.id)
    assert refused.value.status == 409


def test_a_lost_queue_is_filled_again_from_the_ledger(
    jobs: Jobs, lesion: Lesion, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {
        jobs.submit(lesion, ASKED.model_copy(update={"seed": seed}), BUNDLE)[0].id
        for seed in range(3)
    }
    lose_the_queue(redis_server)
    mend = Reconciler(jobs)
    assert mend.tick() == 0  # too early to worry
    monkeypatch.setattr(reconciler, "GRACE", 0.0)
    time.sleep(0.05)
    assert mend.tick() == 3
    assert jobs.broker.waiting() == wanted
    time.sleep(0.05)
    assert mend.tick() == 0  # they are there: nothing is sent twice
    assert jobs.broker.length() == 3


def test_a_silent_worker_loses_the_job_and_the_last_attempt_fails_it(
    jobs: Jobs, lesion: Lesion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "SILENCE", 0.0)
    jobs.settings = jobs.settings.model_copy(update={"job_attempts": 2})
    job, _ = jobs.submit(lesion, ASKED, BUNDLE)
    mend = Reconciler(jobs)
    for attempt in (1, 2):
        running = jobs.ledger.claim(job.id)
        assert running is not None
        assert running.attempts == attempt
        time.sleep(0.05)
        mend.tick()
    status = jobs.status(jobs.find(job.id))
    assert status.state is JobState.FAILED
    assert status.error is not None
    assert status.error.type.endswith("too_many_attempts")
    assert "2 times" in status.error.detail
    again, new = jobs.submit(lesion, ASKED, BUNDLE)
    assert (again.attempts, new) == (0, True)


def test_expired_results_are_deleted_and_the_id_stays_known(jobs: Jobs, lesion: Lesion) -> None:
    job, _ = jobs.submit(lesion, ASKED, BUNDLE)
    done(jobs, job)
    jobs.settings = jobs.settings.model_copy(update={"result_days": 0})
    Reconciler(jobs).tick()
    assert not any(jobs.blobs.exists(f"{keys.result(job.id)}/{n}") for n in keys.RESULTS)
    assert not jobs.blobs.exists(keys.lesion(job.lesion))
    with pytest.raises(Gone):
        jobs.find(job.id)
