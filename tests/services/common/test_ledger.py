"""The ledger's contract, over SQLite in memory and in a file."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from models.errors import LensError, Unavailable
from services.common.ledger import Job, Ledger
from wire.api import JobState

PROBLEM = {"type": "urn:x", "title": "X", "status": 500, "detail": "why"}


@pytest.fixture(params=["memory", "file"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger("sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path}/l.sqlite")
    yield ledger
    ledger.close()


def accept(ledger: Ledger, job_id: str = "exp-1") -> Job:
    job, new = ledger.add(job_id, lesion="les-1", bundle="b-1", parameters={"passes": 3})
    assert new
    return job


def claimed(ledger: Ledger, job_id: str = "exp-1") -> Job:
    accept(ledger, job_id)
    job = ledger.claim(job_id)
    assert job is not None
    return job


def state(ledger: Ledger, job_id: str = "exp-1") -> JobState:
    job = ledger.get(job_id)
    assert job is not None
    return job.state


def test_what_is_added_is_read_back(ledger: Ledger) -> None:
    job = accept(ledger)
    assert ledger.get("exp-1") == job
    assert job.state is JobState.QUEUED
    assert job.parameters == {"passes": 3}
    assert ledger.get("exp-2") is None


def test_the_same_id_is_accepted_once(ledger: Ledger) -> None:
    accept(ledger)
    claimed_job = ledger.claim("exp-1")
    there, new = ledger.add("exp-1", lesion="les-1", bundle="b-1", parameters={})
    assert not new
    assert there == claimed_job


def test_a_job_goes_from_claim_to_done(ledger: Ledger) -> None:
    job = claimed(ledger)
    assert (job.state, job.attempts) == (JobState.RUNNING, 1)
    assert ledger.beat(job, "maps", 0.5)
    there = ledger.get("exp-1")
    assert there is not None
    assert (there.stage, there.progress) == ("maps", 0.5)
    assert ledger.finish(job, "explanations/exp-1") is not None
    done = ledger.get("exp-1")
    assert done is not None
    assert (done.state, done.result, done.progress) == (JobState.DONE, "explanations/exp-1", 1.0)
    assert done.finished_at is not None


def test_only_one_of_two_messages_gets_the_job(ledger: Ledger) -> None:
    claimed(ledger)
    assert ledger.claim("exp-1") is None


def test_a_worker_that_was_taken_for_dead_cannot_write(ledger: Ledger) -> None:
    first = claimed(ledger)
    assert ledger.release(first) is not None
    second = ledger.claim("exp-1")
    assert second is not None
    assert second.attempts == 2
    assert not ledger.beat(first, "late", 0.9)
    assert ledger.finish(first, "explanations/exp-1") is None
    assert ledger.fail(first, PROBLEM) is None
    assert ledger.finish(second, "explanations/exp-1") is not None


def test_a_forgiven_attempt_does_not_count_and_still_fences(ledger: Ledger) -> None:
    first = claimed(ledger)
    ledger.release(first, "waiting for inference", forgive=True)
    second = ledger.claim("exp-1")
    assert second is not None
    assert second.attempts == 1
    assert not ledger.beat(first)


def test_cancelled_wins_over_a_worker_that_goes_on(ledger: Ledger) -> None:
    job = claimed(ledger)
    seen = ledger.get("exp-1")
    assert seen is not None
    assert ledger.cancel(seen) is not None
    assert not ledger.beat(job)
    assert ledger.finish(job, "x/y") is None
    assert state(ledger) is JobState.CANCELLED


@pytest.mark.parametrize("step", ["claim", "cancel", "fail", "release", "finish"])
def test_a_final_state_stays(ledger: Ledger, step: str) -> None:
    job = claimed(ledger)
    assert ledger.finish(job, "explanations/exp-1")
    done = ledger.get("exp-1")
    assert done is not None
    outcome = {
        "claim": lambda: ledger.claim("exp-1"),
        "cancel": lambda: ledger.cancel(done),
        "fail": lambda: ledger.fail(done, PROBLEM),
        "release": lambda: ledger.release(done),
        "finish": lambda: ledger.finish(done, "other/key"),
    }[step]()
    assert outcome is None
    assert ledger.get("exp-1") == done


def test_renew_starts_a_new_life(ledger: Ledger) -> None:
    job = claimed(ledger)
    failed = ledger.fail(job, PROBLEM)
    assert failed is not None
    assert failed.error == PROBLEM
    again = ledger.renew(failed)
    assert again is not None
    assert (again.state, again.attempts, again.error) == (JobState.QUEUED, 0, None)
    assert again.finished_at is None
    assert ledger.get("exp-1") == again
    assert ledger.renew(failed) is None  # the second of two that ask at once


def test_silent_and_waiting_jobs_are_found(ledger: Ledger) -> None:
    job = claimed(ledger, "exp-1")
    accept(ledger, "exp-2")
    now = time.time()
    assert [j.id for j in ledger.silent(now + 1)] == ["exp-1"]
    assert ledger.silent(now - 60) == []
    assert [j.id for j in ledger.waiting(now + 1)] == ["exp-2"]
    assert ledger.waiting(now - 60) == []
    assert ledger.beating(now - 60)
    assert not ledger.beating(now + 60)
    there = ledger.get("exp-2")
    assert there is not None
    assert ledger.enqueue_again(there)
    assert not ledger.enqueue_again(there)  # another reconciler with the same view
    assert ledger.finish(job, "explanations/exp-1")
    assert [j.id for j in ledger.expired(time.time() + 1)] == ["exp-1"]
    assert ledger.lesion_in_use("les-1")
    assert not ledger.lesion_in_use("les-2")
    counts = ledger.counts()
    assert (counts[JobState.QUEUED], counts[JobState.DONE], counts[JobState.FAILED]) == (1, 1, 0)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/l.sqlite"
    Ledger(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as c:
        c.execute(sa.text("UPDATE ledger_schema SET version = 99"))
    engine.dispose()
    with pytest.raises(LensError, match="schema version") as refused:
        Ledger(url)
    assert refused.value.found == "99"


def test_a_ledger_out_of_reach_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="ledger"):
        Ledger(f"sqlite:///{tmp_path}/no/such/folder/l.sqlite")


def _race(url: str, start: float, won: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    ledger = Ledger(url)
    time.sleep(max(start - time.time(), 0))
    won.put([i for i in range(40) if ledger.claim(f"exp-{i}") is not None])


def test_processes_that_race_claim_each_job_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/l.sqlite"
    ledger = Ledger(url)
    for i in range(40):
        accept(ledger, f"exp-{i}")
    context = multiprocessing.get_context("spawn")
    won = context.Queue()
    start = time.time() + 3
    racers = [context.Process(target=_race, args=(url, start, won)) for _ in range(3)]
    for racer in racers:
        racer.start()
    claims = sorted(i for _ in racers for i in won.get(timeout=60))
    for racer in racers:
        racer.join()
    assert claims == list(range(40))


def test_processes_that_open_a_new_file_at_once_all_get_in(tmp_path: Path) -> None:
    """Front door and worker start together on an empty folder."""
    script = (
        "import sys, time\n"
        "from services.common.ledger import Ledger\n"
        "time.sleep(max(0.0, float(sys.argv[2]) - time.time()))\n"
        "assert Ledger(sys.argv[1]).get('exp-none') is None\n"
    )
    for number in range(2):
        url = f"sqlite:///{tmp_path / f'new-{number}.sqlite'}"
        start = str(time.time() + 2.5)
        command = [sys.executable, "-c", script, url, start]
        children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(6)]
        errors = [child.communicate(timeout=60)[1] for child in children]
        assert [child.returncode for child in children] == [0] * 6, errors
