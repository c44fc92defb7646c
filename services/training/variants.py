"""Make a variant of a bundle, measure it on validation lesions, and keep what came out.

    load -> quantise (integers alone) -> accuracy, probes, maps -> speed -> judge -> write

Training lesions calibrate, validation lesions judge, test lesions are not read. An accepted variant
is written with what it runs; a refused one with its record alone.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle.precision import Classifying, errors, open_classifier, tolerated
from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.bundle.variant import Kind, kind_of, write_variant
from models.cnn.data import SplitArrays, load_split
from models.cohort.format import Cohort, read_cohort
from models.errors import CohortError, InputError
from models.voi import centre
from services.training.quantise import quantise
from services.training.stages import Progress, Stages
from services.training.variant_measures import judged, measure, speed
from wire.variant import Budget, VariantRecord

CALIBRATION = 256  # training lesions whose ranges set the integers' scales
PASSES = 25  # behind what the probes read, where the training did not say
ROUNDS, EACH = 21, 10  # of the speed


def make_variant(
    folder: Path,
    kind: str,
    cohort_path: Path,
    *,
    budget: Budget = Budget(),  # noqa: B008 - frozen
    passes: int | None = None,
    draws: int = 1000,
    rounds: int = ROUNDS,
    seed: int = 0,
    progress: Progress | None = None,
) -> VariantRecord:
    """Write `folder`/variants/<kind>/ and give its record; `accepted` says how it ended.

    cohort_path: the cohort that the bundle was trained on. passes: stochastic passes behind what
    the probes read; those of the training by default. rounds: of the speed.

    Raises BundleError (an unknown kind, a bundle that must not be used, openvino not installed),
    CohortError, InputError where a validation lesion had trained the network.
    """
    chosen, stages = kind_of(kind), Stages(progress)
    bundle = read_bundle(folder)
    fp32 = load_model(bundle)
    if not chosen.quantised:  # what cannot run here is said before any lesion is read
        open_classifier(chosen, bundle.info, bundle.classifier)
    cohort = read_cohort(cohort_path)
    with stages.stage("load", "validation lesions"):
        split = _validation(cohort, bundle, stages)
        stages.result(f"{len(split)} validation lesions" + _synthetic(cohort))

    graph: bytes | None = None
    calibration: dict[str, float | int | str] = {}
    if chosen.quantised:
        with stages.stage("quantise", "calibrating on training lesions"):
            rows = _calibration(cohort, bundle, seed, stages)
            first_in_float = chosen.runtime == "onnxruntime"
            graph = quantise(bundle.classifier, rows, first_in_float=first_in_float)
            calibration = {
                "split": "training", "lesions": len(rows), "method": "minmax",
                "activations": "uint8", "weights": "int8 per channel",
                "first_convolution": "float" if first_in_float else "int8",
            }  # fmt: skip
            stages.result(f"{len(rows)} training lesions, {len(graph) >> 10} KB")

    variant = open_classifier(chosen, bundle.info, graph or bundle.classifier)
    return _judge(
        bundle, fp32, variant, chosen, graph, split, cohort.hash, budget, stages,
        calibration=calibration, passes=passes, draws=draws, rounds=rounds, seed=seed,
    )  # fmt: skip


def _judge(
    bundle: Bundle,
    fp32: OnnxModel,
    variant: Classifying,
    kind: Kind,
    graph: bytes | None,
    split: SplitArrays,
    cohort: str,
    budget: Budget,
    stages: Stages,
    *,
    calibration: dict[str, float | int | str],
    passes: int | None,
    draws: int,
    rounds: int,
    seed: int,
) -> VariantRecord:
    count = passes or int(bundle.training.get("config", {}).get("passes", PASSES))
    with stages.stage("measure", "classes, probes and maps beside fp32"):
        measured = measure(
            bundle, fp32, variant, split, cohort,
            passes=count, draws=draws, seed=seed, step=stages.step,
        )  # fmt: skip
        stages.result(f"same class as fp32 in {measured.same_class:.1%}")
    with stages.stage("speed", f"{rounds} rounds beside fp32"):
        plain = np.stack([centre(base, bundle.preprocessing) for base in split.bases[:32]])
        timed = speed(fp32, variant, plain, rounds=rounds, each=EACH)
        stages.result(f"{timed.variant_ms:.3g} CPU-ms a row, fp32 {timed.fp32_ms:.3g}")
    reasons = judged(measured, budget)
    with stages.stage("write", f"variants/{kind.name}"):
        record = write_variant(
            bundle.path,
            VariantRecord(
                kind=kind.name,
                hash="",
                parent=bundle.hash,
                accepted=not reasons,
                reasons=reasons,
                runtime=variant.runtime,
                machine=f"{_processor()}, {platform.system()}",
                calibration=calibration,
                tolerance=tolerated(errors(variant, bundle)),
                budget=budget,
                measured=measured,
                speed=timed,
                files={},
            ),
            graph,
        )
        stages.result("accepted" if record.accepted else "refused: " + "; ".join(reasons))
    return record


def _validation(cohort: Cohort, bundle: Bundle, stages: Stages) -> SplitArrays:
    """The cohort's validation split. InputError where one of its lesions trained the network."""
    trained = set(bundle.reference.lesion_ids)
    shared = [e.lesion_id for e in cohort.lesions("validation") if e.lesion_id in trained]
    if shared:
        raise InputError(
            "a validation lesion trained this network, so it cannot judge it",
            code="cohort_leak",
            field="cohort",
            found=shared[0],
            expected="the cohort and split that the bundle was trained with",
        )
    return _split(cohort, "validation", bundle, stages)


def _calibration(
    cohort: Cohort, bundle: Bundle, seed: int, stages: Stages
) -> list[NDArray[np.float32]]:
    """Plain views of up to CALIBRATION training lesions, drawn by the seed."""
    known = set(bundle.reference.lesion_ids)
    entries = [e for e in cohort.lesions("training") if e.lesion_id in known]
    if not entries:
        raise CohortError(["cohort: training: none of the lesions that this bundle was trained on"])
    chosen = np.random.default_rng(seed).permutation(len(entries))[:CALIBRATION]
    some = replace(
        cohort,
        file=cohort.file.model_copy(update={"training": [entries[i] for i in sorted(chosen)]}),
    )
    split = _split(some, "training", bundle, stages)
    return [centre(base, bundle.preprocessing) for base in split.bases]


def _split(cohort: Cohort, name: str, bundle: Bundle, stages: Stages) -> SplitArrays:
    optional: Sequence[str] = bundle.manifest.optional_phases
    return load_split(
        cohort, name, bundle.vocabulary, bundle.preprocessing,
        optional_phases=optional, progress=stages.step,
    )  # fmt: skip


def _synthetic(cohort: Cohort) -> str:
    return " (synthetic)" if cohort.file.synthetic else ""


def _processor() -> str:
    """The processor's name where the system tells it, since speed and rounding depend on it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
