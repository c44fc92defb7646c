"""The event channel's contract, over both Redis servers and in memory."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest
import redis

from models.errors import Unavailable
from services.common.events import (
    KEEP_SECONDS,
    START,
    Event,
    Events,
    MemoryEvents,
    RedisEvents,
    last_event_id,
)
from tests.support.redis_servers import RedisServer


async def _contract(events: Events) -> None:
    job = f"exp-{uuid.uuid4().hex}"
    assert await events.read(job, START, 0.05) == []
    for i in range(3):
        events.publish(job, "progress", {"progress": i / 10, "stage": "Leber–Läsion"})
    events.publish(f"{job}-other", "state", {"state": "done"})

    first = await events.read(job, START, 1)
    assert [e.data["progress"] for e in first] == [0.0, 0.1, 0.2]
    assert {e.kind for e in first} == {"progress"}
    assert first[0].data["stage"] == "Leber–Läsion"
    # Resume: only what comes after the last one seen.
    assert await events.read(job, first[1].id, 1) == first[2:]
    assert await events.read(job, first[2].id, 0.05) == []

    # A reader that waits gets what is published meanwhile, at once.
    async def later() -> None:
        await asyncio.sleep(0.2)
        events.publish(job, "state", {"state": "done"})

    started = time.monotonic()
    task = asyncio.create_task(later())
    found: list[Event] = await events.read(job, first[2].id, 5)
    await task
    assert [e.data for e in found] == [{"state": "done"}]
    assert time.monotonic() - started < 3
    await events.close()


def test_memory_keeps_the_contract() -> None:
    asyncio.run(_contract(MemoryEvents()))


def test_redis_keeps_the_contract(redis_server: RedisServer) -> None:
    asyncio.run(_contract(RedisEvents(redis_server.url)))


def test_events_are_bounded_and_expire(redis_server: RedisServer) -> None:
    events = RedisEvents(redis_server.url)
    for i in range(2500):
        events.publish("exp-many", "progress", {"i": i})
    client: Any = redis.Redis.from_url(redis_server.url)
    assert client.xlen("lesionlens:events:exp-many") <= 1200
    assert 0 < client.ttl("lesionlens:events:exp-many") <= KEEP_SECONDS
    client.close()


@pytest.mark.parametrize("text", [None, "", "abc", "1; DROP", "9" * 40 + "-0"])
def test_a_foreign_last_event_id_means_the_start(text: str | None) -> None:
    assert last_event_id(text) == START
    assert last_event_id("1764000000000-3") == "1764000000000-3"


def test_publishing_without_redis_neither_raises_nor_hangs() -> None:
    events = RedisEvents("redis://127.0.0.1:1/0")
    started = time.monotonic()
    for i in range(100):
        events.publish("exp-1", "progress", {"i": i})
    assert time.monotonic() - started < 5
    with pytest.raises(Unavailable):
        asyncio.run(events.read("exp-1", START, 0.1))
