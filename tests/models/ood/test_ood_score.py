"""What leaves the training lesions' subspace, or mixes their classes up, scores high."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from models.errors import InputError
from models.evaluation.ranking import auroc
from models.ood import OutOfDistributionScore, describe, readout
from models.ood.image import length

UNITS, FACTORS, K = 60, 8, 12
WORLD = np.random.default_rng(0)
MIXING = WORLD.normal(size=(FACTORS, UNITS))
CENTRES = 2 * WORLD.normal(size=(3, FACTORS))


def activations(n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Rectified activations of three classes; the last five units are silent."""
    rng = np.random.default_rng([2, seed])
    which = rng.integers(0, 3, n)
    h = (CENTRES[which] + rng.normal(size=(n, FACTORS))) @ MIXING + rng.normal(size=(n, UNITS)) / 2
    h[:, -5:] = 0
    return np.maximum(h, 0).astype(np.float32), [f"class-{c}" for c in which]


def images(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng([3, seed]).normal(size=(n, 3, K, K, K)).astype(np.float32)


def read(h: np.ndarray) -> np.ndarray:
    """As a score reads one tap without the image."""
    return readout({"fc": h}, images(0, 0), ["fc"], with_image=False)


def lesions(n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    h, classes = activations(n, seed)
    return read(h), classes


@pytest.fixture(scope="module")
def score() -> OutOfDistributionScore:
    reference, classes = lesions(200, 0)
    return OutOfDistributionScore.fit(["fc"], reference, lesions(100, 1)[0], 0.99, classes)


def test_fresh_lesions_are_inside(score: OutOfDistributionScore) -> None:
    fresh = score.scores(lesions(500, 2)[0])
    assert (fresh > score.threshold).mean() < 0.06
    assert 0.5 < np.median(fresh) < 2


@pytest.mark.parametrize("kind", ["noise", "copies", "silent unit fires", "saturated", "silence"])
def test_strange_activations_are_outside(score: OutOfDistributionScore, kind: str) -> None:
    rng = np.random.default_rng(3)
    h, _ = activations(40, 4)
    if kind == "noise":
        h = np.abs(rng.normal(size=h.shape) * h.std(axis=0) + h.mean(axis=0))
    elif kind == "copies":
        h = np.repeat(h.mean(axis=1, keepdims=True), UNITS, axis=1)
    elif kind == "silent unit fires":
        h[:, -1] = 10 * h.max()
    elif kind == "saturated":
        h = 5 * h
    else:
        h = 0 * h
    fresh, strange = score.scores(lesions(200, 2)[0]), score.scores(read(h))
    assert auroc(np.r_[fresh, strange], np.r_[np.zeros(200), np.ones(40)]) > 0.95
    assert (strange > score.threshold).mean() >= 0.95


def test_a_class_of_its_own_is_outside_though_it_mixes_known_factors(
    score: OutOfDistributionScore,
) -> None:
    rng = np.random.default_rng(6)
    far = CENTRES.mean(axis=0) + 6 * np.sign(CENTRES).sum(axis=0)
    h = (far + rng.normal(size=(40, FACTORS))) @ MIXING + rng.normal(size=(40, UNITS)) / 2
    h[:, -5:] = 0
    strange = score.scores(read(np.maximum(h, 0)))
    assert (strange > score.threshold).mean() > 0.95


def test_the_score_is_the_distance_to_the_fifth_nearest_lesion(
    score: OutOfDistributionScore,
) -> None:
    h = lesions(1, 8)[0][0]
    z = score.whitening.astype(float) @ ((h - score.mean) / score.scale.astype(float))
    gaps = np.sqrt(((score.references - z) ** 2).mean(axis=1))
    assert score.score(h) == pytest.approx(sorted(gaps)[4], rel=1e-9)


def test_the_threshold_is_the_quantile_on_validation() -> None:
    reference, classes = lesions(200, 0)
    validation, _ = lesions(100, 1)
    loose = OutOfDistributionScore.fit(["fc"], reference, validation, 0.5, classes)
    assert (loose.scores(validation) > loose.threshold).mean() == pytest.approx(0.5, abs=0.01)


def test_storage_gives_equal_scores(score: OutOfDistributionScore) -> None:
    tensors, meta = score.to_parts()
    back = OutOfDistributionScore.from_parts(load(save(tensors)), json.loads(json.dumps(meta)))
    h, _ = lesions(20, 5)
    assert [back.score(row) for row in h] == [score.score(row) for row in h]
    assert (back.threshold, back.taps, back.method) == (score.threshold, ("fc",), score.method)
    with pytest.raises(ValueError, match="disagree"):
        OutOfDistributionScore.from_parts({**tensors, "scale": tensors["scale"][1:]}, meta)
    with pytest.raises(ValueError, match="disagree"):
        OutOfDistributionScore.from_parts(tensors, {**meta, "method": "another"})


def test_the_score_of_schema_1_is_read_as_it_was() -> None:
    """Its formula: min over classes of |W ((h - mean) / scale) - centre| / sqrt(D)."""
    rng = np.random.default_rng(11)
    d = 7
    tensors = {
        "mean": rng.normal(size=d).astype(np.float32),
        "scale": rng.uniform(0.5, 2, d).astype(np.float32),
        "whitening": rng.normal(size=(d, d)).astype(np.float32),
        "centres": rng.normal(size=(3, d)).astype(np.float32),
    }
    meta = {"method": "mahalanobis", "threshold": 1.5, "quantile": 0.99}
    old = OutOfDistributionScore.from_parts(tensors, meta, ["conv1", "fc"])
    assert (old.taps, old.method) == (("conv1", "fc"), "mahalanobis")
    outputs = {"conv1": rng.normal(size=(1, 4)), "fc": rng.normal(size=(1, 3))}
    h = old.read(outputs, images(1, 0))[0]
    np.testing.assert_allclose(h, np.r_[outputs["conv1"][0], outputs["fc"][0]])
    z = tensors["whitening"].astype(float) @ ((h - tensors["mean"]) / tensors["scale"])
    expected = np.sqrt(((tensors["centres"] - z) ** 2).mean(axis=1).min())
    assert old.score(h) == pytest.approx(expected, rel=1e-6)


def test_a_score_does_not_depend_on_its_neighbours(score: OutOfDistributionScore) -> None:
    h, _ = lesions(20, 6)
    together = score.scores(h)
    assert [score.score(row) for row in h] == together.tolist()
    assert score.scores(h[7:9]).tolist() == together[7:9].tolist()


def test_lesions_fewer_than_units_and_no_classes() -> None:
    reference, _ = lesions(12, 7)
    score = OutOfDistributionScore.fit(["fc"], reference, lesions(30, 8)[0], 0.99)
    assert np.isfinite(score.threshold)
    assert score.score(np.full(UNITS, 50.0)) > score.threshold


def test_readout_joins_taps_and_image_in_order() -> None:
    x = images(2, 1)
    given = {"a": np.array([[4.0], [9.0]]), "b": np.array([[-1.0, 0.0], [16.0, 25.0]])}
    h = readout(given, x, ["b", "a"])
    assert h.shape == (2, 3 + length(3))
    np.testing.assert_allclose(h[:, :3], [[-1, 0, 2], [4, 5, 3]])
    np.testing.assert_allclose(h[1, 3:], describe(x[1]))
    with_image = OutOfDistributionScore.fit(["b", "a"], h, h)
    assert with_image.expected_length({"a": 1, "b": 2, "c": 9}, 3) == with_image.length
    assert with_image.expected_length({"a": 1}, 3) == -1


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
        OutOfDistributionScore.fit(["fc"], reference, validation)
    assert refusal.value.field == field
