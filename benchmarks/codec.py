"""What does it cost to read a body, by format? The service's own decoders, nothing behind them.

    python -m benchmarks.codec --bundle build/demo/bundle --out build/bench

Open Inference Protocol bodies carry one tensor of the bundle's shape; uploads carry a synthetic
study, three volumes and a box. Every format is decoded in every round; CPU-milliseconds of this
process, threads included. A format that this version does not read is named, not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from benchmarks.bodies import Body, study_bodies, tensor_bodies
from benchmarks.load.endpoint import HEADER_LENGTH
from benchmarks.machine import conditions, pin
from benchmarks.spread import spread
from models.bundle.read import read_bundle
from models.cohort.phantom.rendering import render
from models.cohort.phantom.spec import draw as drawn
from models.errors import LensError
from models.volume import Study, Volume
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.settings import Settings
from services.common.store import resolve
from services.common.uploads import read_study
from services.inference.oip_codec import decode_request

AT_LEAST = 0.03  # CPU-seconds of one format in one round
Decode = Callable[[], NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or store tag; default: the latest")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    bundle = read_bundle(resolve(options.bundle, read_settings()))
    cores = pin(2)
    about = conditions(cores)
    shape = (1, *bundle.info.input_shape)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    report = {
        "conditions": about,
        "rounds": options.rounds,
        "tensor_shape": list(shape),
        **measure(x, example(bundle.manifest.phases), read_settings(), options.rounds),
    }
    path = options.out / "codec.json"
    write_record(path, report, made_by="python -m benchmarks.codec", seed=0)
    from benchmarks.plots.codec import draw

    draw(report, path.with_suffix(".png"))
    for name, row in report["formats"].items():
        print(f"{name:18} {row['bytes']:9,} bytes {row['cpu_ms']['median']:8.3f} CPU-ms")
    print(path)


def example(phases: list[str]) -> Study:
    """A synthetic study of a seed that no cohort uses, all phases on one grid."""
    made = render(drawn(991, 0))
    first = next(iter(made.volumes.values()))
    affine = np.diag([*first.spacing, 1.0])
    some = list(made.volumes.values())
    volumes = {p: Volume.make(some[i % len(some)].data, affine) for i, p in enumerate(phases)}
    return Study.make(volumes, next(iter(made.boxes.values())), phases)


def measure(
    x: NDArray[np.float32], study: Study, settings: Settings, rounds: int
) -> dict[str, Any]:
    """bytes, CPU-ms and the largest error, by format; and what is not read, with the reason."""
    loop = asyncio.new_event_loop()
    ways: dict[str, tuple[Body, Decode, NDArray[np.float32]]] = {}
    for name, body in tensor_bodies(x).items():
        ways[name] = (body, lambda body=body: tensor_of(body, settings), x)  # type: ignore[misc]
    stacked = np.stack([v.data for v in study.volumes.values()])
    for name, body in study_bodies(study).items():
        ways[name] = (
            body,
            lambda body=body: loop.run_until_complete(voxels_of(body, study, settings)),  # type: ignore[misc]
            stacked,
        )
    formats: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for name, (body, decode, truth) in ways.items():
        try:
            found = decode()
        except (LensError, ImportError) as error:
            refused[name] = str(error).splitlines()[0]
            continue
        formats[name] = {
            "bytes": len(body.data),
            "values": int(truth.size),
            "max_error": float(np.abs(found.astype(np.float64) - truth).max()),
        }
    cost: dict[str, list[float]] = {name: [] for name in formats}
    for _ in range(rounds):
        for name in formats:
            cost[name].append(1e3 * cpu(ways[name][1]))
    for name, row in formats.items():
        row["cpu_ms"] = spread(cost[name], 4)
    loop.close()
    return {"formats": formats, "not_read": refused}


def cpu(call: Callable[[], object]) -> float:
    """CPU-seconds of one call, over as many as take AT_LEAST together."""
    start, count = time.process_time(), 0
    while (took := time.process_time() - start) < AT_LEAST:
        call()
        count += 1
    return took / count


def tensor_of(body: Body, settings: Settings) -> NDArray[np.float32]:
    """The tensor of a protocol body, as the route reads it."""
    data, headers = body.data, body.headers
    encoding = headers.get("content-encoding")
    if encoding is not None:
        expanded = importlib.import_module("services.common.compression").expanded
        data = expanded(data, encoding, settings.max_body_mb << 20)
    length = headers.get(HEADER_LENGTH.lower())
    found = decode_request(data, None if length is None else int(length)).inputs["x"]
    if found.dtype == np.uint8 or found.dtype == np.float16:
        found = found.astype(np.float32)
    return found


async def voxels_of(body: Body, study: Study, settings: Settings) -> NDArray[np.float32]:
    """The volumes of an upload, [P, X, Y, Z]."""
    read = await read_study(request_of(body), list(study.volumes), settings)
    return np.stack([v.data for v in read.volumes.values()])


def request_of(body: Body, piece: int = 65536) -> Request:
    """A request as the server hands it on: the body in pieces."""
    pieces = [body.data[i : i + piece] for i in range(0, len(body.data), piece)] or [b""]
    messages = [
        {"type": "http.request", "body": part, "more_body": i + 1 < len(pieces)}
        for i, part in enumerate(pieces)
    ]
    waiting = iter(messages)

    async def receive() -> Mapping[str, Any]:
        return next(waiting)

    headers = {**body.headers, "content-length": str(len(body.data))}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predictions",
        "query_string": body.query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    return Request(scope, receive)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
