"""The report with everything in: review banner, consistency, forms of relevance, trust."""

from __future__ import annotations

import pytest

from models.bundle.read import Bundle
from models.reasons.explain import Result, explain
from models.report.page import render
from tests.models.reasons.small_network import SmallNetwork, lesion
from tests.models.report.test_report_page import Page
from wire.api import ExplanationParameters
from wire.explanation import ReviewReason

READER = {"washout": "present", "thin_walled": "absent"}
CHOSEN = ExplanationParameters(
    passes=4, map_steps=2, reader_features=READER, reader_source="report"
)


@pytest.fixture(scope="module")
def result(network: SmallNetwork, full_bundle: Bundle) -> Result:
    return explain(lesion(60), full_bundle, network, CHOSEN)


@pytest.fixture(scope="module")
def html(result: Result) -> str:
    return render(result.document, lesion(60), result.maps)


def test_page_nests_and_its_headings_are_headings(html: str) -> None:
    page = Page(html)
    assert len(page.all("h1")) == 1
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))


def test_a_flag_stands_first_with_its_reasons(result: Result) -> None:
    assert result.document.review is not None
    reasons = [
        ReviewReason(code="features_disagree", text="The <features> speak for cyst."),
        ReviewReason(code="strange", text="The lesion is unlike those that the network knows."),
    ]
    update = {"flagged": True, "score": 0.61, "threshold": 0.2, "reasons": reasons}
    flagged = result.document.model_copy(
        update={"review": result.document.review.model_copy(update=update)}
    )
    html = render(flagged, lesion(60), result.maps)
    assert html.index("Review advised") < html.index("<h1>")
    assert "The &lt;features&gt; speak for cyst." in html
    assert "chance of a wrong class 61 %, limit 20 %" in html
    calm = render(
        flagged.model_copy(
            update={"review": flagged.review.model_copy(update={"flagged": False, "reasons": []})}  # type: ignore[union-attr]
        ),
        lesion(60),
        result.maps,
    )
    assert "No review advised" in calm
    assert "Review advised" not in calm


def test_each_source_of_features_has_a_column_and_words(html: str, result: Result) -> None:
    assert [c.source for c in result.document.consistency] == ["report", "probes"]
    assert "The report’s features alone" in html
    assert "The features found alone" in html
    assert html.count("report: present") == 1
    assert html.count("report: absent") == 1
    assert "Features given by the report" in html


def test_every_form_of_a_found_feature_is_there(html: str, result: Result) -> None:
    found = [f for f in result.document.features if f.found]
    assert found
    assert "How much the found features weigh" in html
    assert "Share of all (Shapley)" in html
    assert "All found features taken out together change the logit by" in html
    for f in found:
        if f.quality.ppv is not None:
            assert f"PPV {f.quality.ppv:.2f}" in html


def test_maps_wear_the_outcome_of_their_gate(html: str, result: Result) -> None:
    kinds = [m.kind for m in result.document.maps]
    assert html.count("trust checks not passed</span>") == kinds.count("class")
    assert html.count("trust checks passed</span>") == kinds.count("feature")
    (warning,) = {m.warning for m in result.document.maps if m.kind == "class"}
    assert html.count(warning or "?") == 1
    assert "How far the maps can be trusted" in html
