"""Readers' agreement, against scikit-learn, a published example and counting pairs by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import cohen_kappa_score

from models.errors import InputError
from models.evaluation.agreement import (
    MISSING,
    agreement,
    category_counts,
    cohen_kappa,
    fleiss_kappa,
    percent_agreement,
)

# The usual worked example: ten subjects, fourteen raters, five categories; P = 0.378, Pe = 0.213.
WORKED = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)
ratings = hnp.arrays(
    np.int64,
    st.tuples(st.integers(1, 12), st.integers(2, 4)),
    elements=st.integers(MISSING, 2),
)


def test_fleiss_gives_the_published_example() -> None:
    assert percent_agreement(WORKED) == pytest.approx(0.378, abs=5e-4)
    assert fleiss_kappa(WORKED) == pytest.approx(0.210, abs=5e-4)


@settings(max_examples=100, deadline=None)
@given(ratings)
def test_cohen_is_scikit_learn_s(matrix: np.ndarray) -> None:
    a, b = matrix[:, 0], matrix[:, 1]
    both = (a != MISSING) & (b != MISSING)
    ours = cohen_kappa(a, b)
    if not both.any() or len(set(a[both]) | set(b[both])) == 1:
        assert np.isnan(ours)
        return
    assert ours == pytest.approx(cohen_kappa_score(a[both], b[both]), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(ratings)
def test_percent_agreement_counts_pairs_of_readings(matrix: np.ndarray) -> None:
    shares = []
    for row in matrix:
        pairs = list(combinations(row[row != MISSING], 2))
        if pairs:
            shares.append(np.mean([x == y for x, y in pairs]))
    ours = percent_agreement(category_counts(matrix, 3))
    assert (np.isnan(ours) and not shares) or ours == pytest.approx(np.mean(shares))


@settings(max_examples=100, deadline=None)
@given(ratings)
def test_no_order_and_no_name_matters(matrix: np.ndarray) -> None:
    counts = category_counts(matrix, 3)
    rng = np.random.default_rng(len(matrix))
    shuffled = matrix[rng.permutation(len(matrix))][:, rng.permutation(matrix.shape[1])]
    renamed = np.where(shuffled == MISSING, MISSING, 2 - shuffled)
    before, after = fleiss_kappa(counts), fleiss_kappa(category_counts(renamed, 3))
    assert before == pytest.approx(after, nan_ok=True)
    assert np.isnan(before) or -1 - 1e-9 <= before <= 1 + 1e-9


def test_full_agreement_is_one_and_a_single_category_is_undefined() -> None:
    codes = np.array([[0, 0], [1, 1], [1, 1]])
    whole = agreement(codes, ["A", "B"], draws=50)
    assert whole.fleiss.value == pytest.approx(1)
    assert whole.pairs[0].kappa.value == pytest.approx(1)
    flat = agreement(np.ones((5, 2), int), ["A", "B"], draws=50)
    assert (flat.percent.value, flat.fleiss.value, flat.fleiss.ci) == (1, None, None)
    assert flat.prevalence == (0, 1)


def test_random_readers_agree_by_chance_and_the_interval_holds_it() -> None:
    codes = np.random.default_rng(0).integers(0, 2, (400, 3))
    found = agreement(codes, ["A", "B", "C"], draws=300)
    for figure in (found.fleiss, *(pair.kappa for pair in found.pairs)):
        assert figure.ci is not None
        assert figure.value is not None
        assert figure.ci[0] < figure.value < figure.ci[1]
        assert abs(figure.value) < 0.15
        assert figure.n == 400


def test_the_interval_narrows_with_lesions_and_repeats_with_the_seed() -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(0, 2, 400)
    codes = np.stack([first, np.where(rng.random(400) < 0.2, 1 - first, first)], axis=1)

    def width(n: int) -> float:
        ci = agreement(codes[:n], ["A", "B"], draws=200).pairs[0].kappa.ci
        assert ci is not None
        return ci[1] - ci[0]

    assert width(400) < 0.6 * width(40)
    assert agreement(codes, ["A", "B"], draws=50) == agreement(codes, ["A", "B"], draws=50)


def test_what_one_reader_left_out_does_not_count() -> None:
    codes = np.array([[0, 0, -1], [1, -1, -1], [1, 1, 0], [-1, -1, -1]])
    found = agreement(codes, ["A", "B", "C"], draws=20)
    assert (found.lesions, found.shared) == (3, 2)
    assert {p.readers: p.kappa.n for p in found.pairs} == {
        ("A", "B"): 2, ("A", "C"): 1, ("B", "C"): 1,
    }  # fmt: skip
    assert found.percent.value == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize("codes", [np.zeros((3, 3), int), np.full((3, 2), 2), np.zeros(3, int)])
def test_wrong_ratings_are_refused(codes: np.ndarray) -> None:
    with pytest.raises(InputError):
        agreement(codes, ["A", "B"])
