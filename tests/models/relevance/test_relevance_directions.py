"""Directions learned from pairs: right on unseen lesions, defined in every degenerate case."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import InputError
from models.relevance.directions import Directions
from tests.models.relevance.relevance_pairs import FEATURES, World


def test_displacement_of_unseen_lesions_is_nearer_the_truth_than_the_mean() -> None:
    world = World()
    directions = world.fit(noise=0.05)
    new = world.lesions(200, stream=5)
    found = directions.displacement(new)
    for f in range(3):
        true = world.move(new, np.full(200, f))
        error = np.linalg.norm(found[:, f] - true)
        assert error < 0.5 * np.linalg.norm(directions.moves[f] - true)
        cosine = directions.moves[f] @ world.directions[f]
        cosine /= np.linalg.norm(directions.moves[f]) * np.linalg.norm(world.directions[f])
        assert cosine > 0.99


def test_interval_covers_unseen_changes_and_is_not_wide_for_nothing() -> None:
    world = World()
    directions = world.fit(n=120, noise=0.2)
    present, absent, feature = world.pairs(900, stream=8, noise=0.2)
    slopes = np.random.default_rng(4).normal(size=(2, 5))
    half = directions.half_width(slopes)
    found = directions.displacement(present)[np.arange(900), feature]
    off = np.abs((present["fc"] - absent["fc"] - found) @ slopes.T)
    inside = (off <= half[feature]).mean(axis=0)
    assert (inside >= 0.93).all()
    assert (half < 6 * 0.2 * np.linalg.norm(slopes, axis=1)).all()


def test_the_order_of_pairs_does_not_matter() -> None:
    world = World()
    present, absent, feature = world.pairs(30)
    mixed = np.random.default_rng(2).permutation(30)
    first = world.fit(30)
    second = Directions.fit(
        FEATURES,
        world.lesions(60),
        {tap: values[mixed] for tap, values in present.items()},
        {"fc": absent["fc"][mixed]},
        feature[mixed],
        origin="rendering",
    )
    for name, values in first.to_parts()[0].items():
        assert values.tobytes() == second.to_parts()[0][name].tobytes(), name


def test_parts_give_equal_answers_back_and_foreign_parts_are_refused() -> None:
    world = World()
    directions = world.fit(40)
    tensors, meta = directions.to_parts()
    again = Directions.from_parts(tensors, meta)
    new = world.lesions(4, stream=3)
    np.testing.assert_array_equal(directions.displacement(new), again.displacement(new))
    assert meta["pairs"] == [14, 13, 13]
    for change in ({"widths": [6, 4]}, {"target": "conv"}, {"features": ["washout"]}):
        with pytest.raises(ValueError, match="directions"):
            Directions.from_parts(tensors, meta | change)


def test_a_feature_without_pairs_moves_nothing_and_has_no_interval() -> None:
    world = World()
    present, absent, feature = world.pairs(60)
    some = feature != 1
    directions = Directions.fit(
        FEATURES,
        world.lesions(60),
        {tap: values[some] for tap, values in present.items()},
        {"fc": absent["fc"][some]},
        feature[some],
        origin="edit",
    )
    assert directions.counts.tolist() == [20, 0, 20]
    assert not directions.displacement(world.lesions(3))[:, 1].any()
    half = directions.half_width(np.ones(5))
    assert np.isnan(half[1])
    assert np.isfinite(half[[0, 2]]).all()


def test_one_pair_two_identical_pairs_and_a_dead_tap() -> None:
    reference = {"conv": np.zeros((2, 3)), "fc": np.array([[1.0, 2.0], [3.0, 1.0]])}
    one = {"conv": np.zeros((1, 3)), "fc": np.array([[2.0, 2.0]])}
    for times in (1, 2):
        present = {tap: np.repeat(values, times, axis=0) for tap, values in one.items()}
        absent = {"fc": np.tile([[1.5, 2.0]], (times, 1))}
        directions = Directions.fit(
            ["washout"], reference, present, absent, np.zeros(times), origin="rendering"
        )
        seen = {"conv": np.full((1, 3), 9.0), "fc": np.array([[0.2, 5.0]])}
        np.testing.assert_allclose(directions.displacement(seen), [[[0.5, 0.0]]], atol=1e-6)
        # Rectified: never below zero.
        np.testing.assert_allclose(directions.without(seen["fc"], [0.5, 0.0]), [[0.0, 5.0]])
        assert np.isnan(directions.half_width(np.ones(2))).all()


def test_no_pair_at_all() -> None:
    directions = Directions.fit(
        FEATURES,
        World().lesions(3),
        {"conv": np.zeros((0, 6)), "fc": np.zeros((0, 5))},
        {"fc": np.zeros((0, 5))},
        np.zeros(0, dtype=int),
        origin="edit",
    )
    assert directions.counts.tolist() == [0, 0, 0]
    assert not directions.displacement(World().lesions(2)).any()
    assert Directions.from_parts(*directions.to_parts()).features == FEATURES


def test_a_signed_target_is_not_clipped() -> None:
    reference = {"fc": np.array([[-1.0, 2.0], [3.0, 1.0]])}
    directions = Directions.fit(
        ["washout"],
        reference,
        {"fc": np.ones((1, 2))},
        {"fc": np.zeros((1, 2))},
        [0],
        origin="edit",
    )
    np.testing.assert_allclose(directions.without(np.array([0.5, 0.5]), np.ones(2)), [-0.5, -0.5])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"origin": "guess"}, "origin"),
        ({"feature": [0, 3]}, "feature"),
        ({"absent": {"fc": np.zeros((1, 2))}}, "absent"),
        ({"absent": {"fc": np.full((2, 2), np.nan)}}, "absent"),
        ({"reference": {"fc": np.zeros((0, 2))}}, "reference"),
    ],
)
def test_refusals(change: dict, field: str) -> None:
    given = {
        "reference": {"fc": np.ones((3, 2))},
        "present": {"fc": np.ones((2, 2))},
        "absent": {"fc": np.zeros((2, 2))},
        "feature": [0, 1],
        "origin": "rendering",
    } | change
    with pytest.raises(InputError) as refusal:
        Directions.fit(FEATURES, **given)
    assert refusal.value.field == field
