"""What a whole cohort costs beyond its explanations: here over several processes, and on a server.

    python -m benchmarks.bulk --bundle build/demo/bundle --out build/bench

Both ways explain the same lesions with the same parameters, through the code of `lesionlens explain
--cohort`, into a fresh folder. CPU seconds are those of every process that takes part: the command
itself and its workers; or the command, the front door, the Celery worker and Redis.

    busy                 CPU seconds / (wall seconds * cores), over the whole run with its start
    overhead_per_lesion  CPU seconds beyond the start of processes, reading and resampling the
                         images, and explain() itself, as a share of explain()
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
        return Wish(
            options.cohort, home / out, ExplanationParameters(), split=options.split,
            limit=options.lesions, **more,
        )  # fmt: skip

    try:
        first = wish("here", bundle=str(bundle.path), processes=options.processes)
        local, tally = here(first)
        # What explain() costs is measured in one place and used for both: the lesions are the same.
        with service(home / "home", bundle.path, options.processes) as stack:
            warm = wish("warm", server=stack.url)
            explain_cohort(Wish(**{**vars(warm), "limit": 4, "parameters": _OTHER}))
            server = there(wish("there", server=stack.url), stack, tally)
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


_OTHER = ExplanationParameters(seed=1)  # so that the warm-up answers nothing of the run


def here(wish: Wish) -> tuple[dict[str, Any], Tally]:
    """In processes of this one."""
    before, start = _own_cpu(), time.monotonic()
    tally = explain_cohort(wish)
    return figures(tally, tally, time.monotonic() - start, _own_cpu() - before), tally


def there(wish: Wish, stack: Stack, bare: Tally) -> dict[str, Any]:
    """On a stack that is running. bare: what explain() and reading cost here."""
    parts = {name: _tree_cpu(member.pid) for name, member in stack.alive().items()}
    before, start = _own_cpu(), time.monotonic()
    tally = explain_cohort(wish)
    wall, own = time.monotonic() - start, _own_cpu() - before
    spent = {
        name: _tree_cpu(member.pid) - parts[name] for name, member in stack.alive().items()
    } | {"client": own}
    found = figures(tally, bare, wall, sum(spent.values()))
    found["cpu_s_by_process"] = {name: round(value, 2) for name, value in spent.items()}
    return found


def figures(tally: Tally, bare: Tally, wall: float, cpu: float) -> dict[str, Any]:
    """tally: of this run, with its start; bare: whose reading and explain() are the measure."""
    rest = cpu - tally.start - bare.explain
    return {
        "lesions": tally.done,
        "failed": tally.failed,
        "wall_s": round(wall, 2),
        "lesions_per_s": round(tally.done / wall, 3),
        "busy": round(cpu / (wall * cores()), 4),
        "overhead_per_lesion": round((rest - bare.read) / bare.explain, 4),
        "overhead_with_reading": round(rest / bare.explain, 4),
        "cpu_s": {
            "all": round(cpu, 2),
            "start": round(tally.start, 2),
            "reading": round(bare.read, 2),
            "explain": round(bare.explain, 2),
        },
    }


@contextmanager
def service(home: Path, bundle: Path, processes: int) -> Iterator[Stack]:
    """A whole stack on free ports, with as many Celery children and inference threads."""
    port, redis_port = free_ports(2)
    settings = Settings(
        home=home, bundle=bundle, port=port, redis_port=redis_port, redis_url=None,
        worker_processes=processes, sessions=processes,
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
    return sum(
        sum(process.cpu_times()[:4]) if process is leader else sum(process.cpu_times()[:2])
        for process in (leader, *leader.children(recursive=True))
    )


if __name__ == "__main__":
    main()
