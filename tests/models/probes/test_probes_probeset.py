"""The set as a whole: finds what is planted, ignores what does not matter, survives storage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from scipy.stats import binom
from synthetic_activations import Planted, planted

from models.errors import InputError
from models.evaluation.ranking import auroc
from models.probes.calibration import FALSE_FINDS, NEVER
from models.probes.probeset import HELD_OUT, PROBES, ProbeSet

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def world() -> Planted:
    return planted(300, strength=2.0)


def fit(world: Planted, n: int = 30, **options: object) -> ProbeSet:
    return ProbeSet.fit(world.h[:n], world.labels[:n], world.h[:200], NAMES, 0, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def probes(world: Planted) -> ProbeSet:
    return fit(world)


def test_planted_features_are_detected_on_new_lesions(world: Planted) -> None:
    probes = fit(world, 120)
    h, y = world.h[200:], world.labels[200:]
    for kind, scores in probes.scores(h).items():
        each = [auroc(scores[:, f], y[:, f]) for f in range(3)]
        # The Gaussian reads the present lesions alone, and needs more of them for a faint feature.
        assert min(each) > (0.85 if kind == "logistic" else 0.8), kind
        assert np.mean(each) > 0.85, kind
    found = probes.found(h)
    right = (found & (y == 1)).sum()
    assert right / found.sum() > 0.7
    assert right / y.sum() > 0.6
    measured = probes.measured(h, y, "test", draws=100)
    assert [q.split for q in measured.quality] == ["test"] * 3
    assert all(q.auroc > 0.8 and q.ci[0] <= q.auroc <= q.ci[1] for q in measured.quality)  # type: ignore[operator,index]
    assert all(q.n_present + q.n_absent == 100 for q in measured.quality)
    assert [q.split for q in probes.quality] == [HELD_OUT] * 3


def test_a_planted_feature_is_ranked_first() -> None:
    """Of lesions that show one of three features, the one that they show has the highest
    probability."""
    world = planted(700, strength=2.0)
    probes = ProbeSet.fit(world.h[:200], world.labels[:200], world.h[:200], NAMES, 0)
    alone = np.flatnonzero(world.labels.sum(axis=1) == 1)
    alone = alone[alone >= 200]
    first = probes.probabilities(world.h[alone]).argmax(axis=1)
    assert len(alone) > 100
    assert (first == world.labels[alone].argmax(axis=1)).mean() > 0.9


def test_a_feature_that_cannot_be_seen_keeps_to_its_budget() -> None:
    """Shuffled labels, many times: AUROC around one half, and the share of features that may ever
    be found is within FALSE_FINDS, by the binomial's upper 99 % bound."""
    able, aurocs, called = [], [], []
    for seed in range(12):
        world = planted(200, features=6, seed=seed)
        rng = np.random.default_rng(seed)
        labels = world.labels[:60][rng.permutation(60)]
        names = [str(f) for f in range(6)]
        probes = ProbeSet.fit(world.h[:60], labels, world.h[:100], names, 0, only=["whitened"])
        p = probes.probabilities(world.h[100:])
        able.append(probes.thresholds < NEVER)
        called.append(probes.found(world.h[100:]))
        aurocs.append([auroc(p[:, f], world.labels[100:, f]) for f in range(6)])
    n = np.size(able)
    assert np.sum(able) <= binom.ppf(0.99, n, FALSE_FINDS)
    assert np.mean(called) <= FALSE_FINDS
    middle, half = np.mean(aurocs), 2.6 * np.std(aurocs) / np.sqrt(n)
    assert middle - half < 0.5 < middle + half


