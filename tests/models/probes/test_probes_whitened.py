"""The few-shot probe against slow versions of its parts, and where it should do better."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_activations import planted

from models.evaluation.ranking import auroc
from models.probes.linear import MEASURED, TrainingSet
from models.probes.logistic import fit_logistic, newton
from models.probes.whitened import SHARE, fit_whitened, half_whitening, newton_many


def training_set(n: int = 40, m: int = 80, units: int = 30, missing: float = 0.0) -> TrainingSet:
    world = planted(n + m, units=units, seed=3)
    labels = world.labels[:n].copy()
    labels[np.random.default_rng(4).random(labels.shape) < missing] = np.nan
    h = world.h.astype(float)
    return TrainingSet(
        z=h[:n],
        labels=labels,
        reference=h,
        twin=np.arange(n),
        groups=np.where(np.arange(units) < units // 2, 0, MEASURED),
        seed=0,
    )


def test_all_features_at_once_are_each_by_itself() -> None:
    data = training_set(missing=0.2)
    x = np.column_stack([data.z, np.ones(len(data.z))])
    known = np.isfinite(data.labels)
    theta = newton_many(x, np.where(known, data.labels, 0.0), known, 0.7)
    for f in range(data.labels.shape[1]):
        rows = known[:, f]
        alone = newton(x[rows], data.labels[rows, f], 0.7)
        np.testing.assert_allclose(theta[f], alone, atol=1e-6)


def test_each_group_has_its_share_whatever_its_size_or_scale() -> None:
    data = training_set()
    reference = data.reference * np.where(data.groups == MEASURED, 100.0, 0.01)
    x = reference @ half_whitening(reference, data.groups)
    length = (x**2).mean(axis=0)
    assert length[data.groups == 0].sum() == pytest.approx(1.0)
    assert length[data.groups == MEASURED].sum() == pytest.approx(SHARE)


def test_loud_axes_are_turned_down_but_stay_louder() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(4000, 2)) * [3.0, 1.0]
    x = reference @ half_whitening(reference, np.zeros(2, dtype=np.int64))
    loud, quiet = np.sort(x.std(axis=0))[::-1]
    assert loud / quiet == pytest.approx(np.sqrt(3.0), rel=0.05)


def test_a_held_out_score_does_not_know_its_own_label() -> None:
    data = training_set()
    labels = data.labels.copy()
    labels[7, 0] = 1 - labels[7, 0]
    turned = TrainingSet(data.z, labels, data.reference, data.twin, data.groups, data.seed)
    before, after = fit_whitened(data).held_out, fit_whitened(turned).held_out
    assert after[7, 0] == pytest.approx(before[7, 0], rel=1e-4)
    assert not np.allclose(after[:, 0], before[:, 0])


def test_few_labels_and_many_unlabelled_lesions_help() -> None:
    """What it is for: correlated units, few labels, means over several worlds."""
    gains = []
    for seed in range(4):
        world = planted(500, units=80, strength=1.0, seed=seed)
        h = (world.h - world.h[:300].mean(axis=0)) / world.h[:300].std(axis=0)
        data = TrainingSet(
            z=h[:30].astype(float),
            labels=world.labels[:30],
            reference=h[:300].astype(float),
            twin=np.arange(30),
            groups=np.zeros(80, dtype=np.int64),
            seed=0,
        )
        each = []
        for fit in (fit_whitened(data), fit_logistic(data)):
            scores = h[300:] @ fit.weights.T + fit.bias
            each.append(np.mean([auroc(scores[:, f], world.labels[300:, f]) for f in range(3)]))
        gains.append(each[0] - each[1])
    assert np.mean(gains) > 0.01


def test_nothing_to_learn_gives_zero_weights() -> None:
    data = training_set()
    labels = np.column_stack([np.zeros(40), np.full(40, np.nan), data.labels[:, 0]])
    fit = fit_whitened(TrainingSet(data.z, labels, data.reference, data.twin, data.groups, 0))
    assert not fit.weights[:2].any()
    assert np.isnan(fit.held_out[:, :2]).all()
    assert fit.weights[2].any()
