"""What features say of a class: learned rates, evidence from any source, degenerate cohorts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.consistency.features import IMAGINED, FeatureModel
from models.errors import InputError

CLASSES, FEATURES = ("a", "b", "c"), ("f", "g", "h", "i")


def _cohort(n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rates = np.array([[0.9, 0.1, 0.5, 0.1], [0.1, 0.9, 0.5, 0.1], [0.1, 0.1, 0.5, 0.9]])
    classes = np.arange(n) % 3
    return (rng.random((n, 4)) < rates[classes]).astype(float), classes


def test_rates_are_shrunk_towards_all_classes() -> None:
    labels = np.array([[1.0], [1.0], [0.0], [np.nan]])
    model = FeatureModel.fit(labels, np.array([0, 0, 1, 1]), ("a", "b", "none"), ("f",))
    base = 3 / 5
    assert model.base[0] == pytest.approx(base)
    assert model.given[:, 0] == pytest.approx(
        [(2 + IMAGINED * base) / (2 + IMAGINED), IMAGINED * base / (1 + IMAGINED), base]
    )


def test_posterior_is_bayes_rule_for_sure_statements() -> None:
    model = FeatureModel.fit(*_cohort(), CLASSES, FEATURES)
    y = np.array([1.0, 0.0, np.nan, 0.0])
    g, e = model.given.astype(float), 0.1
    by_hand = np.ones(3)
    for f in (0, 1, 3):
        present = g[:, f] * (1 - e if y[f] else e)
        absent = (1 - g[:, f]) * (e if y[f] else 1 - e)
        by_hand *= present + absent
    found = model.posterior(model.from_statuses(y, error=e))
    np.testing.assert_allclose(found, by_hand / by_hand.sum(), rtol=1e-9)


def test_the_source_of_features_does_not_matter_beyond_its_sureness() -> None:
    model = FeatureModel.fit(*_cohort(), CLASSES, FEATURES)
    y = np.array([1.0, 0.0, 1.0, 0.0])
    base = model.base.astype(float)
    # The probe whose probability is what a reader with 10 % errors leaves of the base rate.
    p = np.where(y == 1, base * 0.9, base * 0.1)
    p = p / (p + np.where(y == 1, (1 - base) * 0.1, (1 - base) * 0.9))
    np.testing.assert_allclose(
        model.from_probes(p), model.from_statuses(y, error=0.1), rtol=1e-6, atol=1e-9
    )


def test_what_is_not_known_says_nothing() -> None:
    model = FeatureModel.fit(*_cohort(), CLASSES, FEATURES)
    silent = np.full(4, np.nan)
    for evidence in (model.from_statuses(silent), model.from_probes(silent)):
        np.testing.assert_allclose(model.posterior(evidence), 1 / 3)
    np.testing.assert_allclose(model.posterior(model.from_probes(model.base)), 1 / 3, atol=1e-6)


@given(st.permutations(range(30)), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_order_of_lesions_does_not_matter(order: list[int], seed: int) -> None:
    labels, classes = _cohort(30, seed)
    first = FeatureModel.fit(labels, classes, CLASSES, FEATURES)
    second = FeatureModel.fit(labels[order], classes[order], CLASSES, FEATURES)
    np.testing.assert_array_equal(first.given, second.given)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_more_of_a_feature_never_speaks_against_its_class(p: list[float], f: int) -> None:
    model = FeatureModel.fit(*_cohort(), CLASSES, FEATURES)
    more = np.array(p)
    more[f] = 1.0
    typical = int(model.given[:, f].argmax())
    before, after = (model.posterior(model.from_probes(np.array(v))) for v in (p, more))
    assert after[typical] >= before[typical] - 1e-12


def test_missing_and_contradicting_features_are_named() -> None:
    model = FeatureModel.fit(*_cohort(), CLASSES, FEATURES)
    told = np.array([0.0, 1.0, np.nan, 0.0])
    evidence = model.from_statuses(told, error=0.05)
    assert model.expected_missing(told, 0) == ["f"]
    against = model.speaks_for(evidence, 0)
    assert list(against)[:2] == ["g", "f"] or list(against)[:2] == ["f", "g"]
    assert against["g"][0] == "b"
    assert against["g"][1] > 1
    assert model.speaks_for(evidence, 1) == {}


def test_nobody_labelled_anything() -> None:
    model = FeatureModel.fit(np.zeros((0, 4)), np.zeros(0), CLASSES, FEATURES)
    np.testing.assert_allclose(model.posterior(model.from_statuses(np.ones(4))), 1 / 3)


def test_parts_come_back_and_bad_ones_do_not() -> None:
    model = FeatureModel.fit(*_cohort(), CLASSES, FEATURES)
    tensors, meta = model.to_parts()
    back = FeatureModel.from_parts(tensors, meta)
    np.testing.assert_array_equal(back.given, model.given)
    with pytest.raises(ValueError, match="outside"):
        FeatureModel.from_parts({**tensors, "base": np.ones(4, np.float32)}, meta)
    with pytest.raises(ValueError, match="shapes"):
        FeatureModel.from_parts({**tensors, "base": tensors["base"][:2]}, meta)


def test_wrong_input_is_refused() -> None:
    labels, classes = _cohort()
    with pytest.raises(InputError, match="labels do not fit"):
        FeatureModel.fit(labels, classes[:3], CLASSES, FEATURES)
    with pytest.raises(InputError, match="statuses"):
        FeatureModel.fit(labels, classes, CLASSES, FEATURES).from_statuses(np.full(4, 0.5))


def test_a_vocabulary_without_features_says_nothing() -> None:
    model = FeatureModel.fit(np.zeros((5, 0)), np.zeros(5), CLASSES, ())
    np.testing.assert_allclose(model.posterior(model.from_probes(np.zeros(0))), 1 / 3)
    assert model.expected_missing(np.zeros(0), 0) == []
    assert model.speaks_for(np.zeros(0), 0) == {}
    assert FeatureModel.from_parts(*model.to_parts()).features == ()