@settings(max_examples=4, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_lesions_does_not_matter(random: object) -> None:
    world = planted(80)
    lesions, rest = list(range(24)), list(range(80))
    random.shuffle(lesions)  # type: ignore[attr-defined]
    random.shuffle(rest)  # type: ignore[attr-defined]
    one = ProbeSet.fit(world.h[:24], world.labels[:24], world.h, NAMES, 0)
    two = ProbeSet.fit(world.h[lesions], world.labels[lesions], world.h[rest], NAMES, 0)
    assert two.kinds == one.kinds
    assert two.quality == one.quality
    np.testing.assert_array_equal(two.probabilities(world.h), one.probabilities(world.h))
    np.testing.assert_array_equal(two.thresholds, one.thresholds)


@settings(max_examples=4, deadline=None)
@given(value=st.floats(-1e3, 1e3, width=32), where=st.integers(0, 40))
def test_a_constant_unit_changes_nothing(value: float, where: int) -> None:
    world = planted(80)
    wider = np.insert(world.h, where, np.float32(value), axis=1)
    one = ProbeSet.fit(world.h[:24], world.labels[:24], world.h, NAMES, 0)
    two = ProbeSet.fit(wider[:24], world.labels[:24], wider, NAMES, 0)
    assert two.kinds == one.kinds
    np.testing.assert_allclose(two.probabilities(wider), one.probabilities(world.h), atol=1e-5)
    # What a dead unit does later does not matter either: nothing was learned of it.
    wider[:, where] += 5
    np.testing.assert_allclose(two.probabilities(wider), one.probabilities(world.h), atol=1e-5)
    assert two.direction(0)[where] == 0


def test_a_lesion_given_twice_counts_once(world: Planted, probes: ProbeSet) -> None:
    rows = [*range(30), 3, 3, 17]
    twice = ProbeSet.fit(world.h[rows], world.labels[rows], world.h[:200], NAMES, 0)
    np.testing.assert_array_equal(twice.probabilities(world.h), probes.probabilities(world.h))


def test_labels_that_contradict_each_other_are_dropped(world: Planted) -> None:
    h = np.concatenate([world.h[:30], world.h[3:4]])
    clash = np.concatenate([world.labels[:30], 1 - world.labels[3:4]])
    dropped = world.labels[:30].copy()
    dropped[3] = np.nan
    one = ProbeSet.fit(h, clash, world.h[:200], NAMES, 0)
    two = ProbeSet.fit(world.h[:30], dropped, world.h[:200], NAMES, 0)
    np.testing.assert_array_equal(one.probabilities(world.h), two.probabilities(world.h))


def test_storage_gives_equal_numbers_back(world: Planted, probes: ProbeSet) -> None:
    tensors, meta = probes.to_parts()
    assert {t.dtype for t in tensors.values()} == {np.dtype(np.float32)}
    back = ProbeSet.from_parts(load(save(tensors)), json.loads(json.dumps(meta)))
    assert (back.kinds, back.quality, back.features) == (
        probes.kinds,
        probes.quality,
        probes.features,
    )
    np.testing.assert_array_equal(back.probabilities(world.h), probes.probabilities(world.h))
    np.testing.assert_array_equal(back.thresholds, probes.thresholds)
    for kind, scores in probes.scores(world.h[0]).items():
        np.testing.assert_array_equal(back.scores(world.h[0])[kind], scores)
    with pytest.raises((ValueError, KeyError)):
        ProbeSet.from_parts({**tensors, "steps": tensors["steps"][:, 1:]}, meta)
    with pytest.raises((ValueError, KeyError)):
        ProbeSet.from_parts(tensors, {**meta, "kinds": ["oracle"] * 3})


def test_shapes_broadcast(world: Planted, probes: ProbeSet) -> None:
    h = world.h[:12]
    assert set(probes.scores(h[0])) == set(PROBES)
    assert probes.probabilities(h[0]).shape == (3,)
    assert probes.probabilities(h.reshape(3, 4, -1)).shape == (3, 4, 3)
    np.testing.assert_allclose(
        probes.probabilities(h.reshape(3, 4, -1)).reshape(12, 3), probes.probabilities(h)
    )


@pytest.mark.parametrize("kind", list(PROBES))
def test_the_direction_is_the_pattern_of_the_deciding_probe(world: Planted, kind: str) -> None:
    """w'step is the held-out difference, and the step points along what was planted."""
    registry = dict(PROBES)
    try:
        for other in registry:
            if other != kind:
                del PROBES[other]
        probes = fit(world, 120)
    finally:
        PROBES.clear()
        PROBES.update(registry)
    assert probes.kinds == [kind] * 3
    for f in range(3):
        step = probes.direction(f)
        moved = probes.scores(world.h[0] + step)[kind][f] - probes.scores(world.h[0])[kind][f]
        in_sample = probes.scores(world.h[:120])[kind][:, f]
        y = world.labels[:120, f]
        gap = in_sample[y == 1].mean() - in_sample[y == 0].mean()
        assert 0.3 * gap < moved <= gap * 1.0001
        cosine = step @ world.directions[f] / np.linalg.norm(step)
        cosine /= np.linalg.norm(world.directions[f])
        assert cosine > 0.7
        weights = probes.probes[kind].weights[f]
        of_weights = weights @ world.directions[f] / np.linalg.norm(weights)
        assert cosine > of_weights / np.linalg.norm(world.directions[f])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.zeros(20), 1 / 22),
        (np.full(20, np.nan), 0.5),
        (np.ones(20), 21 / 22),
        (np.eye(20)[4], 2 / 22),
        (np.where(np.arange(20) == 4, 1.0, np.nan), 2 / 3),
    ],
    ids=["none present", "not assessed", "all present", "one present", "one labelled"],
)
def test_a_feature_that_cannot_be_learned_has_its_prior_and_is_never_found(
    world: Planted, labels: np.ndarray, expected: float
) -> None:
    y = world.labels[:20].copy()
    y[:, 1] = labels
    probes = ProbeSet.fit(world.h[:20], y, world.h[:200], NAMES, 0)
    p = probes.probabilities(np.concatenate([world.h, 1e6 * world.h]))
    np.testing.assert_allclose(p[:, 1], expected, rtol=1e-6)
    assert not probes.found(1e6 * world.h)[:, 1].any()
    assert np.ptp(p[:, 0]) > 0.2
    assert not probes.direction(1).any()
    assert probes.quality[1].auroc is None


