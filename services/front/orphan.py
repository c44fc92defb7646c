"""A worker whose supervisor was killed would serve on, unsupervised, and keep the port: it ends."""

from __future__ import annotations

import asyncio
import os
import signal

PERIOD_SECONDS = 1.0


async def end_with_parent(parent: int) -> None:
    """Until cancelled: when this process gets another parent than `parent`, ask it to end."""
    while os.getppid() == parent:
        await asyncio.sleep(PERIOD_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
