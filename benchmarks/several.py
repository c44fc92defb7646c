"""One closed loop over several replicas, as a balancer would deal it out: a client for each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.load.closed import Load, closed_loop
from benchmarks.load.endpoint import Endpoint


def several(endpoints: Sequence[Endpoint], clients: int, seconds: int) -> Load:
    """`clients` for each endpoint, all at once: what they saw together."""
    if len(endpoints) == 1:
        return closed_loop(endpoints[0], clients, seconds)
    with ThreadPoolExecutor(len(endpoints)) as pool:
        loads = list(pool.map(lambda e: closed_loop(e, clients, seconds), endpoints))
    return joined(loads)


def joined(loads: Sequence[Load]) -> Load:
    """Loads that ran side by side: answers add up, the seconds are those of the longest."""
    return Load(
        requests=sum(load.requests for load in loads),
        seconds=max(load.seconds for load in loads),
        latencies_us=tuple(pair for load in loads for pair in load.latencies_us),
    )
