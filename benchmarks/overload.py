"""Four times as much work as the service can do, for a minute: what gets through, and what else?

    python -m benchmarks.overload --bundle build/demo/bundle --out build/bench

Capacity first, by a closed loop that keeps the service just busy. Then an open loop from a process
of its own: requests leave at a constant rate, whatever became of those before, and latency counts
from the time that each was due. Memory of the serving processes is sampled meanwhile; afterwards
one client asks on until the median latency is what it was before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.machine import conditions, memory_mb, pin, rss_mb, settle
from benchmarks.networks import facts, given
from benchmarks.serving import Served, front_of
from models.bundle.read import read_bundle
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.store import resolve

BUSY = 16  # clients that measure the capacity: all places taken, no request refused
REFUSED = (429, 503)
NORMAL = 1.25  # times the median of before
WINDOW = 0.5  # seconds of one median afterwards


class Asked(Protocol):
    """What recovery needs of an endpoint."""

    def ask(self) -> object: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or store tag; default: the latest")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=4.0, help="the capacity")
    options = parser.parse_args()
    network = given(read_bundle(resolve(options.bundle, read_settings())))
    cores = pin(2)
    report: dict[str, Any] = {"conditions": conditions(cores), "network": facts(network)}
    with front_of(network) as served:
        report |= measure(served, options.seconds, options.times)
    path = options.out / "overload.json"
    write_record(path, report, made_by="python -m benchmarks.overload", seed=0)
    from benchmarks.plots.overload import draw

    draw(report, path.with_suffix(".png"))
    print(
        f"goodput {report['goodput_vs_capacity']:.2f} of {report['capacity']:.0f}/s, refused "
        f"{report['refused_share']:.2f}, back to normal in {report['recovery_s']} s: {path}"
    )


def measure(served: Served, seconds: float, times: float) -> dict[str, Any]:
    """Capacity, overload, recovery of a service that is up."""
    if served.endpoint is None:
        raise ValueError("a server without a request")
    tree = [served.process]
    with tempfile.TemporaryDirectory() as folder:
        about = served.endpoint.written(Path(folder))
        trace(about, ["--clients", str(BUSY), "--seconds", "2"])  # warm
        busy_s = min(10.0, seconds)
        busy = trace(about, ["--clients", str(BUSY), "--seconds", str(busy_s)])
        capacity = float((busy[:, 2] == 200).sum() / (busy[:, 0] + busy[:, 1]).max())
        # By the very client that asks afterwards: another one has another latency.
        normal = float(np.median([window_median(served.endpoint) for _ in range(10)]))
        print(f"capacity {capacity:.0f}/s, p50 of one client {1e3 * normal:.1f} ms", flush=True)
        settle(tree)
        before = memory_mb(tree)
        rows, samples = overload(about, tree, times * capacity, seconds)
        recovery, after = recover(served.endpoint, normal)
        settle(tree)
    return {
        "capacity": round(capacity, 1),
        "calm_p50_ms": round(1e3 * normal, 2),
        "offered_rate": round(times * capacity, 1),
        "offered_times": times,
        "seconds": seconds,
        **judged(rows, seconds, capacity),
        "rss_mb": memory_figures(samples)
        | {"before": before["rss"], "after": memory_mb(tree)["rss"]},
        "recovery_s": recovery,
        "after_p50_ms": after,
        "timeline": timeline(rows, samples, seconds),
    }


def trace(about: Path, more: Sequence[str]) -> NDArray[np.float64]:
    """Rows of a client's run: scheduled second, latency, status, lateness."""
    process, file = started(about, more)
    return finished(process, file)


def started(about: Path, more: Sequence[str]) -> tuple[subprocess.Popen[str], Path]:
    file = about.parent / f"trace-{time.monotonic_ns()}.npy"
    command = [sys.executable, "-m", "benchmarks.load.client", str(about), "--trace", str(file)]
    process = subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, file


def finished(process: subprocess.Popen[str], file: Path) -> NDArray[np.float64]:
    _, fault = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load client failed: {fault[-500:]}")
    rows: NDArray[np.float64] = np.load(file)
    return rows


