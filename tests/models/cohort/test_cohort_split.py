from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cohort.split import folds, split_patients
from models.errors import InputError

CLASSES = ("hcc", "icc", "cyst")


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str]]:
    n = draw(st.integers(1, 80))
    patients = draw(st.lists(st.integers(0, 40), min_size=n, max_size=n))
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=n, max_size=n))
    ids = [f"L{i}" for i in range(n)]
    named = [f"P{p}" for p in patients]
    return dict(zip(ids, named, strict=True)), dict(zip(ids, classes, strict=True))


@settings(max_examples=60, deadline=None)
@given(cohort=cohorts(), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_split_is_of_patients_and_of_the_seed_alone(
    cohort: tuple[dict[str, str], dict[str, str]], seed: int, order: object
) -> None:
    patient_of, class_of = cohort
    split = split_patients(patient_of, class_of, seed=seed)
    assert set(split) == set(patient_of.values())
    assert set(split.values()) <= {"training", "validation", "test"}
    ids = list(patient_of)
    order.shuffle(ids)  # type: ignore[attr-defined]
    again = split_patients({i: patient_of[i] for i in ids}, {i: class_of[i] for i in ids[::-1]},
                           seed=seed)  # fmt: skip
    assert again == split


def balanced(seed: int = 0) -> tuple[dict[str, str], dict[str, str]]:
    rng = np.random.default_rng(seed)
    patient_of = {f"L{i}": f"P{rng.integers(0, 180)}" for i in range(300)}
    class_of = {i: CLASSES[rng.choice(3, p=[0.6, 0.3, 0.1])] for i in patient_of}
    return patient_of, class_of


@pytest.mark.parametrize("seed", range(4))
def test_sizes_and_classes_are_met(seed: int) -> None:
    patient_of, class_of = balanced(seed)
    shares = {"training": 0.6, "validation": 0.2, "test": 0.2}
    split = split_patients(patient_of, class_of, shares, seed)
    got = Counter((split[patient_of[i]], class_of[i]) for i in patient_of)
    whole = Counter(class_of.values())
    for name, share in shares.items():
        for class_id, count in whole.items():
            assert abs(got[name, class_id] - share * count) <= 2.5
        assert abs(sum(got[name, c] for c in CLASSES) - share * 300) <= 2.5


def test_rare_classes_do_not_all_go_to_training() -> None:
    ids = [f"L{i}" for i in range(10)]
    split = split_patients({i: i for i in ids}, {i: i for i in ids})
    assert Counter(split.values()) == {"training": 6, "validation": 2, "test": 2}


def test_seeds_differ() -> None:
    patient_of, class_of = balanced()
    made = [split_patients(patient_of, class_of, seed=s) for s in range(3)]
    assert made[0] != made[1] != made[2]


@pytest.mark.parametrize("k", [2, 5])
def test_folds_share_out_every_patient_once(k: int) -> None:
    patient_of, class_of = balanced()
    made = folds(patient_of, class_of, k, seed=1)
    assert set(made) == set(patient_of.values())
    assert set(made.values()) == set(range(1, k + 1))
    sizes = Counter(made[patient_of[i]] for i in patient_of)
    assert max(sizes.values()) - min(sizes.values()) <= 6
    hcc = Counter(made[patient_of[i]] for i in patient_of if class_of[i] == "hcc")
    assert max(hcc.values()) - min(hcc.values()) <= 6


def test_a_share_of_nothing_gets_nobody() -> None:
    patient_of, class_of = balanced()
    split = split_patients(patient_of, class_of, {"training": 1, "validation": 1, "test": 0})
    assert set(split.values()) == {"training", "validation"}


@pytest.mark.parametrize(
    "shares", [{}, {"training": 0}, {"training": -1, "test": 2}, {"training": float("nan")}]
)
def test_shares_that_make_no_sense(shares: dict[str, float]) -> None:
    with pytest.raises(InputError, match="not shares"):
        split_patients(*balanced(), shares)


def test_folds_that_make_no_sense() -> None:
    for k in (0, 1, 3):
        with pytest.raises(InputError, match="no such number of folds"):
            folds({"a": "P", "b": "Q"}, {"a": "hcc", "b": "hcc"}, k)
    with pytest.raises(InputError, match="without a patient"):
        split_patients({"a": "P"}, {"b": "hcc"})
