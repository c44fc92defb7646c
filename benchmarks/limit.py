"""The limit: onnxruntime alone in a process, c callers over as many places as the service has.

    python -m benchmarks.limit classifier.onnx --shape 1,3,24,24,24 --clients 8 --seconds 3

No web, no codec: the array lies ready, `scores` is all that is asked for. Callers beyond the places
wait, as requests do before the service's pool. --slices: convolutions run over slices, as they do
in the service (models.graph.flat). Prints what a load client prints, and the CPU-seconds of this
process meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.load.closed import Load
from models.graph.flat import flat_file


def limit(
    onnx: Path, shape: tuple[int, ...], clients: int, seconds: float, *, slices: bool = False
) -> tuple[Load, float]:
    """Run this file in a process of its own: what its callers saw, and their CPU-seconds."""
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.limit", str(onnx),
            "--shape", ",".join(map(str, shape)),
            "--clients", str(clients), "--seconds", str(seconds), *(["--slices"] if slices else []),
        ],
        capture_output=True, text=True, check=True, start_new_session=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    seen = tuple((int(v), int(n)) for v, n in found["latencies_us"])
    return Load(found["requests"], found["seconds"], seen), float(found["cpu_seconds"])


def session(onnx: Path, threads: int = 1, *, slices: bool = False) -> ort.InferenceSession:
    """With the options that the service uses."""
    data = onnx.read_bytes()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        flat_file(data) if slices else data, options, providers=["CPUExecutionProvider"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--places", type=int, default=2)
    parser.add_argument("--slices", action="store_true")
    options = parser.parse_args()
    net = session(options.onnx, slices=options.slices)
    shape = tuple(int(n) for n in options.shape.split(","))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    places = threading.BoundedSemaphore(options.places)
    seen: list[Counter[int]] = []

    def caller(until: float) -> None:
        mine: Counter[int] = Counter()
        while (began := time.perf_counter()) < until:
            with places:
                net.run(["scores"], {"x": x})
            mine[int(1e6 * (time.perf_counter() - began))] += 1
        seen.append(mine)

    for _ in range(5):
        net.run(["scores"], {"x": x})
    start, cpu = time.perf_counter(), time.process_time()
    threads = [
        threading.Thread(target=caller, args=(start + options.seconds,))
        for _ in range(options.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    counts = sum(seen, Counter[int]())
    print(
        json.dumps(
            {
                "requests": counts.total(),
                "seconds": seconds,
                "cpu_seconds": cpu,
                "latencies_us": sorted(counts.items()),
            }
        )
    )


if __name__ == "__main__":
    main()
