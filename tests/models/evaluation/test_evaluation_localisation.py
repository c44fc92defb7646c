"""Pointing game and AUPRC against masks, the controls, and means by feature for each draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from models.evaluation.localisation import (
    average_precision,
    centre_prior,
    edge_detector,
    group_means,
    is_focal,
    mean_of_groups,
    pointing,
    read_out,
)
from models.evaluation.resampling import multiplicities


def ball(radius: float, edge: int = 8) -> np.ndarray:
    return centre_prior(edge) > 1 - (radius / (edge / 2)) ** 2


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.integers(2, 50))
def test_auprc_is_scikit_learns_ties_and_all(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, levels, (4, 4, 4)).astype(float)
    mask = rng.random((4, 4, 4)) < 0.3
    mask[0, 0, 0] = True
    expected = average_precision_score(mask.ravel(), score.ravel())
    assert average_precision(score, mask) == pytest.approx(expected)


def test_a_map_that_is_the_mask_is_perfect_and_a_flat_one_is_chance() -> None:
    mask = ball(2)
    assert average_precision(mask.astype(float), mask) == 1
    assert pointing(mask.astype(float), mask) == 1
    assert average_precision(np.ones(mask.shape), mask) == pytest.approx(mask.mean())
    assert pointing(np.ones(mask.shape), mask) == 0


def test_equal_peaks_share_the_hit() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = True
    score = np.zeros((3, 3, 3))
    score[0, 0, 0] = score[2, 2, 2] = 1
    assert pointing(score, mask) == 0.5


def test_an_empty_mask_has_no_figures() -> None:
    assert np.isnan(pointing(np.ones((2, 2, 2)), np.zeros((2, 2, 2), bool)))
    assert np.isnan(average_precision(np.ones((2, 2, 2)), np.zeros((2, 2, 2), bool)))


def test_reading_a_map_keeps_opposite_signs_apart_from_nothing() -> None:
    image = np.zeros((2, 8, 8, 8), np.float32)
    image[0, 4, 4, 4], image[1, 4, 4, 4] = 1, -1
    score = read_out(image)
    assert score[4, 4, 4] == score.max() > 0
    assert score.sum() == pytest.approx(2)
    assert np.array_equal(read_out(image, 0)[4, 4], np.eye(8)[4] * 2)


def test_controls_know_the_middle_and_the_edges() -> None:
    mask = ball(2.5)
    rim = ball(3) & ~ball(2)
    x = np.stack([mask.astype(np.float32)] * 2)
    centre, edges = centre_prior(8), edge_detector(x)
    assert average_precision(centre, mask) == 1
    assert average_precision(edges, rim) > average_precision(centre, rim)
    assert not edge_detector(np.zeros((3, 8, 8, 8), np.float32)).any()


def test_a_rim_is_focal_and_the_whole_lesion_is_not() -> None:
    lesion = ball(3)
    assert is_focal([lesion & ~ball(2.4)], [lesion])
    assert not is_focal([lesion], [lesion])
    assert not is_focal([], [])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_means_of_draws_are_those_of_the_drawn_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, lesion = rng.normal(size=12), rng.integers(0, 5, 12)
    group = np.append(rng.integers(0, 3, 11), 2)
    values[3] = np.nan
    w = multiplicities(5, draws=6, seed=seed)
    found = group_means(values, lesion, group, w)
    for b, row in enumerate(w):
        for g in range(3):
            rows = [i for i in range(12) if group[i] == g and np.isfinite(values[i])]
            drawn = [values[i] for i in rows for _ in range(int(row[lesion[i]]))]
            if drawn:
                assert found[b, g] == pytest.approx(np.mean(drawn))
            else:
                assert np.isnan(found[b, g])
    assert mean_of_groups(found)[0] == pytest.approx(np.nanmean(found[0]))
