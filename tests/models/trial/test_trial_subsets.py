"""Nested subsets of a training pool, and paired differences on one test split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from models.evaluation.paired import paired_accuracy
from models.trial.subsets import nested


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 99), st.data())
def test_subsets_are_nested_and_of_the_asked_size(
    owners: list[int], seed: int, data: st.DataObject
) -> None:
    patients = [f"p{o}" for o in owners]
    sizes = sorted(
        data.draw(
            st.sets(
                st.integers(1, len(patients)),
                min_size=1,
                max_size=4,
            )
        )
    )
    found = nested(patients, sizes, seed)
    for size in sizes:
        which = found[size]
        assert len(set(which.tolist())) == size
        assert (np.diff(which) > 0).all()
        # All patients but one are in it whole or not at all.
        taken = {p: sum(patients[i] == p for i in which) for p in {patients[i] for i in which}}
        assert sum(n < patients.count(p) for p, n in taken.items()) <= 1
    for small, large in itertools.pairwise(sizes):
        assert set(found[small]) <= set(found[large])
    again = nested(patients, sizes, seed)
    assert all((found[s] == again[s]).all() for s in sizes)


def test_a_pool_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="not enough"):
        nested(["a", "b"], [3], 0)


def test_the_paired_difference_counts_lesions_with_both_answers() -> None:
    first = np.array([1, 1, 1, 0, 1, 0, 1, 1] * 20, bool)
    second = np.array([1, 0, 1, 0, 0, 1, 1, 1] * 20, bool)
    row = paired_accuracy(first, second)
    assert row["difference"] == pytest.approx(first.mean() - second.mean())
    assert (row["only_first"], row["only_second"], row["n"]) == (40, 20, 160)
    assert row["ci"][0] < row["difference"] < row["ci"][1]
    # Pairing narrows it: the unpaired standard error would be larger.
    gap = first.astype(float) - second
    half = 1.96 * gap.std() / np.sqrt(len(gap))
    assert (row["ci"][1] - row["ci"][0]) / 2 == pytest.approx(half, rel=0.15)


def test_the_same_answers_differ_by_nothing() -> None:
    right = np.array([True, False, True])
    assert paired_accuracy(right, right)["ci"] == [0.0, 0.0]
