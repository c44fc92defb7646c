"""The evaluation report as a page: one HTML file, no script, no external address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

_PAGES = Environment(
    loader=PackageLoader("models.report", "."),
    autoescape=select_autoescape(default=True, default_for_string=True),
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_evaluation(report: Mapping[str, Any], curve: str | None = None) -> str:
    """report: what `lesionlens eval` writes as JSON. curve: data URI of its picture.

    Returns the HTML page; what the report does not hold is left out of it.
    """
    return _PAGES.get_template("evaluation.html.j2").render(
        report=report,
        curve=curve,
        classifier=report["classifier"]["default"],
        probes=report["probes"],
        features=report["probes"]["default"]["per_feature"],
        control=report["probes"]["class_only"]["per_feature"],
    )
