"""How fast is each execution of a bundle, and what does it cost? One process, interleaved rounds.

    python -m benchmarks.variants --bundle build/demo/bundle --cohort build/demo/cohort

Every kind of variant is made anew on a copy of the bundle and measured on the cohort's validation
lesions as `lesionlens bundle variant` does; then all of them, accepted or not, and fp32 on
onnxruntime alternate in rounds: CPU time a row, batch 1, one thread. `--bundle NAME=FOLDER` may be
given several times. With `--provider cuda` (or tensorrt) fp32 on that provider is a further way,
by wall time beside CPU time; the JSON says on what it ran.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

# Before numpy: one thread is what a call has.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from benchmarks.predict import spread
from models.bundle.precision import Classifying, open_classifier
from models.bundle.providers import Execution
from models.bundle.read import read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.bundle.variant import FP32, KINDS
from models.cohort.format import read_cohort
from models.cohort.load import load_lesion
from models.voi import centre, normalise
from services.cli.bundle_variants import report
from services.cli.record import write_record
from services.training.variant_measures import time_rows
from services.training.variants import make_variant
from wire.variant import VariantRecord

ROWS = 16  # validation lesions that the rounds go through


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", action="append", required=True, metavar="[NAME=]FOLDER")
    parser.add_argument("--cohort", type=Path, required=True, help="that the bundles trained on")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--each", type=int, default=10, help="rows a way and round")
    parser.add_argument("--passes", type=int, help="behind what the probes read")
    parser.add_argument("--provider", choices=["cpu", "cuda", "tensorrt"], default="cpu")
    options = parser.parse_args()
    bundles: dict[str, Any] = {}
    for given in options.bundle:
        name, _, folder = given.rpartition("=")
        found = measured(Path(folder), options)
        bundles[name or found["architecture"]] = found
    data = {"provider": options.provider, "bundles": bundles, "ratios": ratios(bundles)}
    path = options.out / "variants.json"
    write_record(path, data, made_by="python -m benchmarks.variants", seed=0)
    print(path)


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Records of all kinds, and their speed side by side."""
    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / "bundle"
        shutil.copytree(folder, copy)
        records: dict[str, VariantRecord] = {}
        graphs: dict[str, bytes | None] = {}
        for kind in KINDS:
            record = make_variant(copy, kind, options.cohort, passes=options.passes, rounds=5)
            records[kind] = record
            file = copy / "variants" / kind / "classifier.onnx"
            graphs[kind] = file.read_bytes() if file.is_file() else None
            print(report(record), flush=True)
        bundle = read_bundle(copy)
        fp32 = load_model(bundle)
        ways: dict[str, Classifying] = {FP32: fp32}
        for kind, chosen in KINDS.items():
            graph = graphs[kind] if chosen.quantised else bundle.classifier
            if graph is not None:  # a refused int8 variant keeps no graph to time
                ways[kind] = open_classifier(chosen, bundle.info, graph)
        rows = plain_rows(copy, options.cohort)
        seconds = time_rows(list(ways.values()), rows, rounds=options.rounds, each=options.each)
        gpu = None
        if options.provider != "cpu":
            gpu = on_provider(fp32, Execution(provider=options.provider, graphs=True), rows)
    timed = dict(zip(ways, seconds, strict=True))
    return {
        "bundle": bundle.hash,
        "architecture": bundle.manifest.architecture,
        "rounds": options.rounds,
        "rows_a_round": options.each,
        "cpu_ms": {k: spread(1e3 * v) for k, v in timed.items()},
        "speedup_vs_fp32": {k: spread(timed[FP32] / v) for k, v in timed.items() if k != FP32},
        "accepted": {kind: record.accepted for kind, record in records.items()},
        "records": {kind: record.model_dump(mode="json") for kind, record in records.items()},
        **({} if gpu is None else {options.provider: gpu}),
    }


def ratios(bundles: dict[str, Any]) -> dict[str, Any]:
    """Of each bundle its fastest accepted variant; `fast_variant_vs_fp32` is the best of all."""
    best = {}
    for name, found in bundles.items():
        inside = [k for k, ok in found["accepted"].items() if ok and k in found["speedup_vs_fp32"]]
        if inside:
            kind = max(inside, key=lambda k: found["speedup_vs_fp32"][k]["median"])
            best[name] = {"kind": kind, **found["speedup_vs_fp32"][kind]}
    if not best:
        return {"by_bundle": {}}
    winner = max(best, key=lambda name: best[name]["median"])
    return {"by_bundle": best, "fast_variant_vs_fp32": {"bundle": winner, **best[winner]}}


def on_provider(
    cpu: OnnxModel, execution: Execution, rows: NDArray[np.float32], rounds: int = 31
) -> dict[str, Any]:
    """Wall milliseconds a row on a GPU at several batches, and how far it is from the CPU."""
    model = load_model(cpu.bundle, execution=execution)  # type: ignore[arg-type]
    found: dict[str, Any] = {"runtime": model.runtime}
    exact = cpu.forward(rows, ["logits"])["logits"]
    found["max_abs"] = float(np.abs(model.forward(rows, ["logits"])["logits"] - exact).max())
    for batch in (1, 8, 64):
        x = np.resize(rows, (batch, *rows.shape[1:]))
        model.forward(x, ["scores"])
        wall = []
        for _ in range(rounds):
            start = time.perf_counter()
            model.forward(x, ["scores"])
            wall.append((time.perf_counter() - start) / batch)
        found[f"wall_ms_a_row_batch_{batch}"] = spread(1e3 * np.array(wall))
    return found


def plain_rows(folder: Path, cohort_path: Path) -> NDArray[np.float32]:
    """Plain views of the first validation lesions, [n, P, K, K, K]."""
    bundle, cohort = read_bundle(folder), read_cohort(cohort_path)
    spec, m = bundle.preprocessing, bundle.manifest
    lesions = [
        load_lesion(cohort, entry, m.phases, spec, m.optional_phases)
        for entry in cohort.lesions("validation")[:ROWS]
    ]
    return np.stack([centre(normalise(lesion, spec), spec) for lesion in lesions])


if __name__ == "__main__":
    main()
