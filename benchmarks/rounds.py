"""Interleaved rounds: every server takes its turn in every round, so that the machine's moods meet
all of them, and ratios are taken round by round."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from benchmarks.limit import limit
from benchmarks.load.closed import Load, closed_loop, pooled_quantile
from benchmarks.machine import Others, cpu_seconds, settle
from benchmarks.networks import Network
from benchmarks.serving import Served
from benchmarks.spread import spread

LIMIT = "inprocess"
SLICED_LIMIT = "inprocess_slices"  # the same on the graph as the service runs it
LONGEST = 16  # seconds of a turn
ATTEMPTS = 3
Way = Callable[[int, int], tuple[Load, float]]  # (clients, seconds) -> what was seen, CPU-seconds


@dataclass
class Turns:
    """What one server did in each round, at one concurrency."""

    loads: list[Load] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # of the serving processes

    @property
    def rates(self) -> np.ndarray:
        """Answers a second, a round."""
        return np.array([load.rate for load in self.loads])

    @property
    def cpu_ms(self) -> np.ndarray:
        """CPU-milliseconds an answer, a round."""
        return 1e3 * np.array(self.cpu) / np.array([load.requests for load in self.loads])

    @property
    def net_rates(self) -> np.ndarray:
        """Answers a second and core that the client, on the same cores, left free; a round."""
        cores = len(os.sched_getaffinity(0))
        taken = np.array([load.client_cpu / load.seconds for load in self.loads])
        return self.rates / np.maximum(cores - taken, 0.1)

    def figures(self) -> dict[str, Any]:
        return {
            "rate": spread(self.rates, 1),
            "cpu_ms": spread(self.cpu_ms),
            "client_cpu_ms": spread([1e3 * v.client_cpu / v.requests for v in self.loads]),
            "p50_ms": round(pooled_quantile(self.loads, 0.50), 2),
            "p99_ms": round(pooled_quantile(self.loads, 0.99), 2),
            "answers": sum(load.requests for load in self.loads),
        }


Measured = dict[str, dict[int, Turns]]  # server -> concurrency -> turns


def served_way(served: Served) -> Way:
    """Load over HTTP; the CPU is that of the server's whole family."""

    def turn(clients: int, seconds: int) -> tuple[Load, float]:
        if served.endpoint is None:
            raise ValueError("a server without a request")
        while True:
            before = cpu_seconds([served.process])
            load = closed_loop(served.endpoint, clients, seconds)
            if load.requests >= clients or seconds >= LONGEST:
                return load, cpu_seconds([served.process]) - before
            seconds *= 2  # too slow for a turn this short: hardly anybody had an answer

    return turn


def limit_way(network: Network, *, slices: bool = False) -> Way:
    return lambda clients, seconds: limit(
        network.onnx, network.x.shape, clients, seconds, slices=slices
    )


def interleaved(
    ways: Mapping[str, Way],
    families: Sequence[psutil.Process],
    *,
    concurrency: Sequence[int],
    rounds: int,
    seconds: int,
    say: Callable[[str], None],
) -> tuple[Measured, list[float]]:
    """All turns, and the share of the machine that others took meanwhile.

    Each round begins with another server than the one before.
    """
    measured: Measured = {name: {c: Turns() for c in concurrency} for name in ways}
    others = Others()
    names = list(ways)
    for name in names:  # warm: caches, connections, allocators
        ways[name](2, 1)
    for number in range(rounds):
        at = number % len(names)
        for c in concurrency:
            for name in names[at:] + names[:at]:
                load, cpu = _turn(name, ways[name], families, c, seconds, others)
                measured[name][c].loads.append(load)
                measured[name][c].cpu.append(cpu)
            say(
                f"round {number + 1}/{rounds}, c = {c}: "
                + ", ".join(f"{n} {measured[n][c].loads[-1].rate:.0f}/s" for n in names)
            )
    return measured, others.shares


def _turn(
    name: str,
    way: Way,
    families: Sequence[psutil.Process],
    clients: int,
    seconds: int,
    others: Others,
) -> tuple[Load, float]:
    """One turn when all is quiet; taken again where an answer was an error, but not for ever."""
    fault: RuntimeError | None = None
    for _ in range(ATTEMPTS):
        settle(families)
        others.begin()
        try:
            load, cpu = way(clients, seconds)
        except RuntimeError as error:
            fault = error
            continue
        others.end(cpu + load.client_cpu)
        return load, cpu
    raise RuntimeError(f"{name} with {clients} clients: {fault}")


def ratios(measured: Measured, name: str, other: str, of: str) -> dict[str, Any]:
    """name / other, round by round. of: 'rates', 'net_rates' or 'cpu_ms'."""
    return {
        str(c): spread(getattr(turns, of) / getattr(measured[other][c], of))
        for c, turns in measured[name].items()
    }
