"""What a whole cohort costs beyond its explanations: here over several processes, and on a server.

    python -m benchmarks.bulk --bundle build/demo/bundle --out build/bench

Both ways explain the same lesions with the same parameters, through the code of `lesionlens explain
--cohort`, into fresh folders. CPU seconds are those of every process that takes part: the command
itself and its workers; or the command, the front door, the Celery worker and Redis. Each way runs
twice, on a quarter of the lesions and on all of them: the difference is what lesions cost, without
what starts and ends.

    busy                      CPU seconds / (wall seconds * cores) of the long run, start and all
    overhead_per_lesion       CPU seconds of a lesion beyond reading and resampling its images and
                              beyond explain() itself, as a share of explain()
    overhead_with_reading     the same with reading and resampling counted as overhead
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from models.bundle.read import read_bundle
from services.cli.bulk import Tally, Wish, explain_cohort
from services.cli.bulk_here import cores
from services.cli.record import write_record
from services.cli.stack import Stack, free_ports
from services.common.configured import read_settings
from services.common.settings import Settings
from services.common.store import resolve
from wire.api import ExplanationParameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or store tag; default: production, or the latest")
    parser.add_argument("--cohort", type=Path, default=Path("build/demo/cohort"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--lesions", type=int, default=96)
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bundle = read_bundle(resolve(options.bundle, read_settings()))
    home = Path(tempfile.mkdtemp(prefix="bulk-"))

    def wish(out: str, **more: Any) -> Wish:
        chosen = {
            "parameters": ExplanationParameters(), "limit": options.lesions, **more,
        }  # fmt: skip
        return Wish(options.cohort, home / out, split=options.split, **chosen)

    few = max(options.lesions // 4, 1)
    other = ExplanationParameters(seed=1)  # so that the short run answers nothing of the long one
    try:
        where = {"bundle": str(bundle.path), "processes": options.processes}
        short = here(wish("here-short", limit=few, parameters=other, **where))
        long = here(wish("here", **where))
        local = figures(short, long, short, long)
        with service(home / "home", bundle.path, options.processes) as stack:
            explain_cohort(wish("warm", limit=2, parameters=_WARM, server=stack.url))
            first = there(wish("there-short", limit=few, parameters=other, server=stack.url), stack)
            whole = there(wish("there", server=stack.url), stack)
            # What explain() costs was measured here: the lesions and the model are the same.
            server = figures(first, whole, short, long)
        same = all(
            (home / "there/explanations" / f.name).read_bytes() == f.read_bytes()
            for f in (home / "here/explanations").iterdir()
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    record = {
        "bundle": bundle.hash,
        "cohort": options.cohort.name,
        "processes": options.processes,
        "cores": cores(),
        "parameters": ExplanationParameters().model_dump(mode="json"),
        "documents_equal": same,
        "local": local,
        "server": server,
    }
    path = options.out / "bulk.json"
    write_record(path, record, made_by="python -m benchmarks.bulk", seed=0)
    for name, found in (("local", local), ("server", server)):
        print(
            f"{name}: busy {found['busy']:.0%}, overhead {found['overhead_per_lesion']:.1%} "
            f"({found['overhead_with_reading']:.1%} with reading), "
            f"{found['lesions_per_s']:.2f} lesions/s"
        )
    print(path)


_WARM = ExplanationParameters(seed=2)


@dataclass(frozen=True)
class Run:
    """One run: how it went, wall and CPU seconds, the latter by process where there are several."""

    tally: Tally
    wall: float
    cpu: float
    parts: dict[str, float]


def here(wish: Wish) -> Run:
    """In processes of this one."""
    before, start = _own_cpu(), time.monotonic()
    tally = explain_cohort(wish)
    return Run(tally, time.monotonic() - start, _own_cpu() - before, {})


def there(wish: Wish, stack: Stack) -> Run:
    """On a stack that is running."""
    parts = {name: _tree_cpu(member.pid) for name, member in stack.alive().items()}
    before, start = _own_cpu(), time.monotonic()
    tally = explain_cohort(wish)
    wall = time.monotonic() - start
    spent = {
        name: _tree_cpu(member.pid) - parts[name] for name, member in stack.alive().items()
    } | {"client": _own_cpu() - before}
    return Run(tally, wall, sum(spent.values()), spent)


def figures(short: Run, long: Run, bare_short: Run, bare_long: Run) -> dict[str, Any]:
    """bare_...: the runs that measured what reading and explain() cost."""
    lesions = long.tally.done - short.tally.done
    cpu = long.cpu - short.cpu
    explain = bare_long.tally.explain - bare_short.tally.explain
    read = bare_long.tally.read - bare_short.tally.read
    return {
        "lesions": long.tally.done,
        "failed": long.tally.failed,
        "wall_s": round(long.wall, 2),
        "lesions_per_s": round(long.tally.done / long.wall, 3),
        "busy": round(long.cpu / (long.wall * cores()), 4),
        "overhead_per_lesion": round((cpu - read - explain) / explain, 4),
        "overhead_with_reading": round((cpu - explain) / explain, 4),
        "cpu_ms_per_lesion": {
            "all": round(1000 * cpu / lesions, 1),
            "explain": round(1000 * explain / lesions, 1),
            "reading": round(1000 * read / lesions, 1),
            **{
                name: round(1000 * (value - short.parts[name]) / lesions, 1)
                for name, value in long.parts.items()
            },
        },
        "cpu_s": round(long.cpu, 2),
        "cpu_s_without_lesions": round(short.cpu - short.tally.done * cpu / lesions, 2),
    }


@contextmanager
def service(home: Path, bundle: Path, processes: int) -> Iterator[Stack]:
    """A whole stack on free ports, with as many Celery children and inference threads."""
    port, redis_port = free_ports(2)
    settings = Settings(
        home=home, bundle=bundle, port=port, redis_port=redis_port, redis_url=None,
        worker_processes=processes, sessions=processes, grpc_port=0,
    )  # fmt: skip
    with Stack(settings) as stack:
        yield stack


def _own_cpu() -> float:
    """CPU seconds of this process and of the children that it has seen end."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _tree_cpu(pid: int) -> float:
    """CPU seconds of a living process and its descendants, with those that have ended."""
    leader = psutil.Process(pid)
    living = sum(sum(p.cpu_times()[:2]) for p in (leader, *leader.children(recursive=True)))
    return living + sum(leader.cpu_times()[2:4])


if __name__ == "__main__":
    main()
