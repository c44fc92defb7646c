"""A load client in a process of its own: a closed loop, or an open one at a constant rate.

    python -m benchmarks.load.client REQUEST.json --clients 8 --seconds 3
    python -m benchmarks.load.client REQUEST.json --rate 400 --seconds 60 --trace trace.npy

Open loop: requests leave when the schedule says, whatever became of those before, and latency
counts from the scheduled time; so a server that stalls is charged for everybody who waits. The
trace holds one row a request: scheduled second, latency in seconds, status, and how late the client
itself sent it, in seconds. Status 0: the connection was lost, or still open when the client stopped
waiting; -1: never sent, since as many requests as the client can hold were waiting already.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.connection import LOST, Connection, request_bytes
from benchmarks.load.endpoint import said
from benchmarks.load.schedule import constant, poisson

PATIENCE = 20.0  # seconds after the last departure
MOST = 900  # connections of an open loop; many systems allow 1024 files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("request", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=1, help="closed loop")
    parser.add_argument("--rate", type=float, help="open loop: requests a second")
    parser.add_argument("--poisson", action="store_true", help="random gaps in the open loop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", type=Path)
    options = parser.parse_args()
    asked = said(options.request)
    gc.disable()  # no pauses of the client's own; it lives for a minute
    if options.rate is None:
        work = closed(asked, options.clients, options.seconds)
    else:
        times = (
            poisson(options.rate, options.seconds, options.seed)
            if options.poisson
            else constant(options.rate, options.seconds)
        )
        work = opened(asked, times)
    rows, seconds = asyncio.run(work)
    if options.trace:
        np.save(options.trace, rows)
    print("BENCH " + json.dumps(summary(rows, seconds)))


def summary(rows: NDArray[np.float64], seconds: float) -> dict[str, Any]:
    """As wrk.lua prints it. rows: [n, 4] scheduled, latency, status, lateness."""
    good = rows[rows[:, 2] == 200]
    seen = Counter(int(1e6 * v) for v in good[:, 1])
    return {
        "requests": len(good),
        "seconds": seconds,
        "errors": len(rows) - len(good),
        "latencies_us": sorted(seen.items()),
    }


async def closed(
    asked: dict[str, Any], clients: int, seconds: float
) -> tuple[NDArray[np.float64], float]:
    """Rows of all requests that ended in time, and the seconds."""
    request, rows = request_bytes(asked), []
    start = time.perf_counter()

    async def one() -> None:
        link = Connection(asked["port"])
        try:
            while (began := time.perf_counter()) < start + seconds:
                status = 0
                with suppress(*LOST):
                    status = await link.post(request)
                rows.append((began - start, time.perf_counter() - began, status, 0.0))
        finally:
            link.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return table(rows), time.perf_counter() - start


async def opened(
    asked: dict[str, Any], times: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """One request at each of `times`, seconds from now; each on an idle connection or a new one."""
    request, rows = request_bytes(asked), []
    idle: list[Connection] = []
    under_way: set[asyncio.Task[None]] = set()
    start = time.perf_counter() + 0.1

    async def one(due: float) -> None:
        link = idle.pop() if idle else Connection(asked["port"])
        late, status = time.perf_counter() - start - due, 0
        try:
            status = await link.post(request)
            idle.append(link)
        except LOST:
            link.close()
        except asyncio.CancelledError:
            link.close()
            raise
        finally:
            rows.append((due, time.perf_counter() - start - due, status, max(0.0, late)))

    for due in times:
        ahead = start + due - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        elif len(under_way) % 16 == 0:
            await asyncio.sleep(0)  # late: let answers be read all the same
        if len(under_way) >= MOST:
            rows.append((float(due), 0.0, -1, 0.0))
            continue
        task = asyncio.create_task(one(float(due)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    ended = time.perf_counter() - start
    if under_way:
        _, late = await asyncio.wait(set(under_way), timeout=PATIENCE)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    for link in idle:
        link.close()
    return table(rows), max(ended, float(times[-1]) if len(times) else 0.0)


def table(rows: list[tuple[float, float, int, float]]) -> NDArray[np.float64]:
    return np.array(rows, np.float64).reshape(-1, 4)


if __name__ == "__main__":
    main()
