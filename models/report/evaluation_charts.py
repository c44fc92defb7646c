"""The charts of the evaluation page, from the report's JSON; None where there are no figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from models.report.charts import Axis, Bar, Series, curves, intervals

Report = Mapping[str, Any]

# Detectors whose curve or row is drawn, in a reader's order, where the report has them.
_DETECTORS = (
    "default", "all_labels", "concept_supervised", "measurements_only", "taps_only",
    "wang2019_gaussian", "spie_rodeo", "class_only",
)  # fmt: skip
_LOWEST = 0.3  # of the trade-off's axes
PUBLISHED = (0.765, 0.829)  # PPV and sensitivity of Wang et al. 2019, on 60 real lesions


def words(name: str) -> str:
    """An id as a reader sees it."""
    return name.replace("_", " ")


def detectors(report: Report) -> Markup | None:
    """Macro AUROC of every detector, with its interval."""
    rows = report["probes"]
    names = [n for n in _DETECTORS if n in rows] + [n for n in rows if n not in _DETECTORS]
    bars = [_bar(n, rows[n], "macro_auroc", n == "default") for n in names]
    return _intervals("Macro AUROC over features, by detector", "macro AUROC", bars)


def trade_off(report: Report) -> Markup | None:
    """PPV over sensitivity while one threshold is turned; operating points as dots of their own."""
    found = report.get("trade_off") or {}
    series = []
    for name in [n for n in _DETECTORS if n in found]:
        points = _pairs(found[name], "sensitivity", "ppv")
        series.append(Series(words(name), points, marks=False, emphasis=name == "default"))
    if not any(len(s.points) for s in series):
        return None
    at = report["probes"]["default"]
    chosen = [(at["micro_sensitivity"], at["micro_ppv"])]
    if None not in chosen[0]:
        series.append(Series("operating point of the default", chosen, line=False))
    series.append(Series("published, other lesions", [(PUBLISHED[1], PUBLISHED[0])], line=False))
    return curves(
        "PPV against sensitivity, micro averages, one threshold for all features",
        Axis("sensitivity", _LOWEST, 1.0),
        Axis("PPV", _LOWEST, 1.0),
        series,
    )


def labels(report: Report) -> Markup | None:
    """Macro AUROC and within-class AUROC over labelled lesions a feature."""
    points = report.get("label_curve") or []
    series = []
    for key, label in (("macro_auroc", "macro AUROC"), ("within_class_auroc", "within class")):
        known = [p for p in points if p.get(key) is not None and p.get(f"{key}_ci")]
        series.append(
            Series(
                label,
                [(math.log2(p["per_feature"]), p[key]) for p in known],
                low=[p[f"{key}_ci"][0] for p in known],
                high=[p[f"{key}_ci"][1] for p in known],
            )
        )
    values = [v for s in series for v in s.low]
    if not values:
        return None
    sizes = [p["per_feature"] for p in points]
    ticks = [(math.log2(s), str(s)) for s in sizes]
    across = Axis("labelled lesions a feature", ticks[0][0] - 0.2, ticks[-1][0] + 0.2, ticks)
    return curves(
        "How many labels does it take?", across, Axis("AUROC", _floor(min(values)), 1.0), series
    )


def relevance_rows(report: Report) -> dict[str, dict[str, Any]]:
    """Row name -> spearman, sign agreement and the default's lead, the default first."""
    found = report.get("relevance")
    if not found:
        return {}
    rows = {"default": {**found, "first": True, "what": words(found.get("form") or "")}}
    for name, row in (found.get("baselines") or {}).items():
        rows[name] = {**row, "gap": row.get("default_ahead")}
    edits = found.get("edits") or {}
    for key, name, what in (
        ("directions", "directions_from_image_edits", "removal in activations, no generator"),
        ("image_removal", "image_removal", "the edited image through the network"),
    ):
        if edits.get(key):
            row = edits[key]
            rows[name] = {**row, "what": what, "gap": row.get("default_ahead")}
    return rows


def relevance(report: Report) -> Markup | None:
    """Spearman with causal truth, by form and baseline."""
    bars = [
        _bar(name, row, "spearman", bool(row.get("first")))
        for name, row in relevance_rows(report).items()
    ]
    title = "Spearman's correlation with the true change of the logit"
    return _intervals(title, "Spearman", bars, reference=0.0)


def scatter(report: Report) -> Markup | None:
    """Predicted against true change, a point a pair."""
    points = [(p[0], p[1]) for p in (report.get("relevance") or {}).get("scatter") or []]
    if len(points) < 2:
        return None
    flat = sorted(v for p in points for v in p)
    low, high = flat[len(flat) // 200], flat[-1 - len(flat) // 200]
    axis = _floor(low, 1.0), -_floor(-high, 1.0)
    return curves(
        "Relevance against truth, lesion–feature pairs (a sample of them)",
        Axis("said: change of the centred logit", *axis),
        Axis("true change", *axis),
        [Series("", points, line=False)],
        diagonal=True,
        height=400,
    )


def error_scores(report: Report) -> Markup | None:
    """AUROC of every score that tells mistakes."""
    errors = report.get("errors") or {}
    scores = dict(errors.get("scores") or {})
    bars = [_bar(name, row, "auroc", name == "review") for name, row in scores.items()]
    for name, row in (errors.get("human_features") or {}).items():
        bars.append(_bar(f"reader, {name} % wrong", row, "auroc", False))
    return _intervals("Telling mistakes, by score", "AUROC of error detection", bars)


def risk(report: Report) -> Markup | None:
    """Share of mistakes among the most trusted lesions."""
    found = (report.get("errors") or {}).get("risk_coverage") or {}
    series = []
    for name, row in found.items():
        pairs = zip(row["coverage"], row["risk"], strict=True)
        points = [(c, r) for c, r in pairs if r is not None]
        series.append(Series(words(name), points, marks=False, emphasis=name == "review"))
    values = [p[1] for s in series for p in s.points]
    if not values:
        return None
    top = max(max(values), 0.02)
    return curves(
        "Risk over coverage: the share of mistakes among the most trusted lesions",
        Axis("share of lesions that are answered", 0.0, 1.0),
        Axis("share of mistakes among them", 0.0, -_floor(-top, 0.02)),
        series,
    )


def _bar(name: str, row: Mapping[str, Any], key: str, first: bool) -> Bar:
    return Bar(words(name), row.get(key), row.get(f"{key}_ci"), first)


def _intervals(
    title: str, label: str, bars: list[Bar], reference: float | None = None
) -> Markup | None:
    ends = [b.value for b in bars if b.value is not None]
    ends += [v for b in bars for v in (b.ci or ())]
    if not ends:
        return None
    low = _floor(min([*ends, reference if reference is not None else 1.0]), 0.05)
    high = max(-_floor(-max(ends), 0.05), low + 0.1)
    return intervals(title, Axis(label, low, high), bars, reference=reference)


def _pairs(points: list[Mapping[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    """Those that lie in the frame of the trade-off."""
    known = [(p[x], p[y]) for p in points if p[x] is not None and p[y] is not None]
    return [p for p in known if min(p) >= _LOWEST]


def _floor(value: float, step: float = 0.05) -> float:
    return math.floor(value / step + 1e-9) * step
