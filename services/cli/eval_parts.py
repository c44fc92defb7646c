"""The parts of an evaluation: each is made once, kept with its digest, and found again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from models.bundle.runtime import load_model
from models.cohort.phantom.generate import generate
from services.cli import eval_nets, eval_science, eval_substrate
from services.cli.eval_outliers import measure_outliers
from services.cli.eval_place import Place, Tell, counted
from services.cli.eval_plan import Keys, Plan


def finished(out: Path, plan: Plan, keys: Keys, name: str) -> dict[str, Any] | None:
    """The part's figures where it is done and nothing that decides it has changed."""
    try:
        part = json.loads((out / "parts" / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(part, dict) or part.get("digest") != keys.parts[name]:
        return None
    return part if Place(out, plan, keys).has(name) else None


def run_part(out: Path, plan: Plan, keys: Keys, name: str, tell: Tell) -> dict[str, Any]:
    """Make the part (or continue it) and write its JSON."""
    start, cpu = time.perf_counter(), _cpu_seconds()
    figures = MAKE[name.partition("-")[0]](Place(out, plan, keys), name, tell)
    part = {
        "part": name,
        "digest": keys.parts[name],
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(_cpu_seconds() - cpu, 1),
        **figures,
    }
    place = out / "parts" / f"{name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".part")
    partial.write_text(json.dumps(part, indent=1, allow_nan=False) + "\n", "utf-8")
    os.replace(partial, place)  # noqa: PTH105 - atomic on every system
    return part


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _cohort(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    plan = place.plan
    cohort = generate(
        place.folder(name),
        n=plan.training + plan.validation + plan.test,
        seed=plan.cohort_seed,
        splits=(plan.training, plan.validation, plan.test),
        outside=plan.outside,
        processes=2,
        progress=counted(tell, "lesion"),
    )
    return {"n": {s: len(cohort.lesions(s)) for s in ("training", "validation", "test", "outside")}}


def _arrays(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    from services.training.trial import save_arrays

    spec = place.plan.config("default").preprocessing
    save_arrays(place.cohort(), spec, place.folder(name), counted(tell, "lesion"))
    return {}


def _ood(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    bundle = place.bundle()
    return measure_outliers(
        place.cohort(),
        bundle,
        load_model(bundle),
        spoil=place.plan.spoiled,
        real=place.plan.real,
        downloads=place.out / "real",
        seed=place.plan.seed,
        progress=lambda note, done, total: tell(f"{note}: {done} of {total}", None),
    )


MAKE = {
    "cohort": _cohort,
    "arrays": _arrays,
    "default": eval_nets.default,
    "wang2019": eval_nets.fit,
    "curve": eval_nets.fit,
    "net": eval_nets.beside,
    "ood": _ood,
    "truth": eval_substrate.truth,
    "stress": eval_substrate.stress,
    "probes": eval_science.probes,
    "relevance": eval_science.relevance,
    "errors": eval_science.errors,
    "maps": eval_science.maps,
}
