"""Throughput against sessions, threads, replicas and cores; and what that means for more of them.

    python -m benchmarks.scale --bundle build/demo/bundle --out build/bench

Each layout of the service is started on one core or on two, loaded by a closed loop, rounds
interleaved. One layout then meets open loops of random arrivals at several loads, and the latencies
seen are set beside those of queueing formulas (benchmarks.queueing). What is said of more cores is
extrapolated: replicas share nothing but the machine, so throughput is taken as that of two cores,
as often as there are two, and latencies come from the formulas.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.closed import Load
from benchmarks.machine import conditions, cpu_seconds, memory_mb, pin, settle
from benchmarks.networks import GIVEN, PUBLISHED, Network, facts, given, published
from benchmarks.overload import trace
from benchmarks.queueing import Station, little, response_quantiles
from benchmarks.serving import Served, front_of
from benchmarks.several import several
from benchmarks.spread import spread
from benchmarks.worker_memory import worker_memory
from models.bundle.read import read_bundle
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.store import resolve

CLIENTS = 16
LOADS = (0.3, 0.6, 0.8, 0.9)  # of the capacity
SHARES = (0.5, 0.99)


@dataclass(frozen=True)
class Layout:
    """How the service is set up."""

    cores: int
    sessions: int
    threads: int
    replicas: int

    @property
    def name(self) -> str:
        return (
            f"{self.cores} cores, {self.sessions} sessions x {self.threads} threads, "
            f"{self.replicas} replicas"
        )


LAYOUTS = (
    Layout(1, 1, 1, 1),
    Layout(1, 2, 1, 1),
    Layout(2, 1, 1, 1),
    Layout(2, 2, 1, 1),
    Layout(2, 1, 2, 1),
    Layout(2, 4, 1, 1),
    Layout(2, 1, 1, 2),
    Layout(2, 2, 1, 2),
)
QUICK = (LAYOUTS[0], LAYOUTS[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or store tag; default: the latest")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of one turn")
    parser.add_argument("--open-seconds", type=float, default=12.0, help="of one open loop")
    parser.add_argument("--networks", default=f"{GIVEN},{PUBLISHED}", help="by comma")
    parser.add_argument("--quick", action="store_true", help="two layouts, no Celery worker")
    options = parser.parse_args()
    bundle = read_bundle(resolve(options.bundle, read_settings()))
    cores = pin(2)
    about = conditions(cores)
    makers = {GIVEN: lambda: given(bundle), PUBLISHED: lambda: published(options.out / "networks")}
    report: dict[str, Any] = {"conditions": about, "clients": CLIENTS, "networks": {}}
    for name in options.networks.split(","):
        network = makers[name]()
        report["networks"][name] = of_network(
            network,
            cores,
            QUICK if options.quick else LAYOUTS,
            rounds=options.rounds,
            seconds=options.seconds,
            open_seconds=options.open_seconds,
        )
    report["worker_memory_mb"] = None if options.quick else worker_memory(bundle)
    path = options.out / "scale.json"
    write_record(path, report, made_by="python -m benchmarks.scale", seed=0)
    from benchmarks.plots.scale import draw

    draw(report, path.with_suffix(".png"))
    print(path)


def of_network(
    network: Network,
    cores: list[int],
    layouts: Sequence[Layout],
    *,
    rounds: int,
    seconds: int,
    open_seconds: float,
) -> dict[str, Any]:
    """Layouts, the queueing check, and the extrapolation for one network."""
    rates: dict[str, list[float]] = {layout.name: [] for layout in layouts}
    cpu: dict[str, list[float]] = {layout.name: [] for layout in layouts}
    memory: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        up = {}
        for layout in layouts:
            print(f"{network.name}: starting {layout.name}", flush=True)
            up[layout.name] = [
                stack.enter_context(started(network, layout, cores)) for _ in range(layout.replicas)
            ]
        for number in range(rounds):
            for layout in layouts:
                load, took = turn(up[layout.name], seconds)
                rates[layout.name].append(load.rate)
                cpu[layout.name].append(1e3 * took / load.requests)
                memory[layout.name] = memory_mb([s.process for s in up[layout.name]])
            print(
                f"{network.name}: round {number + 1}/{rounds}: "
                + ", ".join(f"{rates[layout.name][-1]:.0f}" for layout in layouts) + " /s",
                flush=True,
            )  # fmt: skip
    rows: list[dict[str, Any]] = [
        {
            "cores": layout.cores, "sessions": layout.sessions, "threads": layout.threads,
            "replicas": layout.replicas, "rate": spread(rates[layout.name], 1),
            "cpu_ms": spread(cpu[layout.name]),
            "rss_mb": memory[layout.name]["rss"], "pss_mb": memory[layout.name]["pss"],
        }
        for layout in layouts
    ]  # fmt: skip
    with started(network, Layout(2, 2, 1, 1), cores) as served:
        checked, station = queue_check(served, open_seconds)
    usual = next(r for r in rows if (r["cores"], r["sessions"], r["replicas"]) == (2, 2, 1))
    return {
        "network": facts(network),
        "layouts": rows,
        "queueing": checked,
        "extrapolated": extrapolated(usual["rate"]["median"] / 2, usual["pss_mb"], station),
    }


def started(network: Network, layout: Layout, cores: list[int]) -> Any:
    return front_of(
        network,
        settings={"sessions": layout.sessions, "threads": layout.threads},
        cores=cores[: layout.cores],
    )


def turn(up: Sequence[Served], seconds: int) -> tuple[Load, float]:
    """A closed loop over all replicas, its clients dealt out evenly; and the CPU-seconds."""
    processes = [served.process for served in up]
    settle(processes)
    before = cpu_seconds(processes)
    endpoints = [served.endpoint for served in up if served.endpoint is not None]
    load = several(endpoints, CLIENTS // len(up), seconds)
    return load, cpu_seconds(processes) - before


def queue_check(served: Served, seconds: float) -> tuple[dict[str, Any], Station]:
    """Latencies at several loads, as measured and as the formulas have them; and the station."""
    if served.endpoint is None:
        raise ValueError("a server without a request")
    places = 2
    with tempfile.TemporaryDirectory() as folder:
        about = served.endpoint.written(Path(folder))
        trace(about, ["--clients", "2", "--seconds", "1"])
        # Two clients keep two places busy and nobody waits: what they see is the service time, with
        # what the places do to each other by sharing the machine.
        closed = trace(about, ["--clients", str(places), "--seconds", str(seconds / 2)])
        station = Station(places, closed[closed[:, 2] == 200][:, 1])
        rows = []
        for share in LOADS:
            rate = share * station.capacity
            settle([served.process])
            opened = trace(
                about, ["--rate", str(rate), "--seconds", str(seconds), "--poisson", "--seed", "1"]
            )
            rows.append(compared(opened, station, rate, share))
            print(
                f"load {share}: p99 {rows[-1]['measured_ms']['p99']:.0f} ms, on paper "
                f"{rows[-1]['formula_ms']['p99']:.0f} ms",
                flush=True,
            )
    figures = {
        "places": places,
        "service_ms": round(1e3 * station.mean, 3),
        "service_variation": round(station.variation, 3),
        "capacity": round(station.capacity, 1),
        "loads": rows,
    }
    return figures, station


def compared(
    opened: NDArray[np.float64], station: Station, rate: float, share: float
) -> dict[str, Any]:
    """One load: measured and computed quantiles, and Little's law on the trace itself."""
    good = opened[opened[:, 2] == 200]
    seen = np.quantile(good[:, 1], SHARES)
    paper = response_quantiles(station, rate, SHARES)
    return {
        "load": share,
        "rate": round(rate, 1),
        "requests": len(opened),
        "refused_share": round(1 - len(good) / max(1, len(opened)), 4),
        "measured_ms": {"p50": round(1e3 * seen[0], 2), "p99": round(1e3 * seen[1], 2)},
        "formula_ms": {"p50": round(1e3 * paper[0], 2), "p99": round(1e3 * paper[1], 2)},
        "in_system": {
            "counted": round(in_system(good), 3),
            "little": round(little(len(good) / span(good), float(good[:, 1].mean())), 3),
        },
    }


