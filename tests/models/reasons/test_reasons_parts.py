"""Rounding, ids, maps as bytes, similar lesions, words, one-pass predictions."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import voi
from models.bundle.parts import Reference
from models.bundle.read import Bundle
from models.errors import InputError
from models.reasons.document import explanation_id, maps_bytes, maps_from_bytes
from models.reasons.predict import predict
from models.reasons.rounding import decimals, significant, to_scale
from models.reasons.similar import similar_lesions
from models.reasons.words import join_words, percent, plain_text
from models.vocabulary import liver_mri
from tests.models.reasons.small_network import SPEC, SmallNetwork, lesion
from wire.api import ExplanationParameters
from wire.explanation import (
    ClassProbability,
    DetectionQuality,
    Effect,
    FeatureFinding,
    OutOfDistribution,
    Prediction,
    Relevance,
    Review,
    ReviewReason,
)


@given(st.floats(-1e9, 1e9, allow_nan=False))
def test_rounding_twice_is_rounding_once(value: float) -> None:
    for rounded in (significant, decimals):
        once = rounded(value)
        assert rounded(once) == once
        assert str(once) != "-0.0"
    assert significant(value) == pytest.approx(value, rel=1e-3)


def test_arrays_round_on_one_grid() -> None:
    values = np.array([0.123456, -0.0000123, 0.0], np.float32)
    rounded = to_scale(values)
    assert rounded.tolist() == pytest.approx([0.1235, 0.0, 0.0], abs=1e-8)
    assert to_scale(np.zeros(3)).tolist() == [0, 0, 0]


def test_id_is_a_hash_of_everything_that_is_asked() -> None:
    one = ExplanationParameters()
    ids = {
        explanation_id("les-1", "b-1", one),
        explanation_id("les-2", "b-1", one),
        explanation_id("les-1", "b-2", one),
        *(
            explanation_id("les-1", "b-1", one.model_copy(update={name: 7}))
            for name in ("passes", "seed", "map_steps")
        ),
    }
    assert len(ids) == 6
    assert all(re.fullmatch("exp-[0-9a-f]{24}", i) for i in ids)
    assert explanation_id("les-1", "b-1", ExplanationParameters()) in ids


def test_maps_survive_the_bytes() -> None:
    rng = np.random.default_rng(0)
    maps = {f"feature/{k}": rng.normal(size=(3, 4, 4, 4)).astype(np.float32) for k in "ba"}
    data = maps_bytes(maps)
    assert data == maps_bytes(dict(reversed(maps.items())))
    back = maps_from_bytes(data)
    assert set(back) == set(maps)
    assert all(np.array_equal(back[k], maps[k]) for k in maps)


def reference(rows: np.ndarray) -> Reference:
    n = len(rows)
    return Reference(
        rows.astype(np.float32), [f"l{i}" for i in range(n)], ["cyst"] * n, [["thin_walled"]] * n
    )


def test_a_lesion_is_most_similar_to_itself_whatever_the_units() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 12)) + 5
    rows[:, 3] = 7.0  # a unit that never changes
    scales = np.logspace(-3, 3, 12)
    for unit in (np.ones(12), scales):
        near = similar_lesions(rows[17] * unit, reference(rows * unit), liver_mri())
        assert near[0].lesion_id == "l17"
        assert near[0].similarity == 1.0
        assert len(near) == 5
        assert [s.similarity for s in near] == sorted((s.similarity for s in near), reverse=True)
        assert near[0].features == ["thin_walled"]


def test_fewer_training_lesions_than_asked_for() -> None:
    rows = np.random.default_rng(1).normal(size=(3, 4))
    assert len(similar_lesions(rows[0], reference(rows), liver_mri())) == 3


def prediction(*shares: float) -> Prediction:
    ids = liver_mri().class_ids
    ranked = [
        ClassProbability(id=i, label=liver_mri().lesion_class(i).label, probability=p)
        for i, p in zip(ids, shares, strict=False)
    ]
    return Prediction(
        class_id=ranked[0].id, label=ranked[0].label, probabilities=ranked, pass_agreement=1.0
    )


def feature(feature_id: str, found: bool, value: float, ci: tuple[float, float]) -> FeatureFinding:
    entry = liver_mri().feature(feature_id)
    return FeatureFinding(
        id=feature_id,
        label=entry.label,
        found=found,
        probability=0.9 if found else 0.1,
        threshold=0.5,
        probe="logistic",
        scores={},
        relevance=Relevance(
            form="first_order",
            value=value,
            ci=ci,
            forms={"first_order": Effect(value=value, ci=ci)},
        ),
        quality=DetectionQuality(auroc=None, ci=None, n_present=0, n_absent=0, split="training"),
        typical_of=entry.typical_of,
    )


WITHIN = OutOfDistribution(score=1, threshold=2, flagged=False, method="m")
OUTSIDE = OutOfDistribution(score=3, threshold=2, flagged=True, method="m")


def test_words_of_a_clear_case() -> None:
    features = [feature("washout", True, 0.5, (0.4, 0.6)), feature("thin_walled", False, 0, (0, 0))]
    text = plain_text(prediction(0.9, 0.1), features, None, WITHIN)
    assert text == (
        "The network reads the lesion as hepatocellular carcinoma (HCC), probability 90 %. "
        "It finds washout, which weighs for this class."
    )


def test_words_give_the_reason_of_a_flag() -> None:
    seen = [feature("washout", True, 0.5, (0.4, 0.6))]
    flag = Review(
        flagged=True,
        score=0.6,
        threshold=0.3,
        source="reader",
        reasons=[ReviewReason(code="consistency", text="the reader's features speak for cysts.")],
        components={},
    )
    text = plain_text(prediction(0.9, 0.1), seen, flag, WITHIN)
    assert text.endswith("A second look is advised: the reader's features speak for cysts.")
    calm = flag.model_copy(update={"flagged": False, "reasons": []})
    assert "second look" not in plain_text(prediction(0.9, 0.1), seen, calm, WITHIN)


def test_words_when_nothing_is_found() -> None:
    text = plain_text(prediction(0.4, 0.3), [feature("washout", False, 0, (0, 0))], None, WITHIN)
    assert "unsure" in text
    assert "40 %" in text
    assert "finds none of the 1 features" in text


def test_words_say_first_that_a_lesion_is_unknown() -> None:
    text = plain_text(prediction(0.9), [feature("washout", True, -1, (-2, -0.5))], None, OUTSIDE)
    assert text.startswith("This lesion lies outside")
    assert "nothing found weighs clearly for this class" in text


def test_small_words() -> None:
    assert join_words([]) == ""
    assert join_words(["a", "b", "c"]) == "a, b and c"
    assert [percent(p) for p in (0, 0.001, 0.5, 0.999, 1)] == [
        "0 %", "under 1 %", "50 %", "over 99 %", "100 %",
    ]  # fmt: skip


def test_prediction_is_the_plain_pass(network: SmallNetwork, small_bundle: Bundle) -> None:
    made = lesion(70)
    answer = predict(made, small_bundle, network, ["fc"])
    out = network._run(voi.tensor(made, SPEC)[None])
    logits = out["logits"][0] / small_bundle.temperature
    shares = np.exp(logits) / np.exp(logits).sum()
    by_id = {c.id: c.probability for c in answer.probabilities}
    for class_id, share in zip(small_bundle.manifest.classes, shares, strict=True):
        assert by_id[class_id] == pytest.approx(share, abs=1e-4)
    assert answer.class_id == max(by_id, key=lambda c: by_id[c])
    assert answer.activations["fc"] == pytest.approx(out["fc"][0], rel=1e-4, abs=1e-5)
    assert answer.synthetic
    assert predict(made, small_bundle, network).activations == {}


def test_prediction_refuses_an_unknown_tap(network: SmallNetwork, small_bundle: Bundle) -> None:
    with pytest.raises(InputError) as caught:
        predict(lesion(70), small_bundle, network, ["conv9"])
    assert caught.value.expected == "conv1, fc"
