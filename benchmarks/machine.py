"""What the kernel says: CPU-seconds and memory of a family of processes, and who else is busy."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil


def pin(cores: int) -> list[int]:
    """Keep this process and all that it starts on the first `cores` of the cores it may use.

    So a figure says what two cores do, however many the machine has. Returns the cores.
    """
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, chosen)
    return chosen


def family(root: psutil.Process) -> list[psutil.Process]:
    """A process and all its descendants that live."""
    with suppress(psutil.NoSuchProcess):
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(roots: Sequence[psutil.Process]) -> float:
    """User and system seconds, to the kernel's tick (10 ms)."""
    total = 0.0
    for root in roots:
        for process in family(root):
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:2])
    return total


def memory_mb(roots: Sequence[psutil.Process]) -> dict[str, float]:
    """rss counts shared pages once a process; pss shares them out, so families add up."""
    rss = pss = 0
    for root in roots:
        for process in family(root):
            with suppress(psutil.Error):
                found = process.memory_full_info()
                rss += found.rss
                pss += found.pss
    return {"rss": round(rss / 1e6, 1), "pss": round(pss / 1e6, 1)}


def rss_mb(roots: Sequence[psutil.Process]) -> float:
    """As above, but cheap enough to sample often."""
    total = 0
    for root in roots:
        for process in family(root):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total / 1e6


def settle(roots: Sequence[psutil.Process], patience: float = 20.0) -> None:
    """Wait until a family is idle: requests whose client has gone are worked off."""
    until = time.monotonic() + patience
    before = cpu_seconds(roots)
    while time.monotonic() < until:
        time.sleep(0.1)
        after = cpu_seconds(roots)
        if after - before < 0.015:
            return
        before = after


@dataclass
class Others:
    """Share of the machine's cores that other programs took, a figure for how quiet it was."""

    shares: list[float] = field(default_factory=list)
    _start: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        self._start = (time.perf_counter(), _busy())

    def end(self, ours: float) -> None:
        """ours: CPU-seconds of the measured programs since `begin`."""
        seconds = (time.perf_counter() - self._start[0]) * (os.cpu_count() or 1)
        share = (_busy() - self._start[1] - ours) / seconds
        self.shares.append(min(1.0, max(0.0, share)))


def _busy() -> float:
    t = psutil.cpu_times()
    return float(sum(getattr(t, k, 0.0) for k in ("user", "nice", "system", "irq", "softirq")))


def cpu_model() -> str:
    """The processor's name, or 'unknown'."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"


def conditions(cores: Sequence[int]) -> dict[str, object]:
    """What was so when the measuring began."""
    return {
        "cpu": cpu_model(),
        "cores_used": len(cores),
        "load_average": round(os.getloadavg()[0], 2),
    }
