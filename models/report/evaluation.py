"""The evaluation report as a page: one HTML file, no script, no external address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from models.report import evaluation_charts as draw
from models.report.evaluation_glance import TITLES, at_a_glance

_PAGES = Environment(
    loader=PackageLoader("models.report", "."),
    autoescape=select_autoescape(default=True, default_for_string=True),
    trim_blocks=True,
    lstrip_blocks=True,
)

# Section, the report's key without which it is left out, title.
_SECTIONS = (
    ("glance", "plan", "At a glance"),
    ("classes", "classifier", "Classes"),
    ("features", "probes", "Features"),
    ("relevance", "relevance", "Relevance"),
    ("mistakes", "errors", "Mistakes"),
    ("maps", "maps", "Maps"),
    ("outliers", "ood", "Strange inputs"),
    ("cost", "cost", "Cost"),
)


def render_evaluation(
    report: Mapping[str, Any], curve: str | None = None, gallery: Mapping[str, str] | None = None
) -> str:
    """report: what `lesionlens eval` writes as JSON. curve: data URI of the learning curve.
    gallery: feature -> data URI of its plate.

    Returns the HTML page; what the report does not hold is left out of it.
    """
    charts = {
        "detectors": draw.detectors(report),
        "trade_off": draw.trade_off(report),
        "labels": draw.labels(report),
        "errors": draw.error_scores(report),
        "risk": draw.risk(report),
        "relevance": draw.relevance(report),
        "scatter": draw.scatter(report),
    }
    return _PAGES.get_template("evaluation.html.j2").render(
        report=report,
        curve=curve,
        gallery=gallery or {},
        charts=charts,
        contents=[(name, title) for name, key, title in _SECTIONS if report.get(key)],
        classifier=report["classifier"]["default"],
        probes=report["probes"],
        features=report["probes"]["default"]["per_feature"],
        control=report["probes"]["class_only"]["per_feature"],
        glance=at_a_glance(report),
        titles=TITLES,
        relevance_rows=draw.relevance_rows(report),
    )
