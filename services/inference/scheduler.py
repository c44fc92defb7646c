"""Runs inference calls: a bounded queue, two lanes, a few threads of its own.

    admit (else 503) --> run --> Lanes --> thread --> one call, or one call for several rows
                          |                  ^
          deadline, leave: taken out         long call, between its chunks: a short one goes in

A place is taken before a body is read, so what waits is bounded whatever clients do. The event loop
only waits; a long call runs in chunks and makes way between them (`turns`), so a one-row prediction
waits for at most one running chunk a thread. Whose client left, or whose deadline passed, is taken
out of the queue and never run; a long call that runs ends at its next chunk.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, TypeVar

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from models.errors import DeadlineExceeded, Unavailable
from models.turns import taking_turns
from services.inference.lanes import Job, Lane, Lanes, Work

T = TypeVar("T")

ADMITTED = Gauge(
    "lesionlens_inference_queue_depth",
    "Admitted requests that are not answered yet.",
    multiprocess_mode="livesum",
)
REFUSED = Counter(
    "lesionlens_inference_refused",
    "Requests that were not run: the queue was full, their deadline passed, their client left.",
    ["reason"],
)
WAIT = Histogram(
    "lesionlens_inference_wait_seconds",
    "From the end of a request's body to the start of its call, by lane.",
    ["lane"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_PLAIN = Work()


class _Withdrawn(Exception):
    """Ends a long call whose caller is gone."""


class Scheduler:
    """Owned by the event loop's thread; its own threads only take jobs and hand back results.

    threads: calls side by side. queue: requests admitted beyond those. merge_rows, merge_seconds:
    how many rows of different requests may share a call, and how long the first waits for others.
    """

    def __init__(
        self, threads: int, queue: int, merge_rows: int = 1, merge_seconds: float = 0.0
    ) -> None:
        self.limit = threads + queue
        self._merge_rows = merge_rows
        self._merge_seconds = merge_seconds
        self._admitted = 0
        self._numbers = count()
        self._lanes = Lanes()
        self._waits: dict[Hashable, list[Job]] = {}  # calls that wait for mates, by key
        self._change = threading.Condition()
        self._idle: list[threading.Lock] = []  # of threads that sleep; releasing one wakes it
        self._open = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"inference-{i}", daemon=True)
            for i in range(threads)
        ]
        self._refused = {r: REFUSED.labels(r) for r in ("queue_full", "deadline", "client_gone")}
        self._wait = {lane: WAIT.labels(lane.value) for lane in Lane}

    def start(self) -> None:
        self._open = True
        for thread in self._threads:
            thread.start()

    async def close(self) -> None:
        """Turn away what waits, wait for what runs."""
        with self._change:
            was_open, self._open = self._open, False
            left = self._lanes.clear()
            self._change.notify_all()
            while self._idle:
                self._wake()
        for job in left:
            self._answer(job, error=Unavailable("the service is stopping", code="stopping"))
        if was_open:
            for thread in self._threads:
                await asyncio.to_thread(thread.join)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place in the queue, to be taken before a body is read. Raises Unavailable when full."""
        if self._admitted >= self.limit:
            self._refused["queue_full"].inc()
            raise Unavailable(
                f"the inference queue is full ({self.limit} requests)",
                code="queue_full",
                retry_after=1,
            )
        self._admitted += 1
        ADMITTED.inc()
        try:
            yield
        finally:
            self._admitted -= 1
            ADMITTED.dec()

    async def run(self, call: Callable[[], T], work: Work = _PLAIN) -> T:
        """Run a call when its turn comes. The caller holds a place from `admit`.

        Cancelling it takes the call out of the queue. Raises Unavailable, DeadlineExceeded.
        """
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        job = Job(call, work, loop.create_future(), now, next(self._numbers))
        if job.late(now):
            raise self._expired()
        with self._change:
            if not self._open:
                raise Unavailable("the model is loading", code="not_ready", retry_after=2)
            if not self._joins(job):
                self._lanes.push(job)
                self._wake()
        timer = None
        if work.deadline is not None:
            timer = loop.call_later(work.deadline - now, self._expire, job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._take_out(job)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        """The thread that ran last: its core still has the network's weights at hand, and with
        threads in turn a light load would find them cold each time. Holds the lock."""
        if self._idle:
            self._idle.pop().release()

    def _take_out(self, job: Job) -> None:
        """Whose caller is gone. Where it runs already, it ends at its next chunk."""
        job.withdrawn = True
        with self._change:
            waiting = self._lanes.remove(job)
        if waiting:
            self._refused["client_gone"].inc()

    def _expire(self, job: Job) -> None:
        with self._change:
            waiting = self._lanes.remove(job)
        if waiting and not job.future.done():
            job.future.set_exception(self._expired())

    def _expired(self) -> DeadlineExceeded:
        self._refused["deadline"].inc()
        return DeadlineExceeded(
            "the deadline passed before the work was done",
            field="timeout",
            expected="more time, or fewer requests at once",
        )

    def _joins(self, job: Job) -> bool:
        """Put a job into a call that waits for mates. Holds the lock."""
        together = job.work.together
        jobs = None if together is None else self._waits.get(together.key)
        if jobs is None or self._room(jobs) < job.work.rows:
            return False
        self._lanes.pay(Lane.SHORT, job.work.rows)
        jobs.append(job)
        if self._room(jobs) < 1:
            self._change.notify_all()
        return True

    # From here on in the scheduler's own threads.

    def _serve(self) -> None:
        while True:
            jobs = self._take()
            if not jobs:
                return
            self._run(jobs)

    def _take(self) -> list[Job]:
        """The next job and who shares its call; nothing once closed."""
        asleep = threading.Lock()
        asleep.acquire()
        while True:
            with self._change:
                job = self._lanes.next()
                if job is not None:
                    return self._gathered(job)
                if not self._open:
                    return []
                self._idle.append(asleep)
            asleep.acquire()

    def _take_short(self) -> list[Job]:
        with self._change:
            job = self._lanes.next_short()
            return [] if job is None else [job, *self._lanes.mates(job, self._room([job]))]

    def _gathered(self, job: Job) -> list[Job]:
        """Holds the lock. Waits for others no longer than the first one's delay, and no longer than
        half of what its deadline leaves."""
        jobs = [job]
        together = job.work.together
        if together is None or self._merge_rows < 2:
            return jobs
        jobs += self._lanes.mates(job, self._room(jobs))
        until = job.entered + self._merge_seconds
        if job.work.deadline is not None:
            until = min(until, (job.entered + job.work.deadline) / 2)
        if together.key not in self._waits:
            self._waits[together.key] = jobs
            while self._open and self._room(jobs) > 0 and (left := until - time.monotonic()) > 0:
                self._change.wait(left)
            del self._waits[together.key]
        return jobs

    def _room(self, jobs: Sequence[Job]) -> int:
        return self._merge_rows - sum(job.work.rows for job in jobs)

    def _run(self, jobs: list[Job]) -> None:
        now = time.monotonic()
        ready = []
        for job in jobs:
            self._wait[job.work.lane].observe(now - job.entered)
            if job.withdrawn:
                self._refused["client_gone"].inc()
            elif job.late(now):
                self._answer(job, error=self._expired())
            else:
                ready.append(job)
        if len(ready) > 1:
            self._run_together(ready)
        elif ready:
            self._run_one(ready[0])

    def _run_one(self, job: Job) -> None:
        long = job.work.lane is Lane.LONG
        try:
            with taking_turns((lambda rows: self._turn(job, rows)) if long else None):
                result = job.call()
        except _Withdrawn:
            self._refused["client_gone"].inc()
        except BaseException as error:
            self._answer(job, error=error)
        else:
            self._answer(job, result)

    def _run_together(self, jobs: list[Job]) -> None:
        """One call for the rows of all; where it fails each gets a call of its own."""
        parts = [job.work.together for job in jobs]
        first = parts[0]
        assert first is not None
        try:
            with taking_turns(None):
                found = first.call(np.concatenate([part.x for part in parts if part is not None]))
        except Exception:
            for job in jobs:
                self._run_one(job)
            return
        at = 0
        for job in jobs:
            end = at + job.work.rows
            self._answer(job, {name: value[at:end] for name, value in found.items()})
            at = end

    def _turn(self, job: Job, rows: int) -> None:
        """Called by a long job before each chunk."""
        while jobs := self._take_short():
            self._run(jobs)
        if job.withdrawn:
            raise _Withdrawn
        if job.late(time.monotonic()):
            raise self._expired()
        with self._change:
            self._lanes.pay(Lane.LONG, rows)

    def _answer(self, job: Job, result: Any = None, error: BaseException | None = None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            job.future.get_loop().call_soon_threadsafe(_settle, job.future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # its caller was cancelled meanwhile
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError("a call raised StopIteration"))
    else:
        future.set_exception(error)
