"""The published Gaussian ratio is what scipy's densities give, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from models.errors import InputError
from models.probes.published.gaussian import Gaussian, Wang2019Gaussian


def by_rows(own, labels, marginal, test, f):
    """log mean over passes of the density ratio, with scipy."""
    rows = own[labels[:, f] == 1].reshape(-1, own.shape[2])
    top = multivariate_normal(rows.mean(0), np.cov(rows.T))
    base = multivariate_normal(marginal.mean(0), np.cov(marginal.T))
    return [np.log(np.mean(np.exp(top.logpdf(x) - base.logpdf(x)))) for x in test]


def drawn(seed=0, n=12, t=10, d=4, features=3):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, features)) < 0.5).astype(float)
    own = rng.normal(size=(n, t, d)) + labels[:, None, :1]
    return own, labels, rng.normal(size=(80, d)), rng.normal(size=(5, 6, d))


def test_agrees_with_scipy_where_covariances_are_regular():
    own, labels, marginal, test = drawn()
    got = Wang2019Gaussian().fit(own, labels, marginal).decision_function(test)
    for f in range(3):
        assert got[:, f] == pytest.approx(by_rows(own, labels, marginal, test, f), rel=1e-9)


def test_a_dead_unit_is_left_out_with_its_dimension():
    """Pseudo-inverse and pseudo-determinant, as scipy's allow_singular had them in 2018."""
    own, labels, marginal, test = drawn(1)
    dead = [np.concatenate([a, np.zeros((*a.shape[:-1], 1))], axis=-1) for a in (own, test)]
    both = np.concatenate([marginal, np.zeros((len(marginal), 1))], axis=1)
    plain = Wang2019Gaussian().fit(own, labels, marginal).decision_function(test)
    with_dead = Wang2019Gaussian().fit(dead[0], labels, both).decision_function(dead[1])
    np.testing.assert_allclose(with_dead, plain, rtol=1e-8)


def test_one_lesion_and_nobody_are_defined():
    own, labels, marginal, test = drawn(2)
    labels[:, 0], labels[:, 1] = 0, 0
    labels[3, 1] = 1
    one = Wang2019Gaussian().fit(own, labels, marginal)
    scores = one.decision_function(test)
    assert np.isneginf(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1]).all()
    assert (one.predict_proba(test)[:, 0] < 1e-300).all()
    assert Gaussian.of(np.ones((1, 3))).offset == 0.0


def test_unseen_lesions_of_forty_units_are_hundreds_of_nats_away():
    """The known weakness of unshrunk covariances: ten lesions stay ten in 100 passes."""
    rng = np.random.default_rng(3)
    middle = rng.normal(size=(10, 1, 40))
    own = middle + 0.1 * rng.normal(size=(10, 100, 40))
    labels = np.ones((10, 1))
    marginal = rng.normal(size=(2000, 40))
    model = Wang2019Gaussian().fit(own, labels, marginal)
    seen = model.decision_function(own).mean()
    unseen = model.decision_function(rng.normal(size=(20, 10, 40))).mean()
    assert seen > 0
    assert unseen < -200


def test_order_of_lesions_and_chunks_do_not_matter():
    own, labels, marginal, _ = drawn(4)
    test = np.random.default_rng(5).normal(size=(150, 3, 4))
    a = Wang2019Gaussian().fit(own, labels, marginal).decision_function(test)
    b = (
        Wang2019Gaussian()
        .fit(own[::-1], labels[::-1], marginal[::-1])
        .decision_function(test[::-1])
    )
    np.testing.assert_allclose(a, b[::-1], rtol=1e-9)


def test_refuses_what_does_not_fit():
    own, labels, marginal, _ = drawn()
    with pytest.raises(InputError):
        Wang2019Gaussian().fit(own, labels[:-1], marginal)
    with pytest.raises(InputError):
        Wang2019Gaussian().fit(own, labels, marginal[:0])
