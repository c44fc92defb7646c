"""The broker: what is said to Redis about the queue, beside what Celery says for itself.

Each option here answers a way in which Celery over Redis lost or stalled work (docs/adr).
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import redis

from models.errors import Unavailable
from services.common.settings import Settings

QUEUE = "lesionlens.explanations"
BULK_QUEUE = "lesionlens.bulk"
# In the order in which a worker looks for work: bulk only when nobody waits.
QUEUES = {"interactive": QUEUE, "bulk": BULK_QUEUE}
_CANARY = "lesionlens:canary:"


def transport_options(settings: Settings) -> dict[str, Any]:
    """Options of kombu's Redis transport, the same for whoever sends and whoever consumes."""
    return {
        # Above the longest job, or Redis would deliver a running one again.
        "visibility_timeout": settings.job_seconds + 300,
        # Sweep for abandoned messages every 2 s, not every 100 s.
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        # One BRPOP over all queues, always in the order of QUEUES; the default takes turns.
        "queue_order_strategy": "priority",
        # A dead or hung server is noticed in seconds. BRPOP waits 1 s, well below the timeout.
        "socket_connect_timeout": 2,
        "socket_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 5,
    }


class Broker:
    """A look at the queue. Every call answers within about two seconds or raises Unavailable."""

    def __init__(self, settings: Settings) -> None:
        self._redis = redis.Redis.from_url(
            settings.redis, socket_connect_timeout=1, socket_timeout=2, decode_responses=True
        )

    def check(self) -> None:
        """Raises Unavailable unless the server answers and accepts writes."""
        try:
            self._redis.set("lesionlens:writable", "1", ex=60)
        except redis.RedisError:
            raise down() from None

    def waiting(self) -> set[str]:
        """Ids of the jobs whose task is in a queue, not yet handed to a worker."""
        found: set[str] = set()
        try:
            for queue in QUEUES.values():
                for start in range(0, 1_000_000, 1000):
                    page: Any = self._redis.lrange(queue, start, start + 999)
                    found.update(filter(None, map(_job_of, page)))
                    if len(page) < 1000:
                        break
        except redis.RedisError:
            raise down() from None
        return found

    def length(self) -> int:
        """Messages in all queues."""
        try:
            return sum(int(self._redis.llen(queue)) for queue in QUEUES.values())  # type: ignore[arg-type]
        except redis.RedisError:
            raise down() from None

    def canary_token(self) -> str:
        return secrets.token_hex(8)

    def canary_sing(self, token: str) -> None:
        """Called by the worker that got the canary's task out of the queue."""
        self._redis.set(_CANARY + token, "1", ex=300)

    def canary_heard(self, token: str, seconds: float) -> bool:
        """Wait for the answer. False after `seconds`, or while Redis is down."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self._redis.exists(_CANARY + token):
                    return True
            except redis.RedisError:
                pass
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)

    def close(self) -> None:
        self._redis.close()


def down() -> Unavailable:
    return Unavailable("the queue cannot be reached; try again", retry_after=5, code="redis_down")


def _job_of(message: str) -> str | None:
    """A Celery message's task id is '<job id>.<random>'."""
    try:
        task_id = json.loads(message)["headers"]["id"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(task_id).split(".")[0]
