"""Which lesions get labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.probes.labelling import choose_any, choose_labelled, positives_only


def table(seed: int, n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(float)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return labels


@given(seed=st.integers(0, 50), per_feature=st.integers(1, 20))
def test_each_feature_gets_its_lesions_or_all_there_are(seed: int, per_feature: int) -> None:
    labels = table(seed)
    chosen = choose_labelled(labels, per_feature, seed)
    assert (np.diff(chosen) > 0).all()
    there = (labels == 1).sum(axis=0)
    assert ((labels[chosen] == 1).sum(axis=0) >= np.minimum(there, per_feature)).all()
    assert len(chosen) <= 4 * per_feature
    published = positives_only(labels, per_feature, seed)
    assert set(np.unique(published)) <= {0.0, 1.0}
    np.testing.assert_array_equal(published.sum(axis=0), np.minimum(there, per_feature))
    assert (labels[published == 1] == 1).all()


def test_any_lesions_are_drawn_without_looking_at_what_they_show() -> None:
    labels = table(0)
    chosen = choose_any(labels, 25, 3)
    assert len(chosen) == len(set(chosen)) == 25
    flipped = np.where(np.isfinite(labels), 1 - labels, np.nan)
    np.testing.assert_array_equal(choose_any(flipped, 25, 3), chosen)
    assert not np.array_equal(choose_any(labels, 25, 4), chosen)
    labels[7] = np.nan
    assert 7 not in choose_any(labels, 60, 0)
