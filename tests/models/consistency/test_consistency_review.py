"""Opinions joined into a score: monotone, calibrated, defined at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.consistency.reasons import REASONS, reasons
from models.consistency.review import EXPERTS, FLAGGED, Opinions, ReviewModel, held_out
from models.consistency.strangeness import MOST, Strangeness
from models.errors import InputError
from models.evaluation.ranking import auroc


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z)
    return e / e.sum(axis=-1, keepdims=True)


def _lesions(n: int, seed: int, noise: float = 1.5) -> tuple[Opinions, np.ndarray]:
    """Four experts whose mistakes are independent but for the first and third, which share them."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, n)
    truth = 2.0 * np.eye(3)[classes]
    network = truth + noise * rng.normal(size=(n, 3))
    shares = {
        "network": _softmax(network),
        "image": _softmax(truth + noise * rng.normal(size=(n, 3))),
        "surroundings": _softmax(network + 0.1 * rng.normal(size=(n, 3))),
        "features": _softmax(truth + noise * rng.normal(size=(n, 3))),
    }
    return Opinions(shares, np.exp(rng.normal(-0.5, 0.2, n))), classes


def _model(seed: int = 0, n: int = 400) -> ReviewModel:
    opinions, classes = _lesions(n, seed)
    return ReviewModel.fit({"probes": opinions, "reader": opinions}, classes)


def test_independent_opinions_tell_mistakes_better_than_confidence() -> None:
    model, (opinions, classes) = _model(), _lesions(3000, 1)
    judged = model.judge(opinions)
    wrong = opinions.verdict != classes
    confidence = -opinions.shares["network"].max(axis=1)
    assert auroc(judged.score, wrong) > auroc(confidence, wrong) + 0.05
    assert abs(judged.flagged.mean() - FLAGGED) < 0.06
    # Strangeness adds its prior odds, so the score lies a little above the share of mistakes.
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0)):
        rows = (judged.score >= low) & (judged.score < high)
        assert abs(judged.score[rows].mean() - wrong[rows].mean()) < 0.1


def test_order_of_lesions_does_not_matter() -> None:
    opinions, classes = _lesions(120, 0)
    order = np.random.default_rng(1).permutation(120)
    first = ReviewModel.fit({"probes": opinions}, classes)
    second = ReviewModel.fit({"probes": opinions.take(order)}, classes[order])
    assert first.joined == second.joined


@given(st.sampled_from(EXPERTS[1:]), st.integers(0, 99), st.floats(0.1, 1.0))
@settings(max_examples=60, deadline=None)
def test_an_opinion_against_the_verdict_never_lowers_the_score(
    expert: str, row: int, share: float
) -> None:
    model, (opinions, _) = MODEL, SEEN
    one = opinions.take(np.array([row]))
    verdict = int(one.verdict[0])
    changed = np.array(one.shares[expert][0])
    changed[verdict] *= 1 - share
    changed /= changed.sum()
    # What the verdict loses goes to the others in proportion.
    after = Opinions({**one.shares, expert: changed[None]}, one.ratios)
    assert model.judge(after).score[0] >= model.judge(one).score[0] - 1e-9


@given(st.floats(0, 50), st.floats(0, 50))
def test_strangeness_never_falls_with_the_score(a: float, b: float) -> None:
    low, high = sorted((a, b))
    odds = STRANGE.odds(np.array([low, high]))
    assert odds[0] <= odds[1]
    assert odds[0] > 0
    assert odds[1] <= MOST


def test_strangeness_is_small_inside_and_large_far_out() -> None:
    rng = np.random.default_rng(0)
    strange = Strangeness.fit(np.exp(rng.normal(-0.4, 0.15, 500)))
    inside = strange.share(np.exp(rng.normal(-0.4, 0.15, 2000)))
    assert abs(inside.mean() - 0.5) < 0.05
    assert strange.odds(np.array([0.67]))[0] < 0.12
    assert strange.odds(np.array([4.0]))[0] == MOST
    np.testing.assert_allclose(Strangeness.fit(np.zeros(0)).share(np.array([9.0])), 1)