def overload(
    about: Path, tree: list[psutil.Process], rate: float, seconds: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The client's rows, and (second, MB) of the serving processes while the load lasted."""
    process, file = started(about, ["--rate", str(rate), "--seconds", str(seconds)])
    samples, start = [], time.monotonic()
    while process.poll() is None and time.monotonic() - start < seconds:
        samples.append((time.monotonic() - start, rss_mb(tree)))
        time.sleep(1.0)
    return finished(process, file), np.array(samples, np.float64).reshape(-1, 2)


def judged(rows: NDArray[np.float64], seconds: float, capacity: float) -> dict[str, Any]:
    """Shares and latencies. rows [n, 4]: scheduled second, latency, status, client's lateness.

    An answer counts from when its request was due, a refusal from when it was sent: that the client
    was late on a busy machine says nothing of how the server refuses. The lateness stands beside.
    """
    ended = rows[:, 0] + rows[:, 1]
    good = rows[:, 2] == 200
    refused = np.isin(rows[:, 2], REFUSED)
    rate = float((good & (ended <= seconds)).sum() / seconds)
    return {
        "goodput": round(rate, 1),
        "goodput_vs_capacity": round(rate / capacity, 3),
        "refused_share": round(float(refused.mean()), 4),
        "lost_share": round(float((rows[:, 2] == 0).mean()), 4),
        "unsent_share": round(float((rows[:, 2] < 0).mean()), 4),
        "other_share": round(float((~good & ~refused & (rows[:, 2] > 0)).mean()), 4),
        "refusal_ms": percentiles(rows[refused, 1] - rows[refused, 3]),
        "client_late_ms": percentiles(rows[rows[:, 2] >= 0, 3]),
        "answer_ms": percentiles(rows[good, 1]),
        "requests": len(rows),
        "statuses": {str(int(s)): int((rows[:, 2] == s).sum()) for s in np.unique(rows[:, 2])},
    }


def percentiles(seconds: NDArray[np.float64]) -> dict[str, float] | None:
    """p50 and p99 in milliseconds; None for nothing."""
    if not len(seconds):
        return None
    low, high = np.quantile(seconds, [0.5, 0.99])
    return {"p50": round(1e3 * float(low), 2), "p99": round(1e3 * float(high), 2)}


def memory_figures(samples: NDArray[np.float64]) -> dict[str, float]:
    """samples [n, 2]: second, MB. Start and end are medians of the first and the last fifth.

    The very first seconds are left out of `start`: buffers for the requests that may wait come
    then, once.
    """
    warm = samples[len(samples) // 10 :] if len(samples) >= 10 else samples
    fifth = max(1, len(warm) // 5)
    start, end = float(np.median(warm[:fifth, 1])), float(np.median(warm[-fifth:, 1]))
    slope = float(np.polyfit(warm[:, 0], warm[:, 1], 1)[0]) if len(warm) > 1 else 0.0
    return {
        "start": round(start, 1),
        "end": round(end, 1),
        "growth": round(end / start - 1, 4),
        "slope_mb_per_minute": round(60 * slope, 2),
    }


def recover(
    endpoint: Asked,
    normal: float,
    patience: float = 30.0,
    now: Callable[[], float] = time.perf_counter,
) -> tuple[float | None, float]:
    """Seconds from now until the median of a window is normal; and that median in ms.

    None where it did not happen within `patience`. A request that fails counts as very slow.
    """
    start = now()
    median = float("nan")
    while now() - start < patience:
        median = window_median(endpoint, patience, now)
        if median <= NORMAL * normal:
            return round(now() - start, 2), round(1e3 * median, 2)
    return None, round(1e3 * median, 2)


def window_median(
    endpoint: Asked, failed: float = 30.0, now: Callable[[], float] = time.perf_counter
) -> float:
    """Median latency of one client within WINDOW, seconds. failed: what a failed request counts."""
    start = now()
    each: list[float] = []
    while now() - start < WINDOW or len(each) < 5:
        began = now()
        try:
            endpoint.ask()
            each.append(now() - began)
        except (OSError, RuntimeError):
            each.append(failed)
            time.sleep(0.05)
    return float(np.median(each))


def timeline(
    rows: NDArray[np.float64], samples: NDArray[np.float64], seconds: float
) -> dict[str, list[float]]:
    """By second: answers, refusals (when they arrived), and memory."""
    edges = np.arange(int(np.ceil(seconds)) + 1)
    ended = rows[:, 0] + rows[:, 1]
    good = np.histogram(ended[rows[:, 2] == 200], edges)[0]
    refused = np.histogram(ended[np.isin(rows[:, 2], REFUSED)], edges)[0]
    return {
        "answers": good.astype(float).tolist(),
        "refusals": refused.astype(float).tolist(),
        "rss_s": [round(float(t), 1) for t in samples[:, 0]],
        "rss_mb": [round(float(m), 1) for m in samples[:, 1]],
    }


if __name__ == "__main__":
    main()
