"""How long until a bundle can be used: from a cold process to a loaded model and a ready server.

    python -m benchmarks.cold --bundle build/demo/bundle --out build/bench

Every round is a new process: import, every checksum, both graphs, parity on the stored sample. The
file cache is warm, as it is for a worker that is replaced.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.predict import service, spread
from models.bundle.read import Bundle, read_bundle
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.store import resolve

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


def ready(bundle: Bundle) -> float:
    """Seconds from the start of the inference service until it answers that it is ready."""
    start = time.perf_counter()
    with service(bundle):
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or store tag; default: production, or the latest")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    bundle = read_bundle(resolve(options.bundle, read_settings()))
    rounds = [measure(bundle.path) for _ in range(options.rounds)]
    steps = [name for name in rounds[0] if name != "heavy"]
    starts = np.array([ready(bundle) for _ in range(min(options.rounds, 3))])
    report = {
        "bundle": bundle.hash,
        "bundle_mb": round(sum(f.stat().st_size for f in bundle.path.iterdir()) / 1e6, 2),
        "rounds": options.rounds,
        "seconds": {name: spread(np.array([r[name] for r in rounds])) for name in steps},
        "ready_seconds": spread(starts),
        "imported_beside": sorted({name for r in rounds for name in r["heavy"]}),
    }
    path = options.out / "cold.json"
    write_record(path, report, made_by="python -m benchmarks.cold", seed=0)
    load, up = report["seconds"]["load"], report["ready_seconds"]  # type: ignore[index]
    print(f"load {load['median']} s (at most {load['max']}), ready {up['median']} s: {path}")


if __name__ == "__main__":
    main()
