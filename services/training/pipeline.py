"""Cohort in, model bundle out: the stages of a training, in order.

    load -> fit -> export -> parity -> calibrate -> activations -> probes -> evaluation -> bundle
    -> register

Training lesions fit weights, probes and the out-of-distribution score; validation lesions choose
(epoch, temperature, taps, probe kind, threshold of the out-of-distribution score); test lesions are
looked at once, at the end, and choose nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.parts import BundleParts
from models.bundle.runtime import load_model
from models.bundle.write import write_bundle
from models.cnn.data import SplitArrays, load_split
from models.cnn.export import (
    check_parity,
    export_classifier,
    export_gradients,
    parity,
)
from models.cnn.network import LesionNet
from models.cohort.format import Cohort, read_cohort
from models.errors import CohortError
from models.evaluation.calibration import fit_temperature, softmax
from models.evaluation.classification import evaluate_classifier
from models.evaluation.detection import evaluate_features
from models.vocabulary import Vocabulary
from models.voi import centre
from services.common.settings import Settings
from services.common.store import register
from services.training.activations import Activations, read_activations
from services.training.curves import plot_curves
from services.training.detectors import Detectors, fit_detectors
from services.training.fit import FitResult, fit
from services.training.labelled import choose_labelled
from services.training.parity_sample import parity_sample
from services.training.profiles import Profile, profile
from services.training.stages import Progress, Stages
from services.training.vocabularies import vocabulary_of


@dataclass(frozen=True)
class TrainResult:
    """What a training came to. bundle: the folder; hash: its content address.

    test_accuracy, validation_accuracy: of the plain view, 0 to 1. parity_max_abs: largest
    difference of any classifier output between torch and ONNX. tag: in the model store, or None.
    stages: name -> seconds, in order.
    """

    bundle: Path
    hash: str
    tag: str | None
    n_train: int
    n_validation: int
    n_test: int
    validation_accuracy: float
    test_accuracy: float
    test_ci: tuple[float, float]
    parity_max_abs: float
    gradient_parity: float
    temperature: float
    probe_taps: list[str]
    epochs: int
    resumed_from: int
    stages: dict[str, float] = field(default_factory=dict)


def train(
    cohort_path: Path,
    out: Path,
    chosen: str | Profile = "default",
    seed: int = 0,
    resume: bool = True,
    progress: Progress | None = None,
    *,
    bar: bool = False,
    store: bool = True,
    settings: Settings | None = None,
    threads: int = 1,
) -> TrainResult:
    """Train on a cohort; write `out`/bundle and `out`/train.json; register the bundle.

    resume: continue what an earlier run with the same cohort, profile and seed left in `out`.
    bar: a progress bar a epoch. store: register in the BentoML model store. threads: of torch.

    Raises CohortError, InputError, BundleError (an export that is numerically off) and
    services.training.fit.Interrupted (Ctrl-C).
    """
    config = profile(chosen) if isinstance(chosen, str) else chosen
    spec, recipe = config.preprocessing, config.recipe
    stages = Stages(progress)
    exports = out / "export"
    exports.mkdir(parents=True, exist_ok=True)
    classifier, gradients = exports / "classifier.onnx", exports / "gradients.onnx"

    with stages.stage("load", "reading the cohort"):
        cohort = read_cohort(cohort_path)
        vocabulary = vocabulary_of(cohort)
        training, validation, test = _splits(cohort, vocabulary, config, stages)
        stages.result(
            f"{len(training)} training, {len(validation)} validation, {len(test)} test lesions"
            + (" (synthetic)" if cohort.file.synthetic else "")
        )

    with stages.stage("fit", f"{config.architecture.name}, {config.optimisation.epochs} epochs"):
        fitted = fit(
            training,
            validation,
            config,
            out / "fit",
            classes=len(vocabulary.classes),
            seed=seed,
            key=config.digest(cohort.hash, str(threads)),
            resume=resume,
            bar=bar,
            on_epoch=_epoch_line(stages, config.optimisation.epochs),
            threads=threads,
        )
        plot_curves(fitted.curves, fitted.best_epoch, out / "fit" / "curves.png")
        network = fitted.network
        best = fitted.curves[fitted.best_epoch]
        stages.result(
            f"epoch {fitted.best_epoch + 1} of {fitted.epochs} is best: validation accuracy "
            f"{best['val_accuracy']:.3f}"
            + (f" (continued from epoch {fitted.resumed_from})" if fitted.resumed_from else "")
        )

    with stages.stage("export", "classifier and gradients to ONNX"):
        export_classifier(network, classifier, spec.tensor_voxels)
        export_gradients(network, gradients, spec.tensor_voxels)

    with stages.stage("parity", "ONNX against torch, every output"):
        plain = np.stack([centre(base, spec) for base in validation.bases[:64]])
        figures = parity(network, classifier, gradients, plain, seed=seed)
        check_parity(figures)
        sample = parity_sample(network, plain, seed)
        stages.result(
            f"classifier max abs {figures['max_abs']:.1e}, gradients relative L2 median "
            f"{figures['gradient_median']:.1e}"
        )

    labelled = choose_labelled(training.features, config.labelled, seed)
    with stages.stage("activations", "stochastic passes of every lesion"):
        at = _activations(config, classifier, network, training, validation, test, labelled, stages)
        stages.result(
            f"{config.passes} passes a labelled or validation lesion, "
            f"{config.reference_passes} a reference or test lesion"
        )

    with stages.stage("calibrate", "temperature on validation"):
        temperature = fit_temperature(at["validation"].logits, validation.classes)
        stages.result(f"T = {temperature:.3f}")

    with stages.stage("probes", f"{len(vocabulary.features)} features"):
        detectors = fit_detectors(
            training,
            validation,
            at["training"],
            at["validation"],
            labelled,
            vocabulary,
            config.probe_taps,
            ood_quantile=config.ood_quantile,
            bootstraps=config.bootstraps,
            seed=seed,
        )
        macro = detectors.choices["+".join(detectors.probe_taps)]
        stages.result(
            f"{len(labelled)} labelled lesions, taps {'+'.join(detectors.probe_taps)}, "
            f"validation macro AUROC {'undefined' if macro is None else f'{macro:.3f}'}"
        )

    with stages.stage("evaluation", "the test split, once"):
        evaluation = _evaluate(
            at, detectors, vocabulary, temperature, validation, test, config, seed
        )
        evaluation["parity"] = {"split": "validation", "n": len(plain), **_rounded(figures)}
        evaluation["probe_taps"] = {"split": "validation", "macro_auroc": detectors.choices}
        held = evaluation["classifier"]
        stages.result(
            f"test accuracy {held['accuracy']:.3f} (95 % {held['ci'][0]:.3f} to "
            f"{held['ci'][1]:.3f}, n = {held['n']})"
        )

    with stages.stage("bundle", "writing and reading back"):
        record = _record(config, seed, cohort, fitted, training, validation, test, labelled)
        manifest = write_bundle(
            out / "bundle",
            BundleParts(
                name=f"lesionlens-{cohort.file.name}-{config.name}",
                architecture=config.architecture.name,
                trained_on=cohort.file.name,
                synthetic=cohort.file.synthetic,
                vocabulary=vocabulary,
                taps=config.architecture.taps,
                probe_taps=detectors.probe_taps,
                preprocessing=spec,
                recipe=recipe,
                temperature=temperature,
                classifier=classifier,
                gradients=gradients,
                probes=detectors.probes,
                reference=detectors.reference,
                ood=detectors.ood,
                parity=sample,
                training=record,
                evaluation=evaluation,
            ),
        )
        load_model(out / "bundle")  # refuses what a server would refuse
        stages.result(manifest.hash)

    tag = None
    if store:
        with stages.stage("register", "BentoML model store"):
            tag = register(out / "bundle", settings)
            stages.result(tag)

    result = TrainResult(
        bundle=out / "bundle",
        hash=manifest.hash,
        tag=tag,
        n_train=len(training),
        n_validation=len(validation),
        n_test=len(test),
        validation_accuracy=float(evaluation["classifier_validation"]["accuracy"]),
        test_accuracy=float(held["accuracy"]),
        test_ci=(float(held["ci"][0]), float(held["ci"][1])),
        parity_max_abs=figures["max_abs"],
        gradient_parity=figures["gradient_median"],
        temperature=temperature,
        probe_taps=detectors.probe_taps,
        epochs=fitted.epochs,
        resumed_from=fitted.resumed_from,
        stages=stages.seconds,
    )
    text = json.dumps({**asdict(result), "bundle": str(result.bundle)}, indent=2)
    (out / "train.json").write_text(text + "\n", "utf-8")
    return result


def _splits(
    cohort: Cohort, vocabulary: Vocabulary, config: Profile, stages: Stages
) -> tuple[SplitArrays, SplitArrays, SplitArrays]:
    names = ("training", "validation", "test")
    empty = [f"cohort: {n}: no lesions; training needs all splits" for n in names
             if not cohort.lesions(n)]  # fmt: skip
    if empty:
        raise CohortError(empty)
    total, before, loaded = len(cohort.lesions()), 0, []
    for name in names:
        loaded.append(
            load_split(
                cohort,
                name,
                vocabulary,
                config.preprocessing,
                progress=lambda i, n, before=before: stages.step(before + i, total),  # type: ignore[misc]
            )
        )
        before += len(loaded[-1])
    return loaded[0], loaded[1], loaded[2]


def _epoch_line(stages: Stages, epochs: int) -> Callable[[dict[str, float]], None]:
    def say(row: dict[str, float]) -> None:
        stages.say(
            f"epoch {int(row['epoch']) + 1}/{epochs}: training loss {row['train_loss']:.3f}, "
            f"validation loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:.3f}"
        )

    return say


def _activations(
    config: Profile,
    classifier: Path,
    network: LesionNet,
    training: SplitArrays,
    validation: SplitArrays,
    test: SplitArrays,
    labelled: NDArray[np.int64],
    stages: Stages,
) -> dict[str, Activations]:
    passes = np.full(len(training), config.reference_passes)
    passes[labelled] = config.passes
    wanted: dict[str, tuple[SplitArrays, NDArray[np.int64] | int]] = {
        "training": (training, passes),
        "validation": (validation, config.passes),
        "test": (test, config.reference_passes),
    }
    total, before, result = len(training) + len(validation) + len(test), 0, {}
    for name, (split, counts) in wanted.items():
        result[name] = read_activations(
            classifier,
            split,
            list(network.architecture.taps),
            config.preprocessing,
            config.recipe,
            counts,
            progress=lambda i, n, before=before: stages.step(before + i, total),  # type: ignore[misc]
        )
        before += len(split)
    return result


def _evaluate(
    at: dict[str, Activations],
    detectors: Detectors,
    vocabulary: Vocabulary,
    temperature: float,
    validation: SplitArrays,
    test: SplitArrays,
    config: Profile,
    seed: int,
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, split in (("validation", validation), ("test", test)):
        suffix = "" if name == "test" else f"_{name}"
        result[f"classifier{suffix}"] = evaluate_classifier(
            softmax(at[name].logits / temperature),
            split.classes,
            vocabulary.class_ids,
            split=name,
            draws=config.bootstraps,
            seed=seed,
        )
        h = at[name].joined(detectors.probe_taps)
        result[f"features{suffix}"] = evaluate_features(
            detectors.probes.probabilities(h),
            detectors.probes.found(h),
            split.features,
            vocabulary.feature_ids,
            split=name,
            draws=config.bootstraps,
            seed=seed,
        )
    return result


def _record(
    config: Profile,
    seed: int,
    cohort: Cohort,
    fitted: FitResult,
    training: SplitArrays,
    validation: SplitArrays,
    test: SplitArrays,
    labelled: NDArray[np.int64],
) -> dict[str, Any]:
    """training.json. It holds no times, so the same run gives the same bundle."""
    return {
        "profile": config.name,
        "seed": seed,
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch + 1,
        "n_train": len(training),
        "n_validation": len(validation),
        "n_test": len(test),
        "n_labelled": len(labelled),
        "cohort": cohort.hash,
        "torch": importlib.metadata.version("torch").split("+")[0],
        "labelled_lesions": [training.ids[i] for i in labelled],
        "curves": [_rounded(row) for row in fitted.curves],
        "config": config.model_dump(mode="json"),
    }


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {k: float(f"{v:.4g}") for k, v in figures.items()}
