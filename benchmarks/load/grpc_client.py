"""A closed loop of c clients over gRPC, with the public `tritonclient`, in a process of its own.

python -m benchmarks.load.grpc_client 127.0.0.1:3001 x.npy --clients 8 --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.closed import Load, run


def grpc_loop(port: int, x: NDArray[np.float32], clients: int, seconds: int, folder: Path) -> Load:
    """As benchmarks.load.closed.closed_loop. Raises RuntimeError where any answer was an error."""
    np.save(folder / "x.npy", x)
    command = [
        sys.executable, "-m", "benchmarks.load.grpc_client", f"127.0.0.1:{port}",
        str(folder / "x.npy"), "--clients", str(clients), "--seconds", str(seconds),
    ]  # fmt: skip
    return run(command, folder)


async def closed(address: str, x: NDArray[np.float32], clients: int, seconds: float) -> None:
    import tritonclient.grpc.aio as oip

    tensor = oip.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    wanted = [oip.InferRequestedOutput("scores")]
    seen: Counter[int] = Counter()
    errors = 0

    async def one(client: oip.InferenceServerClient, until: float) -> None:
        nonlocal errors
        while (began := time.perf_counter()) < until:
            try:
                await client.infer("classifier", [tensor], outputs=wanted)
                seen[int(1e6 * (time.perf_counter() - began))] += 1
            except oip.InferenceServerException:
                errors += 1

    async with oip.InferenceServerClient(address) as client:
        await client.infer("classifier", [tensor], outputs=wanted)
        start = time.perf_counter()
        await asyncio.gather(*(one(client, start + seconds) for _ in range(clients)))
        took = time.perf_counter() - start
    said = {
        "requests": seen.total(),
        "seconds": took,
        "errors": errors,
        "latencies_us": sorted(seen.items()),
    }
    print("BENCH " + json.dumps(said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("x", type=Path)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    asyncio.run(closed(options.address, np.load(options.x), options.clients, options.seconds))


if __name__ == "__main__":
    main()