def test_experts_may_be_silent() -> None:
    opinions, _ = _lesions(50, 3)
    alone = Opinions({"network": opinions.shares["network"]}, opinions.ratios)
    judged = MODEL.judge(alone)
    assert np.isfinite(judged.score).all()
    assert set(judged.voices) == {"network"}


def test_a_network_without_mistakes_and_a_single_lesion() -> None:
    opinions, _ = _lesions(40, 0)
    model = ReviewModel.fit({"probes": opinions}, opinions.verdict)
    assert np.isfinite(model.judge(opinions).score).all()
    one = opinions.take(np.array([0]))
    lone = ReviewModel.fit({"probes": one}, one.verdict)
    assert np.isfinite(lone.judge(opinions).score).all()


def test_one_class_alone_is_never_wrong() -> None:
    shares = {"network": np.ones((4, 1)), "features": np.ones((4, 1))}
    opinions = Opinions(shares, np.full(4, 0.5))
    judged = ReviewModel.fit({"probes": opinions}, np.zeros(4)).judge(opinions)
    assert judged.score.max() < 0.5


def test_a_network_that_wavers_anyway_does_not_rest_on_the_surroundings() -> None:
    shares = dict.fromkeys(EXPERTS, np.array([[0.50, 0.48, 0.02]]))
    wavering = {**shares, "surroundings": np.array([[0.47, 0.51, 0.02]])}
    opinions = Opinions(wavering, np.array([0.6]))
    assert [code for code, _ in reasons(MODEL.judge(opinions), opinions)] == ["weak_agreement"]


def test_held_out_scores_are_not_those_of_the_fit() -> None:
    opinions, classes = _lesions(60, 0)
    odds = held_out(opinions, classes)
    assert np.isfinite(odds).all()
    assert auroc(odds, opinions.verdict != classes) > 0.6


def test_reasons_name_who_disagrees() -> None:
    sure = np.array([[0.96, 0.02, 0.02]])
    other = np.array([[0.05, 0.05, 0.90]])
    shares = dict.fromkeys(EXPERTS, sure)
    ratios = np.array([0.6])
    everyone = Opinions(shares, ratios)
    assert reasons(MODEL.judge(everyone), everyone)[0][0] == "weak_agreement"
    codes = {"image": "image_disagrees", "features": "features_disagree"}
    for expert, code in {**codes, "surroundings": "surroundings"}.items():
        against = Opinions({**shares, expert: other}, ratios)
        assert reasons(MODEL.judge(against), against)[0] == (code, 2)
    far = Opinions(shares, np.array([30.0]))
    assert reasons(MODEL.judge(far), far)[0][0] == "strange"
    unsure = Opinions({**shares, "network": np.array([[0.4, 0.3, 0.3]])}, ratios)
    assert reasons(MODEL.judge(unsure), unsure) == [("network_unsure", 1)]
    assert all(text.format(verdict="X", other="Y").endswith(".") for text in REASONS.values())


def test_a_report_counts_as_a_reader_and_others_are_refused() -> None:
    opinions, _ = _lesions(10, 2)
    np.testing.assert_array_equal(
        MODEL.judge(opinions, "report").score, MODEL.judge(opinions, "reader").score
    )
    with pytest.raises(InputError, match="source"):
        MODEL.judge(opinions, "rumour")
    with pytest.raises(InputError, match="opinions"):
        ReviewModel.fit({"rumour": opinions}, np.zeros(10))


def test_parts_come_back_and_bad_ones_do_not() -> None:
    tensors, meta = MODEL.to_parts()
    opinions, _ = _lesions(20, 5)
    back = ReviewModel.from_parts(tensors, meta)
    np.testing.assert_array_equal(back.judge(opinions).score, MODEL.judge(opinions).score)
    bad = {**meta, "joined": {"probes": {**meta["joined"]["probes"], "slope": -1.0}}}
    with pytest.raises(ValueError, match="below zero"):
        ReviewModel.from_parts(tensors, bad)


MODEL, SEEN = _model(), _lesions(100, 7)
STRANGE = Strangeness.fit(np.exp(np.random.default_rng(0).normal(-0.4, 0.15, 300)))
