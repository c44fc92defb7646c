"""Events of a job on their way to clients: a Redis stream a job, short-lived.

The ledger is the truth; events only make it quick. So publishing never fails a job, and a reader
that finds Redis down polls the ledger instead.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import redis
import redis.asyncio

from models.errors import Unavailable

KEEP_EVENTS = 1000
KEEP_SECONDS = 3600
START = "0-0"

_log = logging.getLogger(__name__)
_ID = re.compile(r"\d{1,20}-\d{1,20}")

Kind = Literal["state", "progress"]


@dataclass(frozen=True)
class Event:
    """`id` grows within a job: '<milliseconds>-<number>'."""

    id: str
    kind: Kind
    data: dict[str, Any]


class Events(Protocol):
    """What the worker and the API need of an event channel."""

    def publish(self, job_id: str, kind: Kind, data: dict[str, Any]) -> None:
        """Append; never raises, as the ledger has it anyway."""
        ...

    async def read(self, job_id: str, after: str, wait: float) -> list[Event]:
        """Events after the id, at once where there are any, else within `wait` seconds, else [].

        Raises Unavailable where the channel is down.
        """
        ...

    async def close(self) -> None: ...


def last_event_id(text: str | None) -> str:
    """A client's Last-Event-ID, or the start where it is missing or no id of ours."""
    return text if text and _ID.fullmatch(text) else START


class RedisEvents:
    """XADD with MAXLEN and a TTL; XREAD BLOCK, resumable by id."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._writer = redis.Redis.from_url(
            url, socket_connect_timeout=1, socket_timeout=2, decode_responses=True
        )
        self._readers: dict[int, redis.asyncio.Redis] = {}
        self._down_since: float | None = None

    def publish(self, job_id: str, kind: Kind, data: dict[str, Any]) -> None:
        if self._down_since is not None and time.monotonic() - self._down_since < 1:
            return  # do not make every progress step wait for a dead server
        key = _key(job_id)
        try:
            pipe = self._writer.pipeline(transaction=False)
            pipe.xadd(
                key, {"kind": kind, "data": json.dumps(data)}, maxlen=KEEP_EVENTS, approximate=True
            )
            pipe.expire(key, KEEP_SECONDS)
            pipe.execute()
            self._down_since = None
        except redis.RedisError as error:
            if self._down_since is None:
                _log.warning("events are not published: %s", type(error).__name__)
            self._down_since = time.monotonic()

    async def read(self, job_id: str, after: str, wait: float) -> list[Event]:
        try:
            found: Any = await self._reader().xread(
                {_key(job_id): after}, count=200, block=max(int(wait * 1000), 1)
            )
        except (redis.RedisError, OSError):
            raise Unavailable("the event channel cannot be reached", code="redis_down") from None
        if not found:
            return []
        entries = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
        return [Event(i, f["kind"], json.loads(f["data"])) for i, f in entries]

    def _reader(self) -> redis.asyncio.Redis:
        """One client an event loop: its connections belong to the loop that opened them."""
        loop = id(asyncio.get_running_loop())
        if loop not in self._readers:
            self._readers[loop] = redis.asyncio.Redis.from_url(
                self._url, socket_connect_timeout=1, socket_timeout=30, decode_responses=True
            )
        return self._readers[loop]

    async def close(self) -> None:
        reader = self._readers.pop(id(asyncio.get_running_loop()), None)
        if reader is not None:
            await reader.aclose()
        self._writer.close()


def _key(job_id: str) -> str:
    return f"lesionlens:events:{job_id}"


@dataclass
class MemoryEvents:
    """The same channel inside one process, for tests and notebooks."""

    _streams: dict[str, list[Event]] = field(default_factory=dict)

    def publish(self, job_id: str, kind: Kind, data: dict[str, Any]) -> None:
        stream = self._streams.setdefault(job_id, [])
        stream.append(Event(f"{time.time_ns() // 1_000_000}-{len(stream)}", kind, data))
        del stream[:-KEEP_EVENTS]

    async def read(self, job_id: str, after: str, wait: float) -> list[Event]:
        end = time.monotonic() + wait
        while True:
            found = [e for e in self._streams.get(job_id, []) if _order(e.id) > _order(after)]
            if found or time.monotonic() >= end:
                return found[:200]
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        self._streams.clear()


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, number = event_id.split("-")
    return int(milliseconds), int(number)
