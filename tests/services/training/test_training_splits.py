"""Folds: by patient, balanced by class, the test split untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.cohort.format import Cohort, read_cohort
from models.errors import CohortError, InputError
from models.vocabulary import liver_mri
from models.voi import Preprocessing
from services.training.splits import Fold, Splits, load_splits
from services.training.stages import Stages

K = 3


def load(cohort: Cohort, fold: Fold | None = None) -> Splits:
    return load_splits(cohort, liver_mri(), Preprocessing(), Stages(), fold=fold)


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Path) -> Cohort:
    return read_cohort(tiny_cohort)


@pytest.fixture(scope="module")
def plain(cohort: Cohort) -> Splits:
    return load(cohort)


@pytest.fixture(scope="module")
def folded(cohort: Cohort) -> list[Splits]:
    return [load(cohort, Fold(k, K)) for k in range(1, K + 1)]


def test_folds_part_the_lesions(plain: Splits, folded: list[Splits]) -> None:
    pool = {*plain.training.ids, *plain.validation.ids}
    held = [set(s.validation.ids) for s in folded]
    assert set.union(*held) == pool
    assert sum(len(h) for h in held) == len(pool)
    for s, h in zip(folded, held, strict=True):
        assert set(s.training.ids) == pool - h
        assert len(s.training) + len(s.validation) == len(pool)
        assert s.test.ids == plain.test.ids
    assert max(len(h) for h in held) - min(len(h) for h in held) <= len(pool) // 6


def test_no_patient_on_both_sides(cohort: Cohort, folded: list[Splits]) -> None:
    patient = {e.lesion_id: e.patient_id for e in cohort.lesions()}
    for s in folded:
        inside = {patient[i] for i in s.training.ids}
        assert not inside & {patient[i] for i in s.validation.ids}


def test_classes_are_spread(folded: list[Splits]) -> None:
    counts = np.array([np.bincount(s.validation.classes, minlength=6) for s in folded])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 2).all()


def test_every_lesion_keeps_its_own_rows(plain: Splits, folded: list[Splits]) -> None:
    where = {i: n for n, i in enumerate(plain.training.ids)}
    for s in folded:
        for n, name in enumerate(s.training.ids):
            if name in where:
                at = where[name]
                np.testing.assert_array_equal(s.training.bases[n], plain.training.bases[at])
                np.testing.assert_array_equal(s.training.features[n], plain.training.features[at])
                assert s.training.classes[n] == plain.training.classes[at]
                assert s.training.class_ids[n] == plain.training.class_ids[at]


def test_a_fold_needs_no_validation_split(cohort: Cohort) -> None:
    file = cohort.file.model_copy(update={"validation": []})
    without = Cohort(cohort.root, file)
    assert len(load(without, Fold(1, K)).validation) > 0
    with pytest.raises(CohortError, match="validation: no lesions"):
        load(without)


def test_a_fold_is_written_k_of_n() -> None:
    assert Fold.parse("2/5") == Fold(2, 5)
    assert str(Fold(2, 5)) == "2/5"
    for text in ("", "2", "0/5", "6/5", "1/1", "a/b", "-1/5", "2/5/6", "1.5/3"):
        with pytest.raises(InputError, match="no such fold"):
            Fold.parse(text)
