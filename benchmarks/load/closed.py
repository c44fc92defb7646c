"""A closed loop of c clients over one server: as soon as an answer is there, the next request.

`wrk` where it is installed; else the client of this package, in a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.endpoint import Endpoint
from benchmarks.spread import quantile_of_counts

LUA = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    """What a client saw. latencies_us: (microseconds, how often). client_cpu: its CPU-seconds."""

    requests: int
    seconds: float
    latencies_us: tuple[tuple[int, int], ...]
    client_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        return pooled_quantile([self], share)


def pooled_quantile(loads: list[Load], share: float) -> float:
    """Milliseconds, over all answers of all rounds."""
    seen = [pair for load in loads for pair in load.latencies_us]
    found = quantile_of_counts([v for v, _ in seen], [n for _, n in seen], share)
    return float("nan") if found is None else found / 1e3


def client_name() -> str:
    """Which client `closed_loop` uses."""
    return "wrk" if shutil.which("wrk") else "asyncio"


def closed_loop(endpoint: Endpoint, concurrency: int, seconds: int) -> Load:
    """Load for about `seconds`. Raises RuntimeError where any answer was an error."""
    with tempfile.TemporaryDirectory() as folder:
        about = endpoint.written(Path(folder))
        if client_name() == "wrk":
            command = [
                "wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "--timeout", "20s",
                "-s", str(LUA), endpoint.url,
            ]  # fmt: skip
        else:
            command = [
                sys.executable, "-m", "benchmarks.load.client", str(about),
                "--clients", str(concurrency), "--seconds", str(seconds),
            ]  # fmt: skip
        return run(command, Path(folder))


def run(command: list[str], folder: Path, allow_errors: bool = False) -> Load:
    """Run a client that prints a line 'BENCH {...}'."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        env=os.environ | {"BENCH_REQUEST": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line for line in done.stdout.splitlines() if line.startswith("BENCH ")]
    if done.returncode or not lines:
        raise RuntimeError(f"{command[0]} failed: {(done.stderr or done.stdout)[-500:]}")
    found = json.loads(lines[-1].removeprefix("BENCH "))
    if found["errors"] and not allow_errors:
        raise RuntimeError(f"{found['errors']} of {found['requests']} answers were errors")
    return Load(
        requests=found["requests"],
        seconds=found["seconds"],
        latencies_us=tuple((int(v), int(n)) for v, n in found["latencies_us"]),
        client_cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )
