"""A stream: in order, a few at once, nothing read ahead, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from services.inference.grpc_stream import answered


class Work:
    """Answers with the request; later requests are done sooner, or, if `slow`, never."""

    def __init__(self, count: int, *, slow: bool = False) -> None:
        self.count, self.slow = count, slow
        self.read = self.running = self.most = self.cancelled = 0

    async def requests(self) -> AsyncIterator[int]:
        for index in range(self.count):
            self.read += 1
            yield index

    async def answer(self, index: int) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            hours = self.slow and index > 0
            await asyncio.sleep(3600 if hours else 0.002 * (self.count - index))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return index


@pytest.mark.parametrize("limit", [1, 3, 50])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_in_order_and_bounded(count: int, limit: int) -> None:
    async def run() -> None:
        work = Work(count)
        assert [a async for a in answered(work.requests(), work.answer, limit)] == [*range(count)]
        assert work.most <= limit

    asyncio.run(run())


def test_what_nobody_takes_is_not_worked_on() -> None:
    async def run() -> None:
        work = Work(100)
        async with aclosing(answered(work.requests(), work.answer, 3)) as answers:
            assert await anext(answers) == 0
            await asyncio.sleep(1)  # long enough for all hundred
            assert work.read <= 4
            assert await anext(answers) == 1
        assert work.running == 0

    asyncio.run(run())


def test_who_leaves_cancels_what_is_under_way() -> None:
    async def run() -> None:
        work = Work(100, slow=True)
        async with aclosing(answered(work.requests(), work.answer, 5)) as answers:
            await anext(answers)
        assert work.running == 0
        assert work.cancelled > 0

    asyncio.run(run())


def test_requests_that_break_off() -> None:
    async def run() -> None:
        work = Work(3)

        async def broken() -> AsyncIterator[int]:
            async for index in work.requests():
                yield index
            raise ConnectionError

        answers = answered(broken(), work.answer, 2)
        assert [await anext(answers) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ConnectionError):
            await anext(answers)

    asyncio.run(run())
