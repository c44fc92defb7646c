"""The embedded server, and what the broker says of a queue on both servers."""

from __future__ import annotations

import base64
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from models.errors import Unavailable
from services.common import embedded_redis
from services.common.broker import Broker
from services.common.settings import Settings
from services.explain.celery_app import make_app, send_canary, send_job
from tests.support.redis_servers import RedisServer, require


def settings_for(server: RedisServer, home: Path) -> Settings:
    return Settings(home=home, redis_url=server.url)


def test_the_embedded_server_is_safe_by_its_options(tmp_path: Path) -> None:
    command = embedded_redis.command(Settings(home=tmp_path, redis_port=1234))
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--bind"] == "127.0.0.1"
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert Path(options["--dir"]) == tmp_path / "redis"


def test_the_queue_lists_the_jobs_that_wait(redis_server: RedisServer, tmp_path: Path) -> None:
    settings = settings_for(redis_server, tmp_path)
    broker, app = Broker(settings), make_app(settings)
    broker.check()
    assert broker.waiting() == set()
    for i in range(3):
        send_job(app, f"exp-{i}")
    send_job(app, "exp-1")  # twice does no harm
    send_canary(app, "abc")
    assert broker.waiting() - {"canary-abc"} == {"exp-0", "exp-1", "exp-2"}
    assert broker.length() == 5
    app.close()


def test_a_message_carries_the_job_id_as_json_and_nothing_else(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = settings_for(redis_server, tmp_path)
    client: Any = redis.Redis.from_url(redis_server.url, decode_responses=True)
    client.flushall()
    app = make_app(settings)
    send_job(app, "exp-7")
    (raw,) = client.lrange("lesionlens.explanations", 0, -1)
    message = json.loads(raw)
    assert message["content-type"] == "application/json"
    arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, keywords) == (["exp-7"], {})
    client.close()
    app.close()


def test_what_was_queued_survives_kill_9_of_the_server(tmp_path: Path) -> None:
    server = RedisServer("embedded", tmp_path / "redis")
    server.start()
    try:
        settings = settings_for(server, tmp_path)
        app, broker = make_app(settings), Broker(settings)
        send_job(app, "exp-1")
        time.sleep(1.5)  # appendfsync everysec
        server.kill()
        started = time.monotonic()
        with pytest.raises(Unavailable):
            broker.check()
        with pytest.raises(Unavailable) as refused:
            send_job(app, "exp-2")
        assert time.monotonic() - started < 6
        assert refused.value.retry_after > 0
        server.start()
        broker.check()
        assert broker.waiting() == {"exp-1"}
        send_job(app, "exp-3")  # over the same app, whose connection was cut
        assert broker.waiting() == {"exp-1", "exp-3"}
    finally:
        server.kill()


@pytest.mark.parametrize("kind", ["redis-server"])
def test_a_server_that_hangs_is_noticed_in_seconds(tmp_path: Path, kind: str) -> None:
    require(kind)
    server = RedisServer(kind, tmp_path / "redis")
    server.start()
    try:
        settings = settings_for(server, tmp_path)
        app, broker = make_app(settings), Broker(settings)
        send_job(app, "exp-1")
        server.signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(Unavailable):
            broker.check()
        assert time.monotonic() - started < 4
        server.signal(signal.SIGCONT)
    finally:
        server.kill()
