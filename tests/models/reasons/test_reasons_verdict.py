"""Consistency, review flag and trust in a document; and what stands there without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle.read import Bundle
from models.errors import InputError
from models.reasons.explain import Result, document_bytes, explain
from tests.models.reasons.small_network import SmallNetwork, lesion
from wire.api import ExplanationParameters
from wire.explanation import Explanation

FEW = ExplanationParameters(passes=4, seed=3, map_steps=2)
FEATURES = ("washout", "thin_walled")


@pytest.fixture(scope="module")
def result(network: SmallNetwork, full_bundle: Bundle) -> Result:
    return explain(lesion(60), full_bundle, network, FEW)


def asked(network: SmallNetwork, bundle: Bundle, seed: int = 60, **more: object) -> Explanation:
    return explain(lesion(seed), bundle, network, FEW.model_copy(update=more)).document


def test_a_bundle_without_judges_says_nothing_of_them(
    network: SmallNetwork, small_bundle: Bundle
) -> None:
    document = asked(network, small_bundle, reader_features={"washout": "present"})
    assert (document.consistency, document.review, document.trust) == ([], None, [])
    assert document.provenance.reader_features == {"washout": "present"}
    assert {m.gate for m in document.maps} == {"not_measured"}


def test_the_flag_and_the_features_agree_with_themselves(result: Result) -> None:
    document = result.document
    (fit,) = document.consistency
    assert fit.source == "probes"
    assert fit.agrees == (fit.class_id == document.prediction.class_id)
    shares = {c.id: c.probability for c in fit.probabilities}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    own = shares[document.prediction.class_id]
    assert np.exp(-fit.score) == pytest.approx(own, abs=1e-3)
    found = {f.id for f in document.features if f.found}
    assert set(fit.speaks_for_others) <= found
    assert not set(fit.expected_missing) & found
    review = document.review
    assert review is not None
    assert review.flagged == (review.score > review.threshold)
    assert bool(review.reasons) == review.flagged
    assert set(review.components) >= {"network", "image", "surroundings", "features"}
    assert (review.n, review.split, review.auroc) == (48, "validation", 0.8)


def test_the_same_question_has_the_same_bytes_with_everything_in(
    result: Result, network: SmallNetwork, full_bundle: Bundle
) -> None:
    again = explain(lesion(60), full_bundle, network, FEW)
    assert document_bytes(again.document) == document_bytes(result.document)
    assert Explanation.model_validate_json(document_bytes(result.document)) == result.document


def test_a_reader_who_sees_another_class_raises_the_score(
    result: Result, network: SmallNetwork, full_bundle: Bundle
) -> None:
    """Ticks as the predicted class has them more than others do, against the opposite ticks."""
    judges = full_bundle.judges
    assert judges is not None
    known, classes = judges.features, list(judges.features.classes)
    own = classes.index(result.document.prediction.class_id)
    more = known.given[own] > np.delete(known.given, own, axis=0).mean(axis=0)
    scores = {}
    for like in (True, False):
        ticks = {
            f: "present" if m == like else "absent"
            for f, m in zip(known.features, more, strict=True)
        }
        document = asked(network, full_bundle, reader_features=ticks)
        first, second = document.consistency
        assert (first.source, second.source) == ("reader", "probes")
        assert second == result.document.consistency[0]  # a person changes nothing of the network
        assert document.review is not None
        assert document.review.source == "reader"
        scores[like] = (first.score, document.review.score)
    assert scores[False][0] > scores[True][0] + 1
    assert scores[False][1] >= scores[True][1]


def test_the_order_of_ticks_is_no_part_of_the_question(
    network: SmallNetwork, full_bundle: Bundle
) -> None:
    one = {"washout": "present", "thin_walled": "absent"}
    documents = [
        asked(network, full_bundle, reader_features=given, reader_source="report")
        for given in (one, dict(reversed(one.items())))
    ]
    assert document_bytes(documents[0]) == document_bytes(documents[1])
    assert documents[0].consistency[0].source == "report"
    assert documents[0].consistency[0].n_features == 2


def test_a_flag_says_why_and_the_text_ends_with_it(
    network: SmallNetwork, full_bundle: Bundle
) -> None:
    judges = full_bundle.judges
    assert judges is not None
    join = {s: replace(j, threshold=0.0) for s, j in judges.review.joined.items()}
    wary = replace(full_bundle, judges=replace(judges, review=replace(judges.review, joined=join)))
    for seed in (60, 61, 62):
        document = asked(network, wary, seed, reader_features=dict.fromkeys(FEATURES, "present"))
        assert document.review is not None
        assert document.review.flagged
        first = document.review.reasons[0].text
        assert document.text.endswith(first[:1].lower() + first[1:])
        for reason in document.review.reasons:
            assert reason.text.endswith(".")
            assert "{" not in reason.text


def test_maps_carry_the_gate_of_their_method(result: Result) -> None:
    gates = {m.kind: (m.gate, m.warning) for m in result.document.maps}
    assert gates["class"][0] == "failed"
    assert "randomisation" in (gates["class"][1] or "")
    assert gates["feature"] == ("passed", None)
    assert [c.kind for c in result.document.trust] == ["class", "feature"]


def test_relevance_has_every_form_that_can_be_had(result: Result) -> None:
    found = [f for f in result.document.features if f.found]
    assert found
    assert any(f.relevance.form == "activation_removal" for f in found)
    for f in result.document.features:
        assert "first_order" in f.relevance.forms
        assert (f.relevance.shapley is None) or f.found
        assert f.relevance.value == f.relevance.forms[f.relevance.form].value
    completeness = result.document.completeness
    assert completeness is not None
    shares = [f.relevance.shapley for f in found if f.relevance.shapley is not None]
    assert sum(shares) == pytest.approx(completeness.change, rel=1e-2, abs=1e-3)


def test_nothing_found_is_an_answer(network: SmallNetwork, full_bundle: Bundle) -> None:
    probes = full_bundle.probes
    never = {
        kind: replace(probe, threshold=np.ones_like(probe.threshold))
        for kind, probe in probes.probes.items()
    }
    document = asked(network, replace(full_bundle, probes=replace(probes, probes=never)))
    assert not any(f.found for f in document.features)
    assert document.completeness is None
    assert [m.kind for m in document.maps] == ["class"]
    assert document.consistency[0].speaks_for_others == {}
    assert "finds none of the 14 features" in document.text


def test_a_feature_that_nobody_knows_and_a_method_that_nobody_has(
    network: SmallNetwork, full_bundle: Bundle
) -> None:
    with pytest.raises(InputError) as refused:
        asked(network, full_bundle, reader_features={"no_such": "present"})
    assert (refused.value.code, refused.value.field) == ("unknown_feature", "reader_features")
    with pytest.raises(InputError) as refused:
        asked(network, full_bundle, map_method="magic")
    assert (refused.value.code, refused.value.field) == ("unknown_method", "map_method")


def test_another_map_method_is_named_in_the_document(
    network: SmallNetwork, full_bundle: Bundle
) -> None:
    document = asked(network, full_bundle, map_method="gradient_x_input")
    assert {m.method for m in document.maps} == {"gradient_x_input"}
    assert document.provenance.map_method == "gradient_x_input"
    assert document.trust == []
