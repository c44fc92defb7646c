"""A stream of requests: some are worked on at once, the answers go out in the order of asking.

    requests --at most `limit` under way--> tasks in order --> answers

No more are read than are under way, so that a fast client is held back by HTTP/2's flow control.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


async def answered(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Awaitable[Answer]],
    limit: int,
) -> AsyncGenerator[Answer]:
    """answer: raises for no request. When the stream is left, what is under way is cancelled."""
    places = asyncio.Semaphore(limit)
    under_way: asyncio.Queue[asyncio.Future[Answer] | None] = asyncio.Queue()
    begun: set[asyncio.Future[Answer]] = set()

    async def read() -> None:
        try:
            await places.acquire()
            async for request in requests:
                task = asyncio.ensure_future(answer(request))
                begun.add(task)
                task.add_done_callback(begun.discard)
                under_way.put_nowait(task)
                await places.acquire()
        finally:
            under_way.put_nowait(None)

    reading = asyncio.ensure_future(read())
    try:
        while (task := await under_way.get()) is not None:
            found = await task
            yield found
            places.release()  # not before it was taken: answers that nobody reads pile up nowhere
        await reading  # a client that broke off raises here
    finally:
        reading.cancel()
        for left in list(begun):
            left.cancel()
        await asyncio.gather(reading, *begun, return_exceptions=True)
