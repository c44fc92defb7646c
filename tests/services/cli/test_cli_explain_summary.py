"""The summary on a terminal: the flag and its reasons, what the features say, intervals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from models.reasons.explain import explain
from services.cli.explain_summary import show
from tests.models.reasons.small_network import lesion, shared_equipped
from wire.api import ExplanationParameters
from wire.explanation import Explanation, ReviewReason


def shown(document: Explanation) -> str:
    out = io.StringIO()
    show(document, console=Console(file=out, width=300, color_system=None))
    return out.getvalue()


@pytest.fixture(scope="module")
def document() -> Explanation:
    network, bundle = shared_equipped()
    asked = ExplanationParameters(passes=3, map_steps=2, reader_features={"washout": "present"})
    return explain(lesion(60), bundle, network, asked).document


def test_a_flag_is_said_with_its_reasons(document: Explanation) -> None:
    assert document.review is not None
    reasons = [
        ReviewReason(code="features_disagree", text="The [features] speak for cyst."),
        ReviewReason(code="strange", text="It is strange."),
    ]
    update = {"flagged": True, "score": 0.4, "threshold": 0.3, "reasons": reasons}
    review = document.review.model_copy(update=update)
    text = shown(document.model_copy(update={"review": review}))
    assert "review advised (chance of a wrong class 40 %, limit 30 %)" in text
    assert "The [features] speak for cyst. It is strange." in text
    calm = review.model_copy(update={"flagged": False, "reasons": []})
    assert "no review advised" in shown(document.model_copy(update={"review": calm}))
    assert "review" not in shown(document.model_copy(update={"review": None}))


def test_each_source_of_features_has_a_line(document: Explanation) -> None:
    text = shown(document)
    assert "by the reader's features alone: " in text
    assert "by the found features alone: " in text
    for fit in document.consistency:
        assert fit.probabilities[0].label in text


def test_relevance_stands_with_its_interval(document: Explanation) -> None:
    text = shown(document)
    for f in document.features:
        if f.found and f.relevance.ci is not None:
            low, high = f.relevance.ci
            assert f"{low:+.2f} to {high:+.2f}" in text
