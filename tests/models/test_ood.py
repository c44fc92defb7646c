"""What leaves the training lesions' subspace, or mixes their classes up, scores high."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from models.errors import InputError
from models.evaluation.ranking import auroc
from models.ood import OutOfDistributionScore

UNITS, FACTORS = 60, 8
WORLD = np.random.default_rng(0)
MIXING = WORLD.normal(size=(FACTORS, UNITS))
CENTRES = 2 * WORLD.normal(size=(3, FACTORS))


def lesions(n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Rectified activations of three classes; the last five units are silent."""
    rng = np.random.default_rng([2, seed])
    which = rng.integers(0, 3, n)
    h = (CENTRES[which] + rng.normal(size=(n, FACTORS))) @ MIXING + rng.normal(size=(n, UNITS)) / 2
    h[:, -5:] = 0
    return np.maximum(h, 0).astype(np.float32), [f"class-{c}" for c in which]


@pytest.fixture(scope="module")
def score() -> OutOfDistributionScore:
    reference, classes = lesions(200, 0)
    return OutOfDistributionScore.fit(reference, lesions(100, 1)[0], 0.99, classes)


def test_fresh_lesions_are_inside(score: OutOfDistributionScore) -> None:
    fresh = score.scores(lesions(500, 2)[0])
    assert (fresh > score.threshold).mean() < 0.06
    assert 0.5 < np.median(fresh) < 2


@pytest.mark.parametrize("kind", ["noise", "copies", "silent unit fires", "saturated"])
def test_strange_activations_are_outside(score: OutOfDistributionScore, kind: str) -> None:
    rng = np.random.default_rng(3)
    h, _ = lesions(40, 4)
    if kind == "noise":
        h = np.abs(rng.normal(size=h.shape) * h.std(axis=0) + h.mean(axis=0))
    elif kind == "copies":
        h = np.repeat(h.mean(axis=1, keepdims=True), UNITS, axis=1)
    elif kind == "silent unit fires":
        h[:, -1] = 10 * h.max()
    else:
        h = 5 * h
    fresh, strange = score.scores(lesions(200, 2)[0]), score.scores(h)
    assert auroc(np.r_[fresh, strange], np.r_[np.zeros(200), np.ones(40)]) > 0.95
    assert (strange > score.threshold).mean() >= 0.95


@pytest.mark.xfail(strict=True, reason="silence lies near the mean of rectified activations")
def test_silence_is_outside(score: OutOfDistributionScore) -> None:
    """What the score cannot do: it fails loudly here once it can."""
    assert score.flagged(np.zeros(UNITS))


def test_the_threshold_is_the_quantile_on_validation() -> None:
    reference, classes = lesions(200, 0)
    validation, _ = lesions(100, 1)
    loose = OutOfDistributionScore.fit(reference, validation, 0.5, classes)
    assert (loose.scores(validation) > loose.threshold).mean() == pytest.approx(0.5, abs=0.01)


def test_storage_gives_equal_scores(score: OutOfDistributionScore) -> None:
    tensors, meta = score.to_parts()
    back = OutOfDistributionScore.from_parts(load(save(tensors)), json.loads(json.dumps(meta)))
    h, _ = lesions(20, 5)
    assert [back.score(row) for row in h] == [score.score(row) for row in h]
    assert back.threshold == score.threshold
    with pytest.raises(ValueError, match="disagree"):
        OutOfDistributionScore.from_parts({**tensors, "scale": tensors["scale"][1:]}, meta)


def test_a_score_does_not_depend_on_its_neighbours(score: OutOfDistributionScore) -> None:
    h, _ = lesions(20, 6)
    together = score.scores(h)
    assert [score.score(row) for row in h] == together.tolist()
    assert score.scores(h[7:9]).tolist() == together[7:9].tolist()


def test_lesions_fewer_than_units_and_no_classes() -> None:
    reference, _ = lesions(12, 7)
    score = OutOfDistributionScore.fit(reference, lesions(30, 8)[0], 0.99)
    assert np.isfinite(score.threshold)
    assert score.score(np.full(UNITS, 50.0)) > score.threshold


@pytest.mark.parametrize(
    ("reference", "validation", "field"),
    [
        (np.zeros((1, 4)), np.zeros((3, 4)), "reference"),
        (np.zeros((5, 4)), np.zeros((0, 4)), "validation"),
        (np.zeros((5, 4)), np.zeros((3, 5)), "validation"),
    ],
)
def test_bad_arrays_are_named(reference: np.ndarray, validation: np.ndarray, field: str) -> None:
    with pytest.raises(InputError) as refusal:
        OutOfDistributionScore.fit(reference, validation)
    assert refusal.value.field == field
