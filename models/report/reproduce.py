"""The repeated experiment as a page and as lines for a terminal."""

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

NAMES = {
    "default": "our probes",
    "wang2019_gaussian": "Gaussian ratio (Wang 2019)",
    "spie_rodeo": "kernel density ratio (SPIE 2019)",
}


def render_reproduction(report: Mapping[str, Any]) -> str:
    """report: what `lesionlens reproduce` writes as JSON. Returns the HTML page."""
    return _PAGES.get_template("reproduce.html.j2").render(report=report, names=NAMES)


def console_table(report: Mapping[str, Any]) -> list[str]:
    """The main table, a line a row."""
    published = report["published"]
    accuracy = report["classifier"]["accuracy"]
    theirs, spie = published["wang2019_gaussian"], published["spie_rodeo"]
    lines = [
        f"{report['runs']} runs, {report['n_test']} test lesions with {report['true_features']} "
        "features" + (", synthetic" if report["synthetic"] else ""),
        f"{'class accuracy':34} {_cell(accuracy):24} published "
        f"{theirs['accuracy']:.3f}, {spie['accuracy']:.3f}",
        f"{'':34} {'PPV':24} {'sensitivity':24} {'macro AUROC':24}",
    ]
    for name, row in report["detectors"].items():
        cells = (row[k] for k in ("micro_ppv", "micro_sensitivity", "macro_auroc"))
        lines.append(f"{NAMES.get(name, name):34} " + " ".join(f"{_cell(c):24}" for c in cells))
        if name in published:
            lines.append(
                f"{'  published':34} {published[name]['micro_ppv']:<24.3f} "
                f"{published[name]['micro_sensitivity']:<24.3f}"
            )
    for name, row in report["detectors"].items():
        lines.append(
            f"{NAMES.get(name, name):34} sensitivity on misclassified lesions "
            f"{_cell(row['misclassified']['sensitivity'])}, on correct ones "
            f"{_cell(row['correct']['sensitivity'])}"
        )
    lines.append(
        f"{'  published':34} {theirs['sensitivity_misclassified']:.3f} and "
        f"{theirs['sensitivity_correct']:.3f}"
    )
    return [line.rstrip() for line in lines]


def _cell(figure: Mapping[str, Any]) -> str:
    value, ci = figure["value"], figure["ci"]
    if value is None:
        return "undefined"
    return f"{value:.3f}" + (f" ({ci[0]:.3f} to {ci[1]:.3f})" if ci else "")
