"""From finished parts to the report: one JSON for programs, one page and one picture for people."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.evaluation.paired import paired_accuracy
from models.report.evaluation import render_evaluation
from services.cli.eval_plan import NETS, Plan
from services.cli.eval_plot import learning_curve_png
from services.cli.record import write_record

_POINT = ("accuracy", "ci", "ece", "macro_auroc", "macro_auroc_ci")


def join_parts(plan: Plan, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The report's figures. parts: what services.cli.eval_run.run_parts returned."""
    default, rival = parts["default"], parts["wang2019"]
    points = []
    for size in plan.sizes:
        part = default if size == plan.main else parts[f"curve-{size}"]
        points.append(
            {"n_train": size}
            | {key: part["classifier"][key] for key in _POINT}
            | {"validation_accuracy": part["validation_accuracy"]}
        )
    figures: dict[str, Any] = {}
    for name in _SCIENCE:
        figures |= {k: v for k, v in parts[name].items() if k not in _OF_PART}
    return {
        "synthetic": True,
        "cohort": f"phantom-{plan.cohort_seed}-{plan.training + plan.validation + plan.test}",
        "plan": plan.model_dump(mode="json"),
        "bundle": default["bundle"],
        "classifier": {
            "default": _classifier(default),
            "wang2019": _classifier(rival),
            "default_less_wang2019": paired_accuracy(
                default["right"], rival["right"], seed=plan.seed
            ),
            "others": {
                name: _classifier(part) for name, part in parts.items() if name.startswith("net-")
            },
        },
        "learning_curve": {"profile": "default", "n_test": len(default["right"]), "points": points},
        "ood": parts["ood"]["ood"],
        "ood_inside": parts["ood"]["ood_inside"],
        "ood_missing": parts["ood"]["ood_missing"],
        **figures,
        "parts": {
            name: {key: part[key] for key in ("digest", "seconds", "cpu_seconds")}
            for name, part in parts.items()
        },
        "made_from": MADE_FROM,
        "cost": {
            "seconds": round(sum(p["seconds"] for p in parts.values()), 1),
            "cpu_seconds": round(sum(p["cpu_seconds"] for p in parts.values()), 1),
            "parts": {name: p["seconds"] for name, p in parts.items()},
            "default_training": default["stages"],
        },
    }


_OF_PART = ("part", "digest", "seconds", "cpu_seconds")
# Parts whose figures are keys of the report themselves.
_SCIENCE = ("probes", "relevance", "errors", "maps")
# Key of the report -> the parts that made it; each is made again by `lesionlens eval` alone.
MADE_FROM = {
    "classifier": ["default", "wang2019", *(f"net-{name}" for name in NETS)],
    "learning_curve": ["default", "curve-*"],
    "ood": ["ood"],
    "probes": ["default", "net-concept", "probes"],
    "relevance": ["default", "truth", "relevance"],
    "errors": ["default", "stress", "errors"],
    "maps": ["default", "net-seed1", "maps"],
}


def _classifier(part: Mapping[str, Any]) -> dict[str, Any]:
    return dict(part["classifier"]) | {
        "n_train": part["n_train"],
        "n_test": part["classifier"]["n"],
        "temperature": part["temperature"],
    }


def write_report(out: Path, report: Mapping[str, Any], seed: int) -> None:
    """report.json, report.html and, where there is a curve, learning_curve.{json,png}."""
    out.mkdir(parents=True, exist_ok=True)
    where = out.name if out.is_absolute() else out.as_posix()
    whole = {"command": f"lesionlens eval --out {where}"} | dict(report)
    write_record(out / "report.json", whole, made_by="lesionlens eval", seed=seed)
    picture = None
    if "learning_curve" in report:
        curve = report["learning_curve"]
        write_record(out / "learning_curve.json", dict(curve), made_by="lesionlens eval", seed=seed)
        png = learning_curve_png(curve, {"wang2019": report["classifier"]["wang2019"]})
        (out / "learning_curve.png").write_bytes(png)
        picture = _png(png)
    gallery = {
        row["feature"]: _png((out / row["file"]).read_bytes())
        for row in report.get("maps", {}).get("gallery", [])
    }
    (out / "report.html").write_text(render_evaluation(whole, picture, gallery), "utf-8")


def _png(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
