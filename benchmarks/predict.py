"""What does serving cost beside the bare model? Same file, same payload, interleaved rounds.

    python -m benchmarks.predict --bundle build/demo/bundle --out build/bench

Rounds of in-process onnxruntime (the limit) and of the inference service over Open Inference
Protocol v2 (binary body) alternate; ratios are taken round by round and their spread is kept. CPU
seconds are those of the serving processes alone, read from the kernel.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil

from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import load_model
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.remote import RemoteModel
from services.common.store import resolve

CONCURRENCY = (1, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or store tag; default: the latest")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200, help="a round")
    options = parser.parse_args()
    bundle = read_bundle(resolve(options.bundle, read_settings()))
    local = load_model(bundle)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, *bundle.info.input_shape)).astype(np.float32)
    ratios: dict[str, dict[str, object]] = {}
    latencies: dict[str, list[float]] = {}
    with service(bundle) as (url, server):
        remote = RemoteModel(url, bundle=bundle.hash)
        ways: dict[str, tuple[Callable[[], object], psutil.Process]] = {
            "inprocess": (lambda: local.forward(x, ["scores"]), psutil.Process()),
            "oip_binary": (lambda: remote.forward(x, ["scores"]), server),
        }
        for way, _ in ways.values():
            drive(way, 20, 2)
        for c in CONCURRENCY:
            wall: dict[str, list[float]] = {name: [] for name in ways}
            cpu: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(options.rounds):
                for name, (way, process) in ways.items():
                    before = cpu_seconds(process)
                    seconds, each = drive(way, options.requests, c)
                    cpu[name].append((cpu_seconds(process) - before) / options.requests)
                    wall[name].append(options.requests / seconds)
                    latencies.setdefault(f"{name}/{c}", []).extend(each)
                print(
                    f"c={c} round {number + 1}/{options.rounds}: in-process "
                    f"{wall['inprocess'][-1]:.0f}/s, OIP {wall['oip_binary'][-1]:.0f}/s",
                    flush=True,
                )
            ratios[str(c)] = {
                "throughput": spread(np.divide(wall["oip_binary"], wall["inprocess"])),
                "cpu_per_request": spread(np.divide(cpu["oip_binary"], cpu["inprocess"])),
                "cpu_ms": {name: round(1e3 * float(np.median(v)), 3) for name, v in cpu.items()},
            }
    served = {c: latencies[f"oip_binary/{c}"] for c in CONCURRENCY}
    report = {
        "bundle": bundle.hash,
        "payload_bytes": x.nbytes,
        "rounds": options.rounds,
        "requests_a_round": options.requests,
        "ratios": {
            "throughput_vs_inprocess": {c: r["throughput"] for c, r in ratios.items()},
            "cpu_per_request_vs_inprocess": {c: r["cpu_per_request"] for c, r in ratios.items()},
        },
        "cpu_ms": {c: r["cpu_ms"] for c, r in ratios.items()},
        "p50_ms": {str(c): round(1e3 * float(np.quantile(v, 0.5)), 2) for c, v in served.items()},
        "p99_ms": {str(c): round(1e3 * float(np.quantile(v, 0.99)), 2) for c, v in served.items()},
    }
    path = options.out / "predict.json"
    write_record(path, report, made_by="python -m benchmarks.predict", seed=0)
    print(path)


def drive(way: Callable[[], object], requests: int, concurrency: int) -> tuple[float, list[float]]:
    """Wall seconds of all requests, and seconds of each."""

    def once(_: int) -> float:
        start = time.perf_counter()
        way()
        return time.perf_counter() - start

    with ThreadPoolExecutor(concurrency) as pool:
        start = time.perf_counter()
        each = list(pool.map(once, range(requests)))
        return time.perf_counter() - start, each


def cpu_seconds(process: psutil.Process) -> float:
    """User and system seconds of a process and, for a server, of its children."""
    family = [process] if process.pid == os.getpid() else [process, *process.children(True)]
    return sum(sum(p.cpu_times()[:2]) for p in family)


def spread(values: np.ndarray) -> dict[str, float]:
    return {
        "min": round(float(values.min()), 3),
        "median": round(float(np.median(values)), 3),
        "max": round(float(values.max()), 3),
    }


@contextmanager
def service(bundle: Bundle) -> Iterator[tuple[str, psutil.Process]]:
    """The inference service alone, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chosen = {"bundle": str(bundle.path.resolve()), "port": port}
    settings = read_settings().model_copy(update=chosen)
    process = subprocess.Popen(
        [sys.executable, "-m", "services.front.serve"],
        env=os.environ | settings.environment(),
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            if process.poll() is not None:
                sys.exit("the inference service did not start")
            try:
                if httpx.get(f"{url}/v2/health/ready").is_success:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        else:
            sys.exit("the inference service was not ready within 60 s")
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    main()
