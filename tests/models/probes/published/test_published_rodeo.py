"""The closed form of the published rodeo equals its slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from models.probes.published.loop import rodeo_log_density
from models.probes.published.marginal import conditional, draw_marginal, log_mean_exp
from models.probes.published.rodeo import RodeoDensity, SpieRodeo, bandwidth_steps


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 30),
    d=st.integers(1, 4),
    size=st.sampled_from([0.01, 0.3, 2.0, 15.0, 80.0]),
    shift=st.sampled_from([0.0, 1.0, 40.0]),
)
def test_closed_form_equals_the_loop(seed, n, d, size, shift):
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(n, d)) * size
    points = rng.normal(size=(2, d)) * size + shift
    slow = [rodeo_log_density(x, samples) for x in points]
    assert RodeoDensity(samples).log_density(points) == pytest.approx(slow, rel=1e-9)


def test_dead_units_stop_where_the_loop_stops():
    rng = np.random.default_rng(0)
    samples = np.maximum(rng.normal(size=(200, 5)), 0.0)
    samples[:, 2] = 0.0
    points = np.maximum(rng.normal(size=(2, 5)), 0.0)
    points[0, 2] = 0.0
    density = RodeoDensity(samples)
    slow = [rodeo_log_density(x, samples) for x in points]
    assert density.log_density(points) == pytest.approx(slow, rel=1e-12)
    _, logs, stuck = density.parts(points)
    assert stuck.tolist() == [[False, False, True, False, False]] * 2
    assert logs[0, 2] == np.log(bandwidth_steps()[-1])


def test_a_point_without_any_kernel_weight_has_no_density():
    density = RodeoDensity(np.array([[0.0, 1], [1, 0], [0, 0], [1, 1]]))
    assert np.isneginf(density.log_density(np.full((1, 2), 1e5)))[0]


def test_ratio_is_the_mean_over_passes_of_the_ratio_of_densities():
    rng = np.random.default_rng(1)
    own, marginal = rng.normal(size=(6, 5, 3)), rng.normal(size=(40, 3))
    labels = np.array([[1.0, 0.0]] * 3 + [[0.0, 0.0]] * 3)
    model = SpieRodeo().fit(own, labels, marginal)
    test = rng.normal(size=(2, 4, 3))
    rows = own[:3].reshape(-1, 3)
    for x, got in zip(test, model.decision_function(test), strict=True):
        logs = [rodeo_log_density(p, rows) - rodeo_log_density(p, marginal) for p in x]
        assert got[0] == pytest.approx(np.log(np.mean(np.exp(logs))), rel=1e-9)
        assert np.isneginf(got[1])


def test_a_unit_that_is_dead_for_the_feature_does_not_decide():
    """Literally published, such a unit adds 370 nats to every lesion's ratio."""
    rng = np.random.default_rng(2)
    own, marginal = rng.normal(size=(4, 10, 3)), rng.normal(size=(60, 3))
    own[:, :, 1] = 0.0
    model = SpieRodeo().fit(own, np.ones((4, 1)), marginal)
    assert np.abs(model.decision_function(rng.normal(size=(5, 4, 3)))).max() < 50


def test_marginal_draws_are_balanced_and_seeded():
    passes = np.arange(5.0)[:, None, None] + np.zeros((5, 3, 2))
    classes = np.array([0, 0, 0, 0, 2])
    rows = draw_marginal(passes, classes, 50, 7)
    assert rows.shape == (100, 2)
    assert (rows[50:] == 4).all()
    assert set(rows[:50, 0]) <= {0, 1, 2, 3}
    np.testing.assert_array_equal(rows, draw_marginal(passes, classes, 50, 7))
    assert (rows != draw_marginal(passes, classes, 50, 8)).any()


def test_helpers():
    assert log_mean_exp(np.array([[-np.inf, -np.inf], [1000.0, 1000.0]])).tolist() == [
        -np.inf,
        1000.0,
    ]
    assert [len(g) for g in conditional(np.zeros((3, 2, 4)), np.array([[1], [np.nan], [1]]))] == [4]
    with pytest.raises(InputError):
        RodeoDensity(np.zeros((0, 3)))
