"""How long until a bundle can be used: from a cold process to a loaded model and a ready server.

    python -m benchmarks.cold --bundle build/demo/bundle --out build/bench

Every round is a new process: import, every checksum, both graphs, parity on the stored sample. The
file cache is warm, as it is for a worker that is replaced. One more start of the service tells what
it imports and what each package costs (Python's own import times), and what memory it holds.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import conditions, cpu_seconds, memory_mb, pin
from benchmarks.serving import front
from benchmarks.spread import spread
from models.bundle.read import Bundle, read_bundle
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.store import resolve

# What only training needs: none of it belongs in a process that serves.
TRAINING = ("torch", "lightning", "monai", "onnx", "onnxscript", "sklearn", "matplotlib", "captum")
HEAVY_MS = 40.0
_IMPORT = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \|( +)(\S+)")
_LOAD = """
import json, sys, time
start = time.perf_counter()
from models.bundle.read import read_bundle
from models.bundle.runtime import OnnxModel
imported = time.perf_counter()
bundle = read_bundle(sys.argv[1])
read = time.perf_counter()
model = OnnxModel(bundle)
opened = time.perf_counter()
model.check_parity()
done = time.perf_counter()
print(json.dumps({
    "import": imported - start, "read_and_checksums": read - imported, "graphs": opened - read,
    "parity": done - opened, "load": done - imported,
    "heavy": sorted({"torch", "lightning", "monai", "onnx", "bentoml"} & set(sys.modules)),
}))
"""


def measure(bundle: Path) -> dict[str, Any]:
    """Seconds of each step of loading, in a process of its own; `heavy`: what must not be there."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(bundle)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(done.stderr.strip().splitlines()[-1] if done.stderr else "the bundle did not load")
    return json.loads(done.stdout)


def ready(bundle: Bundle) -> dict[str, float]:
    """The service from its start until it is ready: wall and CPU-seconds; its memory then."""
    start = time.perf_counter()
    with front(bundle) as served:
        seconds = time.perf_counter() - start
        cpu = cpu_seconds([served.process])
        return {"seconds": seconds, "cpu_seconds": cpu} | memory_mb([served.process])


def imported(bundle: Bundle) -> dict[str, float]:
    """Package -> milliseconds of importing it, the modules below it included, in the service."""
    with front(bundle, environment={"PYTHONPROFILEIMPORTTIME": "1"}) as served:
        if served.log is None:
            raise ValueError("the service keeps no log")
        return package_ms(served.log.read_text("utf-8", "replace").splitlines())


def package_ms(lines: Iterable[str]) -> dict[str, float]:
    """Python's lines 'import time: self | cumulative | name' -> package -> its own time in ms.

    Summed over the modules of a package, and over processes where there are several; what a package
    imports from others counts for those.
    """
    found: dict[str, float] = {}
    for line in lines:
        match = _IMPORT.search(line)
        if match:
            package = match[4].partition(".")[0]
            found[package] = found.get(package, 0.0) + int(match[1]) / 1e3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or store tag; default: production, or the latest")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    bundle = read_bundle(resolve(options.bundle, read_settings()))
    cores = pin(2)
    about = conditions(cores)
    rounds = [measure(bundle.path) for _ in range(options.rounds)]
    steps = [name for name in rounds[0] if name != "heavy"]
    starts = [ready(bundle) for _ in range(options.rounds)]
    packages = imported(bundle)
    report: dict[str, Any] = {
        "bundle": bundle.hash,
        "conditions": about,
        "bundle_mb": round(sum(f.stat().st_size for f in bundle.path.iterdir()) / 1e6, 2),
        "rounds": options.rounds,
        "seconds": {name: spread(np.array([r[name] for r in rounds])) for name in steps},
        "ready_seconds": spread([start["seconds"] for start in starts]),
        "ready_cpu_seconds": spread([start["cpu_seconds"] for start in starts]),
        "memory_mb": {k: spread([start[k] for start in starts], 1) for k in ("rss", "pss")},
        "imported_beside": sorted({name for r in rounds for name in r["heavy"]}),
        "service_training_packages": sorted(set(packages) & set(TRAINING)),
        "service_heavy_imports_ms": {
            name: round(ms, 1)
            for name, ms in sorted(packages.items(), key=lambda pair: -pair[1])
            if ms >= HEAVY_MS
        },
    }
    path = options.out / "cold.json"
    write_record(path, report, made_by="python -m benchmarks.cold", seed=0)
    from benchmarks.plots.cold import draw

    draw(report, path.with_suffix(".png"))
    load, up = report["seconds"]["load"], report["ready_seconds"]
    print(f"load {load['median']} s (at most {load['max']}), ready {up['median']} s: {path}")


if __name__ == "__main__":
    main()
