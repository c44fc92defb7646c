"""The scheduler, with calls that end when the test says so: bounds, deadlines, turns, merging."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import DeadlineExceeded, Unavailable
from models.turns import make_way
from services.inference.lanes import FIRST, Lane, Rows, Together, Work
from services.inference.scheduler import Scheduler

LONG = Work(Lane.LONG, rows=8)


class Gate:
    """A call that waits inside until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.open.wait(10)
        return "done"


@asynccontextmanager
async def running(threads: int = 1, queue: int = 8, **merge: Any) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(threads, queue, **merge)
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.close()


@asynccontextmanager
async def busy(scheduler: Scheduler) -> AsyncIterator[Gate]:
    """One thread is taken until the block ends or the gate is opened."""
    gate = Gate()
    task = asyncio.create_task(scheduler.run(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    try:
        yield gate
    finally:
        gate.open.set()
        await task


def alive(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def settled(task: Awaitable[Any]) -> Any:
    """The result, or the exception as a value."""
    return (await asyncio.gather(task, return_exceptions=True))[0]


def test_results_and_errors_come_back() -> None:
    async def test() -> None:
        async with running() as scheduler:
            assert await scheduler.run(lambda: 7) == 7
            with pytest.raises(ZeroDivisionError):
                await scheduler.run(lambda: 1 // 0)
            assert await scheduler.run(lambda: 8) == 8  # the thread lives on

    alive(test)


def test_before_the_start_and_after_the_end() -> None:
    async def test() -> None:
        scheduler = Scheduler(1, 1)
        with pytest.raises(Unavailable):
            await scheduler.run(lambda: 1)
        scheduler.start()
        gate = Gate()
        runs = asyncio.create_task(scheduler.run(gate))
        await asyncio.to_thread(gate.entered.wait, 10)
        waits = asyncio.create_task(scheduler.run(lambda: 1))
        await asyncio.sleep(0)
        closing = asyncio.create_task(scheduler.close())
        turned_away = await settled(waits)
        assert isinstance(turned_away, Unavailable)
        assert turned_away.code == "stopping"
        assert not closing.done()
        gate.open.set()
        assert await runs == "done"
        await closing
        with pytest.raises(Unavailable):
            await scheduler.run(lambda: 1)

    alive(test)


def test_places_are_bounded_and_come_back() -> None:
    scheduler = Scheduler(1, 1)
    with scheduler.admit(), scheduler.admit():
        with pytest.raises(Unavailable) as full, scheduler.admit():
            pass
        assert full.value.code == "queue_full"
        assert full.value.retry_after >= 1
    with pytest.raises(KeyError), scheduler.admit():
        raise KeyError
    with scheduler.admit(), scheduler.admit():
        pass


def test_who_leaves_while_waiting_is_never_run() -> None:
    async def test() -> None:
        ran: list[str] = []
        async with running() as scheduler:
            async with busy(scheduler):
                gone = asyncio.create_task(scheduler.run(lambda: ran.append("gone")))
                stays = asyncio.create_task(scheduler.run(lambda: ran.append("stays")))
                await asyncio.sleep(0)
                gone.cancel()
                assert isinstance(await settled(gone), asyncio.CancelledError)
            await stays
        assert ran == ["stays"]

    alive(test)


def test_a_deadline_that_passes_while_waiting_is_said_at_once() -> None:
    async def test() -> None:
        ran: list[str] = []
        async with running() as scheduler, busy(scheduler) as gate:
            work = Work(deadline=time.monotonic() + 0.05)
            with pytest.raises(DeadlineExceeded) as late:
                await scheduler.run(lambda: ran.append("late"), work)
            assert late.value.status == 504
            assert late.value.code == "deadline_exceeded"
            assert not gate.open.is_set()  # said while the other still ran
            with pytest.raises(DeadlineExceeded):
                await scheduler.run(lambda: ran.append("late"), Work(deadline=time.monotonic()))
        assert ran == []

    alive(test)


def test_a_deadline_in_time_changes_nothing() -> None:
    async def test() -> None:
        async with running() as scheduler:
            work = Work(deadline=time.monotonic() + 20)
            assert await scheduler.run(lambda: 3, work) == 3

    alive(test)


def test_priorities_order_what_waits() -> None:
    async def test() -> None:
        ran: list[str] = []
        async with running() as scheduler:
            async with busy(scheduler):
                tasks = [
                    asyncio.create_task(scheduler.run(lambda: ran.append("normal"))),
                    asyncio.create_task(scheduler.run(lambda: ran.append("long"), LONG)),
                    asyncio.create_task(
                        scheduler.run(lambda: ran.append("first"), Work(priority=FIRST))
                    ),
                ]
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
        assert ran == ["first", "normal", "long"]

    alive(test)


class LongCall:
    """Chunks that begin one by one, as the test allows."""

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks
        self.begun = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)
        self.ran = 0
        self.threads: set[str] = set()

    def __call__(self) -> str:
        for _ in range(self.chunks):
            make_way(4)
            self.ran += 1
            self.threads.add(threading.current_thread().name)
            self.begun.release()
            assert self.allowed.acquire(timeout=10)
        return "long"

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, True, 10)


def test_a_short_one_waits_for_one_chunk_only() -> None:
    async def test() -> None:
        async with running(threads=1) as scheduler:
            call = LongCall(chunks=3)
            long = asyncio.create_task(scheduler.run(call, LONG))
            await call.has_begun()
            seen: list[int] = []
            short = asyncio.create_task(scheduler.run(lambda: seen.append(call.ran)))
            await asyncio.sleep(0.01)
            assert not short.done()
            call.allowed.release()  # the chunk that runs ends
            await short
            assert seen == [1]  # before the second chunk began
            assert not long.done()
            call.allowed.release(2)
            assert await long == "long"

    alive(test)


def test_a_short_one_that_fails_does_not_touch_the_long_one() -> None:
    async def test() -> None:
        async with running(threads=1) as scheduler:
            call = LongCall(chunks=2)
            long = asyncio.create_task(scheduler.run(call, LONG))
            await call.has_begun()
            short = asyncio.create_task(scheduler.run(lambda: 1 // 0))
            await asyncio.sleep(0)
            call.allowed.release(2)
            assert isinstance(await settled(short), ZeroDivisionError)
            assert await long == "long"

    alive(test)


def test_a_long_one_ends_at_its_next_chunk_when_its_client_leaves() -> None:
    async def test() -> None:
        async with running(threads=1) as scheduler:
            call = LongCall(chunks=100)
            long = asyncio.create_task(scheduler.run(call, LONG))
            await call.has_begun()
            long.cancel()
            assert isinstance(await settled(long), asyncio.CancelledError)
            call.allowed.release(100)
            assert await scheduler.run(lambda: call.ran) == 1

    alive(test)


def test_a_long_one_ends_at_its_next_chunk_when_its_deadline_passes() -> None:
    async def test() -> None:
        async with running(threads=1) as scheduler:
            call = LongCall(chunks=100)
            work = Work(Lane.LONG, rows=400, deadline=time.monotonic() + 0.1)
            long = asyncio.create_task(scheduler.run(call, work))
            await call.has_begun()
            await asyncio.sleep(0.15)
            call.allowed.release(100)
            assert isinstance(await settled(long), DeadlineExceeded)
            assert call.ran < 100

    alive(test)


class Network:
    """Doubles its rows and notes how many came at once."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, x: NDArray[np.float32]) -> Rows:
        self.calls.append(len(x))
        if (x < 0).any() and len(x) > 1:
            raise ValueError("a row that breaks a shared call")
        return {"twice": 2 * x, "sum": x.sum(axis=1)}

    def work(self, value: float, key: str = "a") -> tuple[Callable[[], Rows], Work]:
        x = np.full((1, 3), value, np.float32)
        return lambda: self(x), Work(together=Together(key, x, self))


async def ask(scheduler: Scheduler, network: Network, values: list[float], key: str = "a") -> Any:
    tasks = [
        asyncio.create_task(settled(scheduler.run(*network.work(value, key)))) for value in values
    ]
    await asyncio.sleep(0)
    return tasks


def test_rows_that_shared_a_call_go_back_to_their_owners() -> None:
    async def test() -> None:
        network = Network()
        async with running(merge_rows=3) as scheduler:
            async with busy(scheduler):
                tasks = await ask(scheduler, network, [1, 2, 3, 4])
            answers = await asyncio.gather(*tasks)
        assert network.calls == [3, 1]
        for value, answer in enumerate(answers, start=1):
            assert answer["twice"].tolist() == [[2 * value] * 3]
            assert answer["sum"].tolist() == [3 * value]

    alive(test)


def test_by_default_nothing_is_shared_nor_delayed() -> None:
    async def test() -> None:
        network = Network()
        async with running() as scheduler:
            async with busy(scheduler):
                tasks = await ask(scheduler, network, [1, 2, 3])
            await asyncio.gather(*tasks)
        assert network.calls == [1, 1, 1]

    alive(test)


def test_other_keys_and_long_work_are_not_merged() -> None:
    async def test() -> None:
        network = Network()
        async with running(merge_rows=8) as scheduler:
            async with busy(scheduler):
                tasks = await ask(scheduler, network, [1, 2])
                tasks += await ask(scheduler, network, [3], key="b")
                call, _ = network.work(4)
                tasks.append(asyncio.create_task(scheduler.run(call, LONG)))
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
        assert network.calls == [2, 1, 1]

    alive(test)


def test_where_a_shared_call_fails_each_gets_its_own() -> None:
    async def test() -> None:
        network = Network()
        async with running(merge_rows=8) as scheduler:
            async with busy(scheduler):
                tasks = await ask(scheduler, network, [1, -2, 3])
            answers = await asyncio.gather(*tasks)
        assert network.calls == [3, 1, 1, 1]
        assert [a["sum"].tolist() for a in answers] == [[3], [-6], [9]]

    alive(test)


def test_who_leaves_is_not_in_the_shared_call() -> None:
    async def test() -> None:
        network = Network()
        async with running(merge_rows=8) as scheduler:
            async with busy(scheduler):
                tasks = [
                    asyncio.create_task(scheduler.run(*network.work(value))) for value in (1, 2, 3)
                ]
                await asyncio.sleep(0)
                tasks[1].cancel()
                await asyncio.sleep(0)
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert network.calls == [2]
        assert answers[0]["sum"].tolist() == [3]
        assert isinstance(answers[1], asyncio.CancelledError)
        assert answers[2]["sum"].tolist() == [9]

    alive(test)


def test_the_first_waits_for_others_but_not_past_its_delay() -> None:
    async def test() -> None:
        network = Network()
        async with running(threads=2, merge_rows=3, merge_seconds=5.0) as scheduler:
            tasks = await ask(scheduler, network, [1, 2])
            # One that cannot join must not be held up by the thread that waits for mates.
            assert await scheduler.run(lambda: "through", LONG) == "through"
            tasks += await ask(scheduler, network, [3])
            await asyncio.gather(*tasks)
            assert network.calls == [3]
        async with running(merge_rows=3, merge_seconds=0.05) as scheduler:
            assert await asyncio.gather(*await ask(scheduler, network, [1]))
            assert network.calls == [3, 1]

    alive(test)


def test_the_first_waits_no_longer_than_its_deadline_allows() -> None:
    async def test() -> None:
        network = Network()
        async with running(merge_rows=3, merge_seconds=60.0) as scheduler:
            call, work = network.work(1)
            soon = Work(together=work.together, deadline=time.monotonic() + 4)
            answer = await asyncio.wait_for(scheduler.run(call, soon), 20)
            assert answer["sum"].tolist() == [3]

    alive(test)
