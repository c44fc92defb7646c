"""What a Celery worker holds in memory, and each process of it, in a stack that is ready."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil

from benchmarks.machine import memory_mb
from models.bundle.read import Bundle
from services.cli.stack import Stack, free_ports
from services.common.configured import read_settings


def worker_memory(bundle: Bundle, processes: int = 2) -> dict[str, float]:
    """MB, as shares of what is in memory (PSS): the worker's parent, one process, redis, front.

    A canary has gone through the queue; no lesion has been explained yet.
    """
    with tempfile.TemporaryDirectory(prefix="lesionlens-bench-") as home:
        # The port after the front door's may be taken by its gRPC door.
        redis_port, port = free_ports(2)
        settings = read_settings().model_copy(
            update={
                "home": Path(home), "port": port, "redis_port": redis_port, "redis_url": None,
                "worker_processes": processes, "inference_url": None,
            }
        )  # fmt: skip
        with Stack(settings, bundle.path) as stack:
            alive = {
                name: member.process for name, member in stack.alive().items() if member.process
            }
            return {
                name: round(value, 1) for name, value in _figures(alive, processes).items()
            }  # fmt: skip


def _figures(alive: dict[str, psutil.Process], processes: int) -> dict[str, float]:
    worker = alive["worker"]
    whole = memory_mb([worker])["pss"]
    children = worker.children(recursive=True)
    each = sum(child.memory_full_info().pss for child in children) / 1e6 / max(1, len(children))
    found = {"worker": whole, "processes": float(processes), "each_process": each}
    return found | {name: memory_mb([alive[name]])["pss"] for name in ("redis", "front")}
