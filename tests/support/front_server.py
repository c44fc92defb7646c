"""Starts and stops the front door as a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.cli.stack import free_ports


@dataclass(frozen=True)
class Front:
    """A running `python -m services.front.serve`."""

    url: str
    bundle: Path
    process: subprocess.Popen[bytes]
    stderr: Path
    grpc: str = ""

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]


def free_port() -> int:
    return free_ports(1)[0]


def front_environment(bundle: Path, home: Path, port: int, **more: str) -> dict[str, str]:
    return os.environ | {
        "LESIONLENS_BUNDLE": str(bundle),
        "LESIONLENS_HOME": str(home),
        "LESIONLENS_HOST": "127.0.0.1",
        "LESIONLENS_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        **more,
    }


def start_front(bundle: Path, home: Path, port: int, **more: str) -> subprocess.Popen[bytes]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "stderr.log").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "services.front.serve"],
            env=front_environment(bundle, home, port, **more),
            stdout=err,
            stderr=err,
            start_new_session=True,
        )


def await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"the front door did not get ready (exit {process.poll()}):\n{log.read_text()}")


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask it to end, as an orchestrator does; kill what is left."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait(10)
