"""Server-sent events of a job, fed by the event channel and backed by the ledger.

    id: 1764000000000-0          (resume with Last-Event-ID)
    event: state | progress
    data: {"id": ..., "state": ..., "stage": ..., "progress": ...}

Ends after the final state. While Redis is down, or where it forgot, the ledger is polled instead;
what comes from there has no id of its own, so that a client resumes where the channel was. A final
event may be of an earlier life of the job (it failed and was asked for again), so the end is told
by the ledger alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool

from models.errors import Unavailable
from services.common.events import START, Event
from services.common.ledger import Job
from services.explain.jobs import Jobs, event_data
from wire.api import JobState

POLL = 1.0
HEARTBEAT = 10.0


async def stream(jobs: Jobs, job: Job, after: str) -> AsyncIterator[bytes]:
    """The body of the response. `job`: as just found; after: the last event that the client saw."""
    yield b"retry: 1000\n\n"
    spoke = time.monotonic()
    told: dict[str, Any] | None = None
    wait = 0.05  # the first look is short: a finished job answers at once
    while True:
        events = await _read(jobs, job.id, after, wait)
        for event in events:
            after = event.id
            if not _final(event):  # of a final state the ledger has the word: see below
                told = event.data
                yield _frame(event.kind, event.data, event.id)
                spoke = time.monotonic()
        now = await _now(jobs, job.id)
        data = event_data(now) if now is not None else told
        if now is not None and now.state.final:
            yield _frame("state", event_data(now), after if after != START else None)
            return
        if not events and data is not None and data != told:
            kind = "progress" if told and told["state"] == data["state"] else "state"
            told = data
            yield _frame(kind, data, None)
            spoke = time.monotonic()
        elif time.monotonic() - spoke >= HEARTBEAT:
            yield b": still there\n\n"
            spoke = time.monotonic()
        wait = POLL


async def _read(jobs: Jobs, job_id: str, after: str, wait: float) -> list[Event]:
    try:
        return await jobs.events.read(job_id, after, wait)
    except Unavailable:
        await asyncio.sleep(wait)
        return []


async def _now(jobs: Jobs, job_id: str) -> Job | None:
    try:
        return await run_in_threadpool(jobs.ledger.get, job_id)
    except Unavailable:
        return None


def _final(event: Event) -> bool:
    return event.kind == "state" and JobState(event.data["state"]).final


def _frame(kind: str, data: dict[str, Any], event_id: str | None) -> bytes:
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
