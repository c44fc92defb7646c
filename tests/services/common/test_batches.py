"""Batches beside the ledger, lanes in it, and an old ledger brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.common.batches import Batches
from services.common.ledger import LEDGER_SCHEMA, Job, Ledger
from wire.api import JobState


@pytest.fixture(params=["memory", "file"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger("sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path}/l.sqlite")
    yield ledger
    ledger.close()


def bulk(*numbers: int) -> list[Job]:
    return [Job(f"exp-{n:04}", f"les-{n}", "b-1", {"passes": 3}, lane="bulk") for n in numbers]


def test_many_are_accepted_at_once_and_each_once(ledger: Ledger) -> None:
    assert ledger.add_many(bulk(1, 2, 2)) == [True, True, False]
    assert ledger.add_many(bulk(2, 3)) == [False, True]
    found = ledger.get_many(["exp-0001", "exp-0003", "exp-0009"])
    assert sorted(found) == ["exp-0001", "exp-0003"]
    assert {job.lane for job in found.values()} == {"bulk"}
    assert found["exp-0001"].state is JobState.QUEUED
    assert (ledger.queued("bulk"), ledger.queued("interactive")) == (3, 0)


def test_more_than_one_statement_holds(ledger: Ledger) -> None:
    jobs = bulk(*range(1201))
    assert all(ledger.add_many(jobs))
    assert len(ledger.get_many([job.id for job in jobs])) == 1201
    before = ledger.get("exp-1200")
    assert before is not None
    ledger.seen_in_queue([job.id for job in jobs])
    after = ledger.get("exp-1200")
    assert after is not None
    assert after.enqueued_at > before.enqueued_at


def test_two_that_accept_the_same_agree(tmp_path: Path) -> None:
    ledgers = [Ledger(f"sqlite:///{tmp_path}/l.sqlite") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda one: one.add_many(bulk(*range(50))), ledgers))
    assert [sum(new) for new in zip(*answers, strict=True)] == [1] * 50


def test_a_job_that_somebody_waits_for_changes_its_lane_once(ledger: Ledger) -> None:
    ledger.add_many(bulk(1))
    job = ledger.get("exp-0001")
    assert job is not None
    hastened = ledger.hasten(job)
    assert hastened is not None
    assert hastened.lane == "interactive"
    assert ledger.get("exp-0001") == hastened
    assert ledger.hasten(job) is None
    claimed = ledger.claim("exp-0001")
    assert claimed is not None
    assert ledger.hasten(claimed) is None


def test_a_batch_counts_its_jobs_and_pages_through_them(ledger: Ledger) -> None:
    ledger.add_many(bulk(1, 2, 3, 4))
    batches = Batches(ledger)
    batches.add("a", ["exp-0001", "exp-0002", "exp-0002"])
    batches.add("a", ["exp-0002", "exp-0003"])
    batches.add("b", ["exp-0003"])
    ledger.claim("exp-0003")
    assert batches.counts("a") == {JobState.QUEUED: 2, JobState.RUNNING: 1}
    assert batches.counts("b") == {JobState.RUNNING: 1}
    assert batches.counts("c") == {}
    first = batches.jobs("a", limit=2)
    assert [job.id for job in first] == ["exp-0001", "exp-0002"]
    assert [job.id for job in batches.jobs("a", after=first[-1].id)] == ["exp-0003"]


def test_an_old_ledger_is_brought_up_to_date_and_loses_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/l.sqlite"
    ledger = Ledger(url)
    old, _ = ledger.add("exp-1", lesion="les-1", bundle="b-1", parameters={"passes": 3})
    with ledger.engine.begin() as c:  # as version 1 left it
        c.execute(sa.text("ALTER TABLE jobs DROP COLUMN lane"))
        c.execute(sa.text("UPDATE ledger_schema SET version = 1"))
    ledger.close()
    with ThreadPoolExecutor(4) as pool:  # a front door and its workers start at once
        opened = list(pool.map(lambda _: Ledger(url), range(4)))
    for one in opened:
        assert one.get("exp-1") == old
        with one.engine.connect() as c:
            versions = list(c.scalars(sa.text("SELECT version FROM ledger_schema")))
        assert versions == [LEDGER_SCHEMA]
        one.close()
