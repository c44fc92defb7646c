"""Parts of an evaluation that train: the default and its samples, its rivals, other networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.cnn.data import SplitArrays
from models.cohort.phantom.stress import noisy_classes, shortcut_training
from models.evaluation.calibration import softmax
from models.evaluation.classification import evaluate_classifier
from services.cli.eval_place import Place, Tell, notes
from services.training.assemble import Assembled
from services.training.samples import sample_of
from services.training.splits import NAMES, Splits

SHORTCUT_CLASS = 0  # whose training lesions wear the mark


def default(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    """The default network as users train it, its bundle, and the samples of all experiments."""
    from services.training.trial import train_bundle

    splits = place.splits(place.plan.main)
    config = place.plan.trained(name)
    done, seconds = train_bundle(
        place.cohort(), splits, config, place.folder(name), place.plan.seed, place.keys.data,
        notes(tell),
    )  # fmt: skip
    _save_samples(place, name, splits, done)
    shares = softmax(done.activations["test"].logits / done.temperature)
    return {
        "n_train": len(splits.training),
        "bundle": done.manifest.hash,
        "temperature": done.temperature,
        "stages": seconds,
        "classifier": done.evaluation["classifier"],
        "validation_accuracy": done.evaluation["classifier_validation"]["accuracy"],
        "parity": done.evaluation["parity"],
        "right": (shares.argmax(axis=1) == splits.test.classes).astype(int).tolist(),
    }


def _save_samples(place: Place, name: str, splits: Splits, done: Assembled) -> None:
    for split in NAMES:
        sample = sample_of(getattr(splits, split), place.patients(split), done.activations[split])
        sample.save(place.folder(name) / "samples" / split)


def beside(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    """'net-seed1', '-seed2': the default network from other seeds. '-shortcut', '-label_noise': the
    same trained on spoiled lesions. '-concept': with feature heads. Few passes, and but for the
    seeds few steps; each leaves a bundle.
    """
    from services.training.trial import train_bundle

    what, plan = name.removeprefix("net-"), place.plan
    config, splits = plan.trained(name), place.splits(plan.main)
    seed = plan.seed + int(what.removeprefix("seed")) if what.startswith("seed") else plan.seed
    splits = spoiled(splits, what, place)
    done, seconds = train_bundle(
        place.cohort(), splits, config, place.folder(name), seed, place.keys.fits[name], notes(tell)
    )
    if what == "concept":
        _save_samples(place, name, splits, done)
    return {
        "n_train": len(splits.training),
        "bundle": done.manifest.hash,
        "temperature": done.temperature,
        "stages": seconds,
        "classifier": done.evaluation["classifier"],
        "validation_accuracy": done.evaluation["classifier_validation"]["accuracy"],
    }


def spoiled(splits: Splits, what: str, place: Place) -> Splits:
    """Training and validation lesions as a network of this kind sees them; test stays as it is."""
    spec, seed = place.plan.config("default").preprocessing, place.plan.seed

    def shortcut(split: SplitArrays, add: int) -> SplitArrays:
        bases = shortcut_training(split.bases, split.classes, SHORTCUT_CLASS, spec, seed + add)
        return replace(split, bases=bases)

    if what == "shortcut":
        training, validation = shortcut(splits.training, 0), shortcut(splits.validation, 1)
        return replace(splits, training=training, validation=validation)
    if what == "label_noise":  # validation lesions were read again: their classes are right
        count = len(place.cohort().file.classes)
        classes = noisy_classes(splits.training.classes, count, seed)
        return replace(splits, training=replace(splits.training, classes=classes))
    return splits


def fit(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    """'wang2019' at the main size, or the default network at a size of the learning curve."""
    from services.training.trial import fit_and_score

    plan = place.plan
    size = int(name.removeprefix("curve-")) if name.startswith("curve-") else plan.main
    cohort, splits, config = place.cohort(), place.splits(size), plan.trained(name)
    result = fit_and_score(
        cohort, splits, config, place.folder(name), plan.seed, place.keys.data, notes(tell)
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
