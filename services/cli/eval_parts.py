"""The parts of an evaluation: each is made once, kept with its digest, and found again.

<out>/cohort-<digest>/             the synthetic cohort
<out>/arrays-<digest>/             its lesions as the network sees them
<out>/fits/<part>-<digest>/        checkpoints, curves and, for 'default', the bundle
<out>/parts/<part>.json            digest, seconds and figures of a finished part
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.cohort.format import Cohort, read_cohort
from models.cohort.phantom.generate import generate
from models.evaluation.calibration import softmax
from models.evaluation.classification import evaluate_classifier
from models.trial.measure import measure_features
from models.trial.readings import Readings
from models.trial.subsets import nested
from services.cli.eval_outliers import measure_outliers
from services.cli.eval_plan import Keys, Plan
from services.training.stages import Report

# note, fraction of the part where it is known
Tell = Callable[[str, float | None], None]


def finished(out: Path, keys: Keys, name: str) -> dict[str, Any] | None:
    """The part's figures where it is done and nothing that decides it has changed."""
    try:
        part = json.loads((out / "parts" / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(part, dict) or part.get("digest") != keys.parts[name]:
        return None
    if name in ("cohort", "arrays", "default") and not _folder(out, keys, name).is_dir():
        return None
    return part


def run_part(out: Path, plan: Plan, keys: Keys, name: str, tell: Tell) -> dict[str, Any]:
    """Make the part (or continue it) and write its JSON."""
    start = time.perf_counter()
    make = _MAKE[name.partition("-")[0]]
    figures = make(out, plan, keys, name, tell)
    part = {
        "part": name,
        "digest": keys.parts[name],
        "seconds": round(time.perf_counter() - start, 1),
        **figures,
    }
    place = out / "parts" / f"{name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".part")
    partial.write_text(json.dumps(part, indent=1, allow_nan=False) + "\n", "utf-8")
    os.replace(partial, place)  # noqa: PTH105 - atomic on every system
    return part


def _folder(out: Path, keys: Keys, name: str) -> Path:
    if name == "cohort":
        return out / f"cohort-{keys.data}"
    if name == "arrays":
        return out / f"arrays-{keys.parts['arrays']}"
    folder = out / "fits" / f"{name}-{keys.fits[name]}"
    return folder / "bundle" if name == "default" else folder


def bundle_folder(out: Path, keys: Keys) -> Path:
    """Where the bundle of the default network lies once its part is done."""
    return _folder(out, keys, "default")


def _cohort(out: Path, plan: Plan, keys: Keys, name: str, tell: Tell) -> dict[str, Any]:
    n = plan.training + plan.validation + plan.test

    def step(done: int, total: int) -> None:
        tell(f"lesion {done} of {total}", done / total)

    cohort = generate(
        _folder(out, keys, name),
        n=n,
        seed=plan.cohort_seed,
        splits=(plan.training, plan.validation, plan.test),
        outside=plan.outside,
        processes=2,
        progress=step,
    )
    return {"n": {s: len(cohort.lesions(s)) for s in ("training", "validation", "test", "outside")}}


def _arrays(out: Path, plan: Plan, keys: Keys, name: str, tell: Tell) -> dict[str, Any]:
    from services.training.trial import save_arrays

    def step(done: int, total: int) -> None:
        tell(f"lesion {done} of {total}", done / total)

    spec = plan.config("default").preprocessing
    save_arrays(_open(out, keys), spec, _folder(out, keys, name), step)
    return {}


def _default(out: Path, plan: Plan, keys: Keys, name: str, tell: Tell) -> dict[str, Any]:
    from services.training.trial import open_arrays, subset, train_bundle

    cohort, splits = _open(out, keys), open_arrays(_folder(out, keys, "arrays"))
    splits = subset(splits, _subsets(cohort, plan)[plan.main])
    config = plan.config(name)
    done, seconds = train_bundle(
        cohort, splits, config, _folder(out, keys, name).parent, plan.seed, keys.data, _notes(tell)
    )
    probes, readings = done.detectors.probes, {}
    for split_name in ("validation", "test"):
        at, split = done.activations[split_name], getattr(splits, split_name)
        h = at.joined(done.detectors.probe_taps)
        readings[split_name] = Readings(
            lesion_ids=list(split.ids),
            classes=split.classes,
            probabilities=softmax(at.logits / done.temperature),
            labels=np.asarray(split.features, dtype=np.float64),
            features=probes.probabilities(h),
            found=probes.found(h),
        )
    test = readings["test"]
    labels = np.asarray(splits.training.features, dtype=np.float64)
    return {
        "n_train": len(splits.training),
        "bundle": done.manifest.hash,
        "temperature": done.temperature,
        "stages": seconds,
        "classifier": done.evaluation["classifier"],
        "validation_accuracy": done.evaluation["classifier_validation"]["accuracy"],
        "parity": done.evaluation["parity"],
        "right": (test.probabilities.argmax(axis=1) == test.classes).astype(int).tolist(),
        **measure_features(
            probes.features, (splits.training.classes, labels), readings["validation"], test,
            plan.seed,
        ),
    }  # fmt: skip


def _fit(out: Path, plan: Plan, keys: Keys, name: str, tell: Tell) -> dict[str, Any]:
    """'wang2019' at the main size, or the default network at a size of the learning curve."""
    from services.training.trial import fit_and_score, open_arrays, subset

    cohort, splits = _open(out, keys), open_arrays(_folder(out, keys, "arrays"))
    size = int(name.removeprefix("curve-")) if name.startswith("curve-") else plan.main
    splits = subset(splits, _subsets(cohort, plan)[size])
    config = plan.config("wang2019" if name == "wang2019" else "default")
    result = fit_and_score(
        cohort, splits, config, _folder(out, keys, name), plan.seed, keys.data, _notes(tell)
    )
    shares = softmax(result.test_logits / result.temperature)
    return {
        "n_train": size,
        "temperature": result.temperature,
        "epochs": result.epochs,
        "validation_accuracy": result.best_validation,
        "classifier": evaluate_classifier(
            shares, splits.test.classes, cohort.file.classes, split="test",
            draws=config.bootstraps, seed=plan.seed,
        ),
        "right": (shares.argmax(axis=1) == splits.test.classes).astype(int).tolist(),
    }  # fmt: skip


def _ood(out: Path, plan: Plan, keys: Keys, name: str, tell: Tell) -> dict[str, Any]:
    bundle = read_bundle(bundle_folder(out, keys))
    return measure_outliers(
        _open(out, keys),
        bundle,
        load_model(bundle),
        spoil=plan.spoiled,
        real=plan.real,
        downloads=out / "real",
        seed=plan.seed,
        progress=lambda note, done, total: tell(f"{note}: {done} of {total}", None),
    )


_MAKE = {
    "cohort": _cohort,
    "arrays": _arrays,
    "default": _default,
    "wang2019": _fit,
    "curve": _fit,
    "ood": _ood,
}


def needs(name: str) -> list[str]:
    """The parts that must be done before this one."""
    before = {"cohort": [], "arrays": ["cohort"], "ood": ["default"]}
    return before.get(name, ["arrays"])


def _open(out: Path, keys: Keys) -> Cohort:
    return read_cohort(_folder(out, keys, "cohort"))


def _subsets(cohort: Cohort, plan: Plan) -> dict[int, NDArray[np.int64]]:
    patients = [entry.patient_id for entry in cohort.lesions("training")]
    return nested(patients, sorted({*plan.sizes, plan.main}), plan.seed)


def _notes(tell: Tell) -> Callable[[Report], None]:
    def hear(report: Report) -> None:
        if report.note:
            tell(f"{report.stage}: {report.note}", report.fraction)

    return hear
