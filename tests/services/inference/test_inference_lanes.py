"""Which waiting job is next: priorities within a lane, shares between the two."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from services.inference.lanes import FIRST, HEAD_START, LAST, Job, Lane, Lanes, Together, Work


class Desk:
    """Lanes with jobs that are told apart by name."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.names: dict[int, str] = {}
        self.count = 0

    def push(self, name: str, **work: Any) -> Job:
        future: Any = asyncio.Future(loop=self.loop)
        job = Job(lambda: None, Work(**work), future, 0.0, self.count)
        self.count += 1
        self.names[id(job)] = name
        self.lanes.push(job)
        return job

    loop = asyncio.new_event_loop()

    def name(self, job: Job | None) -> str | None:
        return None if job is None else self.names[id(job)]

    def all(self) -> list[str | None]:
        return [self.name(self.lanes.next()) for _ in range(len(self.lanes))]


def test_first_come_first_served_within_a_priority() -> None:
    desk = Desk()
    desk.push("late", priority=LAST)
    desk.push("a")
    desk.push("b")
    desk.push("urgent", priority=FIRST)
    assert desk.all() == ["urgent", "a", "b", "late"]
    assert desk.lanes.next() is None


def test_who_leaves_is_not_next() -> None:
    desk = Desk()
    desk.push("a")
    gone = desk.push("b")
    desk.push("c")
    assert desk.lanes.remove(gone)
    assert not desk.lanes.remove(gone)
    assert desk.all() == ["a", "c"]


def test_a_short_one_goes_before_a_long_one_that_waits_longer() -> None:
    desk = Desk()
    desk.push("long", lane=Lane.LONG, rows=25)
    desk.push("short")
    assert desk.all() == ["short", "long"]


def turns(desk: Desk, chunks: int, rows: int) -> list[int]:
    """A long job of so many chunks: short jobs that ran before each of them."""
    before = []
    for _ in range(chunks):
        found = 0
        while desk.lanes.next_short() is not None:
            found += 1
        before.append(found)
        desk.lanes.pay(Lane.LONG, rows)
    return before


def test_a_lone_short_one_waits_for_no_more_than_the_chunk_that_runs() -> None:
    desk = Desk()
    for _ in range(50):
        assert turns(desk, 1, 4) == [0]
        desk.push("short")
        assert turns(desk, 1, 4) == [1]


def test_many_short_ones_leave_the_long_one_its_share() -> None:
    desk = Desk()
    for i in range(1000):
        desk.push(str(i))
    before = turns(desk, 40, 4)
    assert before[0] == HEAD_START
    # three rows of short ones for each row of the long one: 12 a chunk of 4
    assert before[1:] == [12] * 39


@pytest.mark.parametrize("idle", [Lane.SHORT, Lane.LONG])
def test_a_lane_that_was_idle_has_no_credit(idle: Lane) -> None:
    desk = Desk()
    busy = Lane.LONG if idle is Lane.SHORT else Lane.SHORT
    for _ in range(500):  # only one lane has work for a long time
        desk.push("alone", lane=busy)
        assert desk.lanes.next() is not None
        if busy is Lane.LONG:
            desk.lanes.pay(Lane.LONG, 4)
    desk.push("long", lane=Lane.LONG)
    assert desk.name(desk.lanes.next()) == "long"
    for i in range(400):
        desk.push(str(i))
    before = turns(desk, 10, 4)
    assert HEAD_START - 1 <= before[0] <= HEAD_START + 13
    assert set(before[1:]) == {12}


def together(key: str) -> Together:
    return Together(key, np.zeros((1, 2), np.float32), lambda x: {"y": x})


def test_mates_have_the_same_key_and_fit() -> None:
    desk = Desk()
    first = desk.push("first", together=together("a"))
    desk.push("other", together=together("b"))
    desk.push("mate", together=together("a"))
    desk.push("alone")
    desk.push("too many", together=together("a"), rows=3)
    desk.push("mate 2", together=together("a"))
    desk.push("mate 3", together=together("a"))
    assert desk.lanes.next() is first
    assert [desk.name(job) for job in desk.lanes.mates(first, 2)] == ["mate", "mate 2"]
    alone = desk.lanes.next()
    assert desk.name(alone) == "other"
    assert desk.all() == ["alone", "too many", "mate 3"]


def test_a_job_of_its_own_has_no_mates() -> None:
    desk = Desk()
    job = desk.push("alone")
    desk.push("other", together=together("a"))
    assert desk.lanes.next() is job
    assert desk.lanes.mates(job, 8) == []


def test_cleared() -> None:
    desk = Desk()
    for lane in Lane:
        desk.push("x", lane=lane)
    assert len(desk.lanes.clear()) == 2
    assert len(desk.lanes) == 0
