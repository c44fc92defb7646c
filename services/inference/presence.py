"""Work for a client that may leave: when the connection ends, the work is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

from models.errors import LensError

T = TypeVar("T")
PATIENCE_SECONDS = 0.1


class ClientGone(LensError):
    """Nobody reads the answer; the status, 499, is for the metrics alone."""

    code = "client_gone"
    status = 499


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """The work's result. Raises ClientGone, the work cancelled, when the client leaves first.

    The request's body must have been read. Most work is done before a watch would pay, so it begins
    after a moment of patience.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    watch: asyncio.Task[None] | None = None
    gone = False

    async def wait_for_the_end() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    def begin() -> None:
        nonlocal watch
        watch = loop.create_task(wait_for_the_end())

    timer = loop.call_later(PATIENCE_SECONDS, begin)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientGone("the client left") from None
        raise
    finally:
        timer.cancel()
        if watch is not None:
            watch.cancel()
