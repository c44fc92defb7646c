"""Cohort in, model bundle out: the stages of a training, in order.

    load -> fit -> export -> parity -> (assemble: activations -> measurements -> calibrate -> probes
    -> pairs -> review -> evaluation -> trust -> bundle) -> register

Training lesions fit, validation lesions choose, test lesions are looked at once, at the end, and
choose nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.cnn.classifier import Classifier
from models.cnn.ensemble import Ensemble
from models.cnn.export import export_classifier, export_gradients
from models.cnn.parity import BATCHES, check_parity, parity, parity_sample
from models.cohort.format import read_cohort
from models.passes import views
from models.probes.labelling import choose_labelled
from models.voi import centre
from services.common.settings import Settings
from services.common.store import register
from services.training.assemble import Assembled, Source, assemble, rounded
from services.training.curves import plot_curves
from services.training.fit import FitResult, fit
from services.training.graphs import CLASSIFIER, GRADIENTS, Graphs
from services.training.hardware import Hardware
from services.training.profiles import Profile, profile
from services.training.splits import Fold, Splits, load_splits
from services.training.stages import Progress, Stages
from services.training.vocabularies import vocabulary_of

PARITY_LESIONS = 64


class NotFirst(Exception):
    """This process helped to fit; the first of several has the result and goes on alone."""


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
    fold: Fold | None = None,
    bar: bool = False,
    store: bool = True,
    settings: Settings | None = None,
    hardware: Hardware | None = None,
) -> TrainResult:
    """Train on a cohort; write `out`/bundle and `out`/train.json; register the bundle.

    resume: continue what an earlier run with the same cohort, profile and seed left in `out`.
    fold: validate on that fold of training + validation in place of the file's split. bar: a
    progress bar a epoch. store: register in the BentoML model store.

    Raises CohortError, InputError, BundleError (an export that is numerically off),
    services.training.fit.Interrupted (Ctrl-C) and, in every process but the first of several,
    NotFirst once the network is fitted.
    """
    config = profile(chosen) if isinstance(chosen, str) else chosen
    hardware = hardware or Hardware()
    stages = Stages(progress)

    with stages.stage("load", "reading the cohort"):
        cohort = read_cohort(cohort_path)
        vocabulary = vocabulary_of(cohort)
        splits = load_splits(
            cohort,
            vocabulary,
            config.preprocessing,
            stages,
            fold=fold,
            optional_phases=config.optional_phases(vocabulary.phase_ids),
        )
        stages.result(
            f"{len(splits.training)} training, {len(splits.validation)} validation, "
            f"{len(splits.test)} test lesions" + (" (synthetic)" if cohort.file.synthetic else "")
        )

    classes = len(vocabulary.classes)
    fitted = fit_members(
        splits, config, cohort.hash, out / "fit", classes, seed, fold, resume, bar, hardware, stages
    )
    graphs = export(
        joined([f.network for f in fitted]), splits, config, out / "export", seed, stages
    )
    done = assemble(
        graphs,
        splits,
        vocabulary,
        config,
        out / "bundle",
        name=f"lesionlens-{cohort.file.name}-{config.name}",
        source=Source(cohort, cohort.hash),
        seed=seed,
        stages=stages,
        record=training_record(config, fitted, fold, hardware),
    )

    tag = None
    if store:
        with stages.stage("register", "BentoML model store"):
            tag = register(out / "bundle", settings)
            stages.result(tag)
    result = _result(done, graphs, splits, fitted, tag, stages)
    text = json.dumps({**asdict(result), "bundle": str(result.bundle)}, indent=2)
    (out / "train.json").write_text(text + "\n", "utf-8")
    return result


def joined(networks: list[Classifier]) -> Classifier:
    """One network as it is, several as an ensemble."""
    return networks[0] if len(networks) == 1 else Ensemble(networks)


def export(
    network: Classifier,
    splits: Splits,
    config: Profile,
    folder: Path,
    seed: int,
    stages: Stages,
) -> Graphs:
    """Write both graphs into `folder` and hold them against torch on validation lesions.

    Raises BundleError where an output is off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classifier, gradients = folder / CLASSIFIER, folder / GRADIENTS
    spec = config.preprocessing
    with stages.stage("export", "classifier and gradients to ONNX"):
        export_classifier(network, classifier, spec.tensor_voxels)
        export_gradients(classifier, gradients)
    with stages.stage("parity", "ONNX against torch, every output"):
        bases = splits.validation.bases[:PARITY_LESIONS]
        plain = np.stack([centre(base, spec) for base in bases])
        # A few lesions are few chances: one near-tie would be a large share of them.
        more = -(-sum(BATCHES) // len(bases)) - 1
        turned = [views(base, spec, config.recipe, more, seed) for base in bases] if more else []
        figures = parity(
            network, classifier, gradients, np.concatenate([plain, *turned]), seed=seed
        )
        check_parity(figures)
        sample = parity_sample(network, gradients, plain, seed)
        stages.result(
            f"classifier max abs {figures['max_abs']:.1e}, gradients relative L2 median "
            f"{figures['gradient_median']:.1e}"
        )
    return Graphs(folder, network.name, network.taps, sample, figures, len(plain))


def fit_members(
    splits: Splits,
    config: Profile,
    content: str,
    folder: Path,
    classes: int,
    seed: int,
    fold: Fold | None,
    resume: bool,
    bar: bool,
    hardware: Hardware,
    stages: Stages,
) -> list[FitResult]:
    """One network, or the members of an ensemble one after another, each in a folder of its own.

    content: hash of the cohort.
    """
    fitted: list[FitResult | None] = []
    what = [str(v) for v in hardware.describe().values()]
    for member in range(config.members):
        several = config.members > 1
        stage = f"fit {member + 1}/{config.members}" if several else "fit"
        place = folder / f"member-{member + 1}" if several else folder
        with stages.stage(stage, config.architecture.name):
            one = fit(
                splits.training,
                splits.validation,
                config,
                place,
                classes=classes,
                seed=member_seed(seed, member),
                key=config.digest(content, str(fold), *what),
                labelled=choose_labelled(splits.training.features, config.labelled, seed),
                resume=resume,
                bar=bar,
                on_epoch=_epoch_line(stages),
                hardware=hardware,
            )
            fitted.append(one)
            if one is None:
                continue
            plot_curves(one.curves, one.best_epoch, place / "curves.png")
            best = one.curves[one.best_epoch]
            stages.result(
                f"epoch {one.best_epoch + 1} of {one.epochs} is best: validation accuracy "
                f"{best['val_accuracy']:.3f}"
                + (f" (continued from epoch {one.resumed_from})" if one.resumed_from else "")
            )
    if not hardware.first:
        raise NotFirst
    return [one for one in fitted if one is not None]


def member_seed(seed: int, member: int) -> int:
    """The first member is the network that the seed alone would give."""
    return seed if member == 0 else (seed + 7_919 * member) % 2**31


def _epoch_line(stages: Stages) -> Callable[[dict[str, float]], None]:
    def say(row: dict[str, float]) -> None:
        stages.say(
            f"epoch {int(row['epoch']) + 1}: training loss {row['train_loss']:.3f}, "
            f"validation loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:.3f}"
        )

    return say


def training_record(
    config: Profile, fitted: list[FitResult], fold: Fold | None, hardware: Hardware
) -> dict[str, Any]:
    """What joins training.json. It holds no times, so the same run gives the same bundle."""
    packages = ("torch", "lightning", "monai", "numpy", "onnx", "onnxruntime")
    record: dict[str, Any] = {
        "profile": config.name,
        "epochs": fitted[0].epochs,
        "best_epoch": fitted[0].best_epoch + 1,
        "fold": str(fold) if fold else "",
        "versions": {p: importlib.metadata.version(p).split("+")[0] for p in packages},
        "hardware": hardware.describe(),
        "curves": [rounded(row) for row in fitted[0].curves],
        "config": config.model_dump(mode="json"),
    }
    if len(fitted) > 1:
        record["members"] = [
            {
                "epochs": f.epochs,
                "best_epoch": f.best_epoch + 1,
                "curves": [rounded(row) for row in f.curves],
            }
            for f in fitted
        ]
    return record


def _result(
    done: Assembled,
    graphs: Graphs,
    splits: Splits,
    fitted: list[FitResult],
    tag: str | None,
    stages: Stages,
) -> TrainResult:
    held = done.evaluation["classifier"]
    return TrainResult(
        bundle=done.bundle,
        hash=done.manifest.hash,
        tag=tag,
        n_train=len(splits.training),
        n_validation=len(splits.validation),
        n_test=len(splits.test),
        validation_accuracy=float(done.evaluation["classifier_validation"]["accuracy"]),
        test_accuracy=float(held["accuracy"]),
        test_ci=(float(held["ci"][0]), float(held["ci"][1])),
        parity_max_abs=graphs.figures["max_abs"],
        gradient_parity=graphs.figures["gradient_median"],
        temperature=done.temperature,
        probe_taps=done.detectors.probe_taps,
        epochs=fitted[0].epochs,
        resumed_from=fitted[0].resumed_from,
        stages=stages.seconds,
    )