def span(rows: NDArray[np.float64]) -> float:
    """Seconds from the first departure to the last answer."""
    return float((rows[:, 0] + rows[:, 1]).max() - rows[:, 0].min())


def in_system(rows: NDArray[np.float64], points: int = 2000) -> float:
    """Mean number of requests under way, counted at evenly spaced instants."""
    at = np.linspace(rows[:, 0].min(), (rows[:, 0] + rows[:, 1]).max(), points)
    came = np.searchsorted(np.sort(rows[:, 0]), at, side="right")
    gone = np.searchsorted(np.sort(rows[:, 0] + rows[:, 1]), at, side="right")
    return float((came - gone).mean())


def extrapolated(
    rate_a_core: float, replica_mb: float, station: Station, load: float = 0.7
) -> list[dict[str, Any]]:
    """More cores on paper: a replica of two places for each two cores.

    Latencies at `load` of the capacity, twice: where every replica has a queue of its own, and
    where all share one (a balancer that always knows who is free). The truth lies between.
    """
    rows = []
    for cores in (2, 4, 8, 16, 32, 64):
        replicas = cores // 2
        apart = Station(2, station.service)
        shared = Station(2 * replicas, station.service)
        capacity = rate_a_core * cores
        own = response_quantiles(apart, load * apart.capacity, SHARES)
        one = response_quantiles(shared, load * shared.capacity, SHARES)
        rows.append(
            {
                "cores": cores,
                "replicas": replicas,
                "capacity": round(capacity, 1),
                "load": load,
                "own_queues_ms": {"p50": round(1e3 * own[0], 2), "p99": round(1e3 * own[1], 2)},
                "one_queue_ms": {"p50": round(1e3 * one[0], 2), "p99": round(1e3 * one[1], 2)},
                "memory_mb": round(replicas * replica_mb, 1),
            }
        )
    return rows


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
