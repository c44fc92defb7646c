"""What an evaluation trains: one split in memory for many trainings, each with its test logits.

Arrays are read once and kept as .npy files, which every process maps instead of reading images
again; a training then takes a subset of the pool.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.cnn.classifier import Classifier
from models.cnn.data import SplitArrays, load_split
from models.cohort.format import Cohort
from models.evaluation.calibration import fit_temperature
from models.voi import Preprocessing, centre
from services.training.assemble import Assembled, Source, assemble
from services.training.hardware import Hardware
from services.training.pipeline import export, fit_members, joined, training_record
from services.training.profiles import Profile
from services.training.splits import NAMES, Splits, take
from services.training.stages import Progress, Stages
from services.training.vocabularies import vocabulary_of

_ARRAYS = ("bases", "sizes_mm", "classes", "features")


@dataclass(frozen=True)
class Outcome:
    """A fitted network on validation and test. logits: [n, C], plain view; temperature: from
    validation; epochs: run; best_validation: accuracy at the chosen epoch.
    """

    test_logits: NDArray[np.float32]
    validation_logits: NDArray[np.float32]
    temperature: float
    epochs: int
    best_validation: float


def save_arrays(
    cohort: Cohort, spec: Preprocessing, folder: Path, progress: Callable[[int, int], None]
) -> None:
    """Read the three splits and write them under `folder`; what is there already stays."""
    vocabulary = vocabulary_of(cohort)
    total, before = len(cohort.lesions()), 0
    for name in NAMES:
        place = folder / name
        count = len(cohort.lesions(name))
        if not (place / "lesions.json").is_file():

            def step(done: int, _: int, before: int = before) -> None:
                progress(before + done, total)

            split = load_split(cohort, name, vocabulary, spec, threads=2, progress=step)
            save_split(split, place)
        before += count


def open_arrays(folder: Path) -> Splits:
    """The splits that `save_arrays` wrote, mapped from disk."""
    return Splits(*(open_split(folder / name) for name in NAMES))


def save_split(split: SplitArrays, place: Path) -> None:
    """One .npy an array; `lesions.json` comes last, when the rest is whole."""
    place.mkdir(parents=True, exist_ok=True)
    for field in _ARRAYS:
        np.save(place / f"{field}.npy", getattr(split, field), allow_pickle=False)
    ids = {"ids": list(split.ids), "class_ids": list(split.class_ids)}
    (place / "lesions.json").write_text(json.dumps(ids), "utf-8")


def open_split(place: Path) -> SplitArrays:
    """What `save_split` wrote, its bases mapped from disk."""
    ids = json.loads((place / "lesions.json").read_text("utf-8"))
    # Copy on write: torch wants memory that could be written.
    bases = np.load(place / "bases.npy", mmap_mode="c", allow_pickle=False)
    rest = [np.load(place / f"{field}.npy", allow_pickle=False) for field in _ARRAYS[1:]]
    return SplitArrays(tuple(ids["ids"]), tuple(ids["class_ids"]), bases, *rest)


def subset(splits: Splits, which: NDArray[np.int64]) -> Splits:
    """The same validation and test with some of the training lesions."""
    return Splits(take(splits.training, which), splits.validation, splits.test)


def fit_and_score(
    cohort: Cohort,
    splits: Splits,
    config: Profile,
    folder: Path,
    seed: int,
    content: str,
    progress: Progress | None = None,
) -> Outcome:
    """Fit (or continue), calibrate on validation, and read the test logits in torch.

    content: hash of what the splits hold. No export, no probes: a point of a learning curve.
    """
    stages = Stages(progress)
    classes = len(cohort.file.classes)
    fitted = fit_members(
        splits, config, content, folder, classes, seed, None, True, False, Hardware(), stages
    )
    network = joined([f.network for f in fitted])
    validation = plain_logits(network, splits.validation, config.preprocessing)
    first = fitted[0]
    return Outcome(
        test_logits=plain_logits(network, splits.test, config.preprocessing),
        validation_logits=validation,
        temperature=fit_temperature(validation, splits.validation.classes),
        epochs=first.epochs,
        best_validation=float(first.curves[first.best_epoch]["val_accuracy"]),
    )


def plain_logits(
    network: Classifier, split: SplitArrays, spec: Preprocessing, batch: int = 32
) -> NDArray[np.float32]:
    """Logits of the plain centre view, [n, C]."""
    network.eval()
    rows = []
    with torch.no_grad():
        for start in range(0, len(split), batch):
            x = np.stack([centre(base, spec) for base in split.bases[start : start + batch]])
            rows.append(network(torch.from_numpy(x)).numpy())
    return np.concatenate(rows)


def train_bundle(
    cohort: Cohort,
    splits: Splits,
    config: Profile,
    folder: Path,
    seed: int,
    content: str,
    progress: Progress | None = None,
) -> tuple[Assembled, dict[str, float]]:
    """The whole training on splits in memory: `folder`/bundle, and seconds by stage."""
    stages, vocabulary = Stages(progress), vocabulary_of(cohort)
    hardware = Hardware()
    fitted = fit_members(
        splits, config, content, folder / "fit", len(vocabulary.classes), seed, None, True, False,
        hardware, stages,
    )  # fmt: skip
    graphs = export(
        joined([f.network for f in fitted]), splits, config, folder / "export", seed, stages
    )
    record: dict[str, Any] = training_record(config, fitted, None, hardware)
    done = assemble(
        graphs,
        splits,
        vocabulary,
        config,
        folder / "bundle",
        name=f"lesionlens-{cohort.file.name}-{config.name}",
        source=Source(cohort, content),
        seed=seed,
        stages=stages,
        record=record,
    )
    return done, stages.seconds
