"""The three splits of a cohort in memory, as the file names them or as folds cut them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.cnn.data import SplitArrays, load_split
from models.cohort.format import Cohort
from models.cohort.split import folds
from models.errors import CohortError, InputError
from models.vocabulary import Vocabulary
from models.voi import Preprocessing
from services.training.stages import Stages

NAMES = ("training", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """Training fits, validation chooses, test is looked at once."""

    training: SplitArrays
    validation: SplitArrays
    test: SplitArrays


@dataclass(frozen=True)
class Fold:
    """Fold number `index` (from 1) of `count`: that fold of training + validation validates."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Fold:
        """'2/5' -> fold 2 of 5. Raises InputError."""
        index, slash, count = text.partition("/")
        if slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count) >= 2:
            return cls(int(index), int(count))
        raise InputError(
            "no such fold", field="fold", found=text, expected="k/K with 1 <= k <= K, as in 2/5"
        )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def load_splits(
    cohort: Cohort,
    vocabulary: Vocabulary,
    spec: Preprocessing,
    stages: Stages,
    *,
    fold: Fold | None = None,
    optional_phases: Sequence[str] = (),
) -> Splits:
    """Read every lesion of the three splits; with a fold, cut training and validation anew.

    Folds are by patient and stratified by class, the same for every training seed; the test split
    stays what it was. Raises CohortError where a split is empty, InputError for more folds than
    patients.
    """
    empty = [
        f"cohort: {n}: no lesions; training needs all splits"
        for n in NAMES
        if not cohort.lesions(n) and not (fold and n == "validation")
    ]
    if empty:
        raise CohortError(empty)
    total, before = sum(len(cohort.lesions(n)) for n in NAMES), 0
    loaded: dict[str, SplitArrays] = {}
    for name in NAMES:
        if not cohort.lesions(name):
            continue

        def step(i: int, _: int, before: int = before) -> None:
            stages.step(before + i, total)

        loaded[name] = load_split(
            cohort, name, vocabulary, spec, optional_phases=optional_phases, progress=step
        )
        before += len(loaded[name])
    if fold is None:
        return Splits(loaded["training"], loaded["validation"], loaded["test"])
    pool = join([loaded[n] for n in ("training", "validation") if n in loaded])
    held = _validates(cohort, pool, fold)
    return Splits(
        take(pool, np.flatnonzero(~held)), take(pool, np.flatnonzero(held)), loaded["test"]
    )


def take(split: SplitArrays, which: NDArray[np.int64]) -> SplitArrays:
    """Some of its lesions, in the order asked for."""
    return SplitArrays(
        ids=tuple(split.ids[i] for i in which),
        class_ids=tuple(split.class_ids[i] for i in which),
        bases=split.bases[which],
        sizes_mm=split.sizes_mm[which],
        classes=split.classes[which],
        features=split.features[which],
    )


def join(splits: Sequence[SplitArrays]) -> SplitArrays:
    """Splits one after another."""
    return SplitArrays(
        ids=tuple(i for s in splits for i in s.ids),
        class_ids=tuple(c for s in splits for c in s.class_ids),
        bases=np.concatenate([s.bases for s in splits]),
        sizes_mm=np.concatenate([s.sizes_mm for s in splits]),
        classes=np.concatenate([s.classes for s in splits]),
        features=np.concatenate([s.features for s in splits]),
    )


def _validates(cohort: Cohort, pool: SplitArrays, fold: Fold) -> NDArray[np.bool_]:
    entries = {e.lesion_id: e for n in ("training", "validation") for e in cohort.lesions(n)}
    patient_of = {i: entries[i].patient_id for i in pool.ids}
    fold_of = folds(patient_of, dict(zip(pool.ids, pool.class_ids, strict=True)), fold.count)
    return np.array([fold_of[patient_of[i]] == fold.index for i in pool.ids])
