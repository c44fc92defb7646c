"""The figures that a reader looks for first, each beside what it must be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Ids whose words differ from the id without underscores.
TITLES = {
    "macro_auroc": "macro AUROC",
    "macro_ap": "macro AP",
    "within_class_auroc": "within class",
    "micro_ppv": "PPV",
    "micro_sensitivity": "sensitivity",
    "hcc": "HCC",
    "icc": "ICC",
    "crc_metastasis": "CRC metastasis",
    "fnh": "FNH",
    "wang2019_gaussian": "Wang 2019, Gaussian ratio",
    "spie_rodeo": "SPIE 2019, rodeo density",
    "grad_cam": "Grad-CAM",
    "smoothgrad": "SmoothGrad",
    "gradient_x_input": "gradient × input",
}

Row = dict[str, Any]


def at_a_glance(report: Mapping[str, Any]) -> list[Row]:
    """Rows {what, value, ci, rival (text), gap, n}; what the report does not hold is left out."""
    rows = [*_classes(report), *_features(report)]
    if report.get("relevance"):
        rows += _relevance(report["relevance"])
    if "auroc" in report["errors"]:
        rows += _errors(report["errors"])
    if report.get("maps"):
        rows += _maps(report["maps"])
    return rows


def _classes(report: Mapping[str, Any]) -> list[Row]:
    own, rival = report["classifier"]["default"], report["classifier"].get("wang2019")
    return [
        _row(
            "accuracy of the default network", own["accuracy"], own["ci"], own["n_test"],
            _beside("wang2019", rival["accuracy"]) if rival else "",
            report["classifier"].get("default_less_wang2019"),
        )
    ]  # fmt: skip


def _features(report: Mapping[str, Any]) -> list[Row]:
    probes, gaps = report["probes"], report.get("comparisons") or {}
    own, rows = probes["default"], []
    for key in ("macro_auroc", "macro_ap", "within_class_auroc"):
        rivals = {name: probes[name].get(key) for name in gaps.get(key, {}) if name in probes}
        known = {name: value for name, value in rivals.items() if value is not None}
        best = max(known, key=lambda name: known[name]) if known else None
        rows.append(
            _row(
                f"features, {TITLES[key]}", own.get(key), own.get(f"{key}_ci"), own["n"],
                _beside(best, known[best]) if best else "",
                gaps[key][best] if best else None,
            )
        )  # fmt: skip
    for key, published in (("micro_ppv", 0.765), ("micro_sensitivity", 0.829)):
        rival = f"published, other lesions: {published:.3f}"
        rows.append(_row(f"features, {TITLES[key]}", own[key], own[f"{key}_ci"], own["n"], rival))
    return rows


def _relevance(found: Mapping[str, Any]) -> list[Row]:
    prior = (found.get("baselines") or {}).get("class_prior") or {}
    pairs = f"{found['n_pairs']} pairs"
    return [
        _row(
            "relevance, Spearman with causal truth", found["spearman"], found["spearman_ci"], pairs,
            _beside("class_prior", prior["spearman"]) if prior else "",
            prior.get("default_ahead"),
        ),
        _row(
            "relevance, sign agreement", found["sign_agreement"], found["sign_agreement_ci"], pairs
        ),
    ]  # fmt: skip


def _errors(found: Mapping[str, Any]) -> list[Row]:
    base = _beside("max_softmax", found["max_softmax_auroc"])
    rows = [
        _row(
            "mistakes, AUROC of the review score", found["auroc"], found["ci"], found["n"], base,
            {"difference": found["difference"], "ci": found["paired_ci"]},
        )
    ]  # fmt: skip
    for share, row in found["human_features"].items():
        rows.append(
            _row(
                f"mistakes, reader's features, {share} % wrong", row["auroc"], row["auroc_ci"],
                found["n"], base, {"difference": row["difference"], "ci": row["paired_ci"]},
            )
        )  # fmt: skip
    return rows


def _maps(found: Mapping[str, Any]) -> list[Row]:
    own, controls = found["default"], found["controls"]
    if not own.get("n"):
        return []
    maps = f"{own['n']} maps"
    return [
        _row(
            f"default feature map, {word}", own[key], own[f"{key}_ci"], maps,
            _beside("centre", controls["centre"].get(key)),
        )
        for key, word in (("pointing", "pointing hit"), ("auprc", "AUPRC"))
    ]  # fmt: skip


def _row(
    what: str, value: Any, ci: Any, n: Any, rival: str = "", gap: Mapping[str, Any] | None = None
) -> Row:
    return {"what": what, "value": value, "ci": ci, "n": n, "rival": rival, "gap": gap}


def _beside(name: str, value: float | None) -> str:
    words = TITLES.get(name, name.replace("_", " "))
    return f"{words}: undefined" if value is None else f"{words}: {value:.3f}"
