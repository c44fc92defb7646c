"""scikit-learn takes our probe for one of its own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from synthetic_activations import Planted, planted

from models.errors import InputError
from models.probes.estimator import FeatureProbe


@pytest.fixture(scope="module")
def world() -> Planted:
    return planted(120, strength=2.0)


def test_scikit_learn_clones_and_cross_validates(world: Planted) -> None:
    probe = clone(FeatureProbe("gaussian", seed=3))
    assert probe.get_params() == {"kind": "gaussian", "evidence": None, "seed": 3}
    assert probe.set_params(kind="whitened").kind == "whitened"
    assert is_classifier(probe)
    scores = cross_val_score(probe, world.h, world.labels[:, 0], scoring="roc_auc", cv=3)
    assert scores.min() > 0.85
    with pytest.raises(ValueError, match="no parameter"):
        probe.set_params(depth=3)
    assert issubclass(NotFittedError, AttributeError)  # what reading an unfitted one raises
    with pytest.raises(AttributeError):
        FeatureProbe().predict(world.h)


@pytest.mark.parametrize("kind", ["gaussian", "logistic", "whitened"])
def test_one_feature_or_several(world: Planted, kind: str) -> None:
    one = FeatureProbe(kind).fit(world.h[:60], world.labels[:60, 1])
    several = FeatureProbe(kind).fit(world.h[:60], world.labels[:60], reference=world.h)
    p = one.predict_proba(world.h[60:])
    assert p.shape == (60, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    order = np.argsort(one.decision_function(world.h[60:]))
    assert (np.diff(p[order, 1]) >= 0).all()
    np.testing.assert_array_equal(one.predict(world.h[60:]), p[:, 1] >= one.threshold_)
    assert several.predict_proba(world.h[60:]).shape == (60, 3)
    assert several.coef_.shape == (3, world.h.shape[1]) == (3, several.n_features_in_)


def test_an_unknown_kind_is_named(world: Planted) -> None:
    with pytest.raises(InputError) as refusal:
        FeatureProbe("oracle").fit(world.h, world.labels)
    assert refusal.value.field == "kind"