@pytest.mark.parametrize("m", [0, 1, 2])
def test_hardly_any_reference_is_enough_to_answer(world: Planted, m: int) -> None:
    probes = ProbeSet.fit(world.h[:20], world.labels[:20], world.h[:m], NAMES, 0)
    assert np.isfinite(probes.probabilities(world.h)).all()


def test_no_labelled_lesion_at_all() -> None:
    probes = ProbeSet.fit(np.zeros((0, 5)), np.zeros((0, 3)), np.zeros((0, 5)), NAMES, 0)
    np.testing.assert_allclose(probes.probabilities(np.ones((2, 5))), 0.5)
    assert not probes.found(np.ones(5)).any()


def test_validation_decides_when_given(world: Planted) -> None:
    h, y = world.h[200:], world.labels[200:]
    chosen = fit(world, validation=(h, y))
    losses = {}
    for kind, probe in chosen.probes.items():
        s = chosen.scores(h)[kind]
        p = 1 / (1 + np.exp(-(probe.slope * s + probe.intercept)))
        p = np.clip(p, probe.low, probe.high)
        losses[kind] = -np.log(np.where(y == 1, p, 1 - p)).mean()
    assert chosen.kinds == [min(losses, key=lambda kind: losses[kind])] * 3


@pytest.mark.parametrize(
    ("h", "labels", "reference", "field"),
    [
        (np.zeros((4, 5)), np.zeros((4, 2)), np.zeros((3, 5)), "labels"),
        (np.zeros((4, 5)), np.zeros((3, 3)), np.zeros((3, 5)), "labels"),
        (np.zeros((4, 5)), np.zeros((4, 3)), np.zeros((3, 6)), "reference"),
        (np.full((4, 5), np.nan), np.zeros((4, 3)), np.zeros((3, 5)), "h"),
        (np.zeros((4, 5)), np.full((4, 3), 0.5), np.zeros((3, 5)), "labels"),
        (np.zeros((4, 5)), np.full((4, 3), np.inf), np.zeros((3, 5)), "labels"),
    ],
)
def test_bad_arrays_are_named(
    h: np.ndarray, labels: np.ndarray, reference: np.ndarray, field: str
) -> None:
    with pytest.raises(InputError) as refusal:
        ProbeSet.fit(h, labels, reference, NAMES, 0)
    assert refusal.value.field == field


def test_more_labels_leave_less_to_chance(world: Planted) -> None:
    """Beside the spread between lesions, that over draws of labels falls with their number; and it
    is of the size of what really changes when other lesions are labelled."""

    def log_odds(probes: ProbeSet) -> np.ndarray:
        probe = probes.probes["whitened"]
        return probes.scores(world.h[200:])["whitened"] * probe.slope + probe.intercept

    one, more = (fit(world, n, only=["whitened"]) for n in (30, 120))
    spreads = [
        p.label_spread(world.h[200:])[:, 0].mean() / log_odds(p)[:, 0].std() for p in (one, more)
    ]
    assert 0 < spreads[1] < spreads[0]
    others = []
    for start in (30, 60, 90, 120, 150):
        rows = slice(start, start + 30)
        probes = ProbeSet.fit(
            world.h[rows], world.labels[rows], world.h[:200], NAMES, 0, only=["whitened"]
        )
        others.append(log_odds(probes))
    truly = np.std(others, axis=0, ddof=1)[:, 0].mean()
    assert 0.25 < one.label_spread(world.h[200:])[:, 0].mean() / truly < 2
    assert one.label_spread(world.h[0]).shape == (3,)
    without = fit(world, 30, only=["gaussian"])
    assert np.isnan(without.label_spread(world.h[:4])).all()
