"""The sound kernel density ratio: sparse, bounded, defined for every odd case."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import InputError
from models.evaluation.ranking import auroc
from models.probes.kde import FLOOR, START, SparseKDE


def cohort(seed=0, n=120, d=30, reference=300):
    """A feature that moves two units, and one that is noise."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 2)) < 0.3).astype(float)
    h = rng.normal(size=(n, d))
    h[:, :2] += 3.0 * labels[:, :1]
    base = rng.normal(size=(reference, d))
    base[: reference // 3, :2] += 3.0
    return h, labels, base


def test_sees_what_is_there_and_nothing_else():
    h, labels, base = cohort()
    test, truth, _ = cohort(1, n=400)
    model = SparseKDE().fit(h, labels, base)
    p = model.predict_proba(test)
    assert auroc(p[:, 0], truth[:, 0]) > 0.85
    assert 0.4 < auroc(p[:, 1], truth[:, 1]) < 0.6


def test_a_structured_axis_gets_a_narrower_bandwidth_than_noise():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(2000, 4))
    z[:, 0] = np.where(rng.random(2000) < 0.5, -3.0, 3.0) + 0.1 * rng.normal(size=2000)
    model = SparseKDE().fit(z[:10], np.ones((10, 1)), z)
    x = np.zeros(model.axes_)
    x[0] = model._seen(z[:1])[0, 0]  # on one of the two modes
    width = model.bandwidths(x)
    assert width[0] < 0.5 * width[1:].min()
    assert width.max() <= START
    assert width.min() > 0.5 * FLOOR


def test_order_passes_units_and_copies():
    h, labels, base = cohort(3)
    test = cohort(4, n=20)[0]
    plain = SparseKDE().fit(h, labels, base).decision_function(test)
    back = SparseKDE().fit(h[::-1], labels[::-1], base[::-1]).decision_function(test)
    np.testing.assert_allclose(plain, back, rtol=1e-6, atol=1e-9)
    passes = np.repeat(test[:, None], 3, axis=1)
    np.testing.assert_allclose(
        SparseKDE().fit(h, labels, base).decision_function(passes), plain, atol=1e-12
    )
    dead = [np.concatenate([a, np.zeros((len(a), 2))], axis=1) for a in (h, base, test)]
    with_dead = SparseKDE().fit(dead[0], labels, dead[1]).decision_function(dead[2])
    np.testing.assert_allclose(with_dead, plain, rtol=1e-6, atol=1e-9)


def test_far_away_and_tiny_activations_stay_finite():
    h, labels, base = cohort(5)
    model = SparseKDE().fit(h, labels, base)
    assert np.isfinite(model.decision_function(np.full((1, 30), 1e6))).all()
    small = SparseKDE().fit(1e-9 * h, labels, 1e-9 * base)
    np.testing.assert_allclose(
        small.decision_function(1e-9 * h[:5]), model.decision_function(h[:5]), rtol=1e-6
    )


def test_degenerate_labels_are_defined():
    h, _, base = cohort(6)
    none, every, unknown = np.zeros(len(h)), np.ones(len(h)), np.full(len(h), np.nan)
    model = SparseKDE().fit(h, np.stack([none, every, unknown], axis=1), base)
    scores, p = model.decision_function(h[:4]), model.predict_proba(h[:4])
    assert (scores[:, [0, 2]] == 0).all()
    assert np.isfinite(scores).all()
    assert (p[:, 0] < 0.02).all()
    assert (p[:, 2] == 0.5).all()
    one = SparseKDE().fit(h[:1], np.ones((1, 1)), base)
    assert np.isfinite(one.decision_function(h[:4])).all()
    same = SparseKDE().fit(np.ones((3, 5)), np.array([[1.0], [0.0], [1.0]]))
    assert same.decision_function(np.ones((1, 5))) == pytest.approx(0.0, abs=1e-9)


def test_refuses_shapes_that_do_not_fit():
    h, labels, base = cohort()
    with pytest.raises(InputError):
        SparseKDE().fit(h, labels[:-1], base)
    with pytest.raises(InputError):
        SparseKDE().fit(h, labels, base[:, :-1])
