"""All benchmarks one after the other, each in a process of its own, then the page.

    python -m benchmarks.everything --bundle build/demo/bundle --out build/bench [--quick]

About 25 minutes on two quiet cores; --quick takes a few, to see that all of it runs: its figures
mean little and the page is left as it is. A step that fails is named at the end, and the others
run all the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """A benchmark. bundle: whether it takes one. args: always given. quick: what makes it short."""

    name: str
    about: str
    bundle: bool = True
    args: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return f"benchmarks.{self.name}"


# Variants come before predictions, whose record repeats their ratio.
STEPS = (
    Step("cold", "cold start, 1 minute", quick=("--rounds", "1")),
    Step("codec", "reading bodies, half a minute", quick=("--rounds", "1")),
    Step(
        "variants", "variants of the bundle, 2 minutes", args=("--cohort", "build/demo/cohort"),
        quick=("--rounds", "3", "--each", "2", "--passes", "2"),
    ),
    Step(
        "predict", "beside the bare model and the peers, 11 minutes",
        quick=("--rounds", "1", "--seconds", "1", "--only", "lesionlens", "--networks", "given"),
    ),
    Step("overload", "four times the capacity, 2 minutes", quick=("--seconds", "5")),
    Step(
        "scale", "sessions, threads, replicas, cores, 5 minutes",
        quick=("--quick", "--rounds", "1", "--seconds", "1", "--open-seconds", "3",
               "--networks", "given"),
    ),
    Step("probes", "detectors, half a minute", bundle=False, quick=("--rounds", "1")),
    Step("bulk", "cohorts, 3 minutes", args=("--lesions", "32"), quick=("--lesions", "6")),
    Step("explain", "beside torch with Captum, 3 minutes", quick=("--rounds", "1", "--cards", "1")),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="build/demo/bundle", help="folder or store tag")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--quick", action="store_true", help="see that everything runs")
    parser.add_argument("--steps", help="some of them, by comma")
    options = parser.parse_args()
    wanted = options.steps.split(",") if options.steps else [step.name for step in STEPS]
    unknown = [name for name in wanted if name not in {step.name for step in STEPS}]
    if unknown:
        parser.error(f"no such step: {unknown[0]}")
    steps = [step for step in STEPS if step.name in wanted]
    failed = run(steps, options.bundle, options.out, options.quick)
    if not options.quick:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.report", "--data", str(options.out)], check=True
        )
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(steps: Sequence[Step], bundle: str, out: Path, quick: bool) -> list[str]:
    """Run the steps; the names of those that failed."""
    failed = []
    start = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for number, step in enumerate(steps, 1):
        minutes = (time.monotonic() - start) / 60
        head = f"bench [{number}/{len(steps)}, {minutes:.0f} min] {step.name}: {step.about}"
        if importlib.util.find_spec(step.module) is None:
            print(f"{head}: not in this version", flush=True)
            continue
        print(head, flush=True)
        command = [sys.executable, "-m", step.module, "--out", str(out)]
        command += ["--bundle", bundle] if step.bundle else []
        command += (*step.args, *(step.quick if quick else ()))
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(step.name)
    return failed


if __name__ == "__main__":
    main()
