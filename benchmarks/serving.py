"""Start and stop what is measured: the inference service, and its peers in their environments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.load.endpoint import Endpoint, oip_endpoint
from benchmarks.machine import family
from benchmarks.networks import Network
from benchmarks.peers.registry import HERE, Peer
from models.bundle.read import Bundle
from services.cli.stack import free_ports
from services.common.configured import read_settings

PATIENCE = 60.0


@dataclass(frozen=True)
class Served:
    """A server that is up. grpc_port: where it speaks gRPC, if it does."""

    name: str
    port: int
    process: psutil.Process
    endpoint: Endpoint | None = None
    grpc_port: int | None = None
    log: Path | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def front(
    bundle: Bundle,
    *,
    settings: dict[str, object] | None = None,
    environment: dict[str, str] | None = None,
    cores: list[int] | None = None,
) -> Iterator[Served]:
    """The inference service alone, on a free port, with a home of its own.

    cores: those it may use; None: all that this process may. Raises RuntimeError where it does not
    get ready.
    """
    with tempfile.TemporaryDirectory(prefix="lesionlens-bench-") as home:
        port, grpc_port = free_ports(2)  # at once, or both may be one
        chosen: dict[str, object] = {
            "bundle": str(bundle.path.resolve()), "home": Path(home),
            "port": port, "grpc_port": grpc_port,
        }  # fmt: skip
        made = read_settings().model_copy(update=chosen | (settings or {}))
        own = made.environment() | {"OMP_NUM_THREADS": "1"} | (environment or {})
        log = Path(home) / "front.log"
        command = [sys.executable, "-m", "services.front.serve"]
        with _running(command, own, log, cores) as process:
            _await(f"http://127.0.0.1:{port}/v2/health/ready", process, log)
            yield Served(
                "lesionlens", port, psutil.Process(process.pid), grpc_port=grpc_port, log=log
            )


@contextmanager
def front_of(network: Network, **more: object) -> Iterator[Served]:
    """The service with a network, and the request that carries its payload."""
    with front(network.bundle, **more) as served:  # type: ignore[arg-type]
        endpoint = oip_endpoint(served.port, network.x)
        yield Served(
            served.name, served.port, served.process, endpoint, served.grpc_port, served.log
        )


@contextmanager
def peer_of(peer: Peer, network: Network, python: Path, places: int = 2) -> Iterator[Served]:
    """A peer with the same file. python: the interpreter of its environment."""
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        (port,) = free_ports(1)
        own = {
            "PEER_ONNX": str(network.onnx),
            "PEER_PORT": str(port),
            "PEER_SHAPE": json.dumps(network.x.shape),
            "PEER_PLACES": str(places),
            "OMP_NUM_THREADS": "1",
            "BENTOML_HOME": folder,
            "PYTHONPATH": str(HERE),
        }
        log = Path(folder) / "peer.log"
        with _running([str(python), str(peer.path)], own, log, None, Path(folder)) as process:
            endpoint = peer.endpoint(port, network.x)
            _await_answer(endpoint, process, log)
            yield Served(peer.name, port, psutil.Process(process.pid), endpoint, log=log)


@contextmanager
def _running(
    command: list[str],
    environment: dict[str, str],
    log: Path,
    cores: list[int] | None,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, and at the end the end of it and of every descendant."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            | _path_of(command) | environment,
            stdout=out, stderr=out, cwd=folder, start_new_session=True,
        )  # fmt: skip
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)
    try:
        yield process
    finally:
        _end(process)


def _path_of(command: list[str]) -> dict[str, str]:
    """This project's own import path, for its own processes only."""
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": inherited} if inherited and command[0] == sys.executable else {}


def _end(process: subprocess.Popen[bytes]) -> None:
    members: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        members = family(psutil.Process(process.pid))
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for left in members:
        with suppress(psutil.Error):
            if left.is_running():
                left.send_signal(signal.SIGKILL)
    process.wait(10)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{url} was not ready in {PATIENCE:.0f} s:\n{_tail(log)}")


def _await_answer(endpoint: Endpoint, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    fault: Exception | None = None
    while time.monotonic() < until and process.poll() is None:
        try:
            endpoint.ask()
            return
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            fault = error
            time.sleep(0.2)
    raise RuntimeError(f"{endpoint.url} gave no answer ({fault}):\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])
