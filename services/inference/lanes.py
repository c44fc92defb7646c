"""Work that waits: two lanes, and which job is next.

    short: a prediction, at most one chunk of rows   weight 3 --\\
                                                                 > the lane that has had less
    long:  recipes, gradients, many rows             weight 1 --/   of its share goes first

Start-time fair queueing (Goyal, Vin and Cheng, 1996) with rows as the cost: a lane that was idle
has no credit. Short work may be ahead of its share by a head start, so that a few predictions never
wait for a chunk that has not begun. Within a lane the smaller priority number goes first, then who
came first. Nothing here locks or sleeps.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST, NORMAL, LAST = 1, 2, 3
Rows = dict[str, NDArray]


class Lane(Enum):
    SHORT = "short"
    LONG = "long"


COST = {Lane.SHORT: 1, Lane.LONG: 3}
"""What a row counts: with both lanes full, three short rows run for each long one."""
HEAD_START = 24
"""Rows of short work that go at once, whatever long work waits."""


@dataclass(frozen=True, slots=True)
class Together:
    """How a job's rows may share one call with those of others that have the same key.

    x: [B, ...]. call: stacked x -> arrays whose first axis is the rows, in order.
    """

    key: Hashable
    x: NDArray[np.float32]
    call: Callable[[NDArray[np.float32]], Rows]


@dataclass(frozen=True, slots=True)
class Work:
    """What has to be known of a call before it runs. deadline: seconds of time.monotonic()."""

    lane: Lane = Lane.SHORT
    rows: int = 1
    priority: int = NORMAL
    deadline: float | None = None
    together: Together | None = None


@dataclass(eq=False, slots=True)
class Job:
    """One call and the future that its caller waits for. entered: time.monotonic()."""

    call: Callable[[], Any]
    work: Work
    future: asyncio.Future[Any]
    entered: float
    number: int
    withdrawn: bool = field(default=False)

    def __lt__(self, other: Job) -> bool:
        return (self.work.priority, self.number) < (other.work.priority, other.number)

    def late(self, now: float) -> bool:
        return self.work.deadline is not None and self.work.deadline <= now


class Lanes:
    """The waiting jobs. Not thread-safe: the scheduler holds its lock."""

    def __init__(self) -> None:
        self._waiting: dict[Lane, list[Job]] = {lane: [] for lane in Lane}
        self._had = dict.fromkeys(Lane, 0)  # rows by cost, as a virtual time
        self._now = 0  # virtual time of what was begun last

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._waiting.values())

    def push(self, job: Job) -> None:
        jobs = self._waiting[job.work.lane]
        if not jobs:
            self._had[job.work.lane] = max(self._had[job.work.lane], self._now)
        insort(jobs, job)

    def remove(self, job: Job) -> bool:
        """True where the job was still waiting."""
        jobs = self._waiting[job.work.lane]
        for at, other in enumerate(jobs):
            if other is job:
                del jobs[at]
                return True
        return False

    def next(self) -> Job | None:
        """The job that a free thread takes."""
        short, long = self._waiting[Lane.SHORT], self._waiting[Lane.LONG]
        if not short and not long:
            return None
        if not long or (short and self._short_first()):
            return self._begin(short)
        return self._waiting[Lane.LONG].pop(0)  # it pays chunk by chunk

    def next_short(self) -> Job | None:
        """The short job that a long one has to make way for, if any."""
        short = self._waiting[Lane.SHORT]
        return self._begin(short) if short and self._short_first() else None

    def mates(self, job: Job, room: int) -> list[Job]:
        """Take out of the short lane what may share the job's call, at most `room` rows."""
        together = job.work.together
        if together is None:
            return []
        found: list[Job] = []
        for other in list(self._waiting[Lane.SHORT]):
            if room < 1:
                break
            theirs = other.work.together
            if theirs is not None and theirs.key == together.key and other.work.rows <= room:
                self.remove(other)
                self.pay(Lane.SHORT, other.work.rows)
                room -= other.work.rows
                found.append(other)
        return found

    def pay(self, lane: Lane, rows: int) -> None:
        """Rows of a lane begin to run."""
        self._now = max(self._now, self._had[lane])
        self._had[lane] += rows * COST[lane]

    def clear(self) -> list[Job]:
        """Take out everything."""
        left = [job for jobs in self._waiting.values() for job in jobs]
        for jobs in self._waiting.values():
            jobs.clear()
        return left

    def _short_first(self) -> bool:
        ahead = HEAD_START * COST[Lane.SHORT]
        return self._had[Lane.SHORT] < self._had[Lane.LONG] + ahead

    def _begin(self, short: list[Job]) -> Job:
        job = short.pop(0)
        self.pay(Lane.SHORT, job.work.rows)
        return job
