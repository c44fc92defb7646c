"""How well does the network tell the classes apart? JSON for evaluation.json and the card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.calibration import expected_calibration_error
from models.evaluation.intervals import bootstrap, wilson
from models.evaluation.ranking import auroc


def evaluate_classifier(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    classes: Sequence[str],
    *,
    split: str,
    draws: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy (Wilson), macro one-against-rest AUROC (lesion bootstrap), ECE, confusion.

    probabilities: calibrated, [n, C]; labels: class indices, [n]. Undefined figures are None.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=int)
    n, top = len(p), p.argmax(axis=1) if len(p) else np.zeros(0, dtype=int)
    right = int((top == y).sum())
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (y, top), 1)
    per_class = {}
    for c, name in enumerate(classes):
        hits, true, called = confusion[c, c], confusion[c].sum(), confusion[:, c].sum()
        per_class[name] = {
            "n": int(true),
            "sensitivity": number(hits / true if true else np.nan),
            "sensitivity_ci": _interval(wilson(int(hits), int(true)) if true else None),
            "ppv": number(hits / called if called else np.nan),
            "auroc": number(auroc(p[:, c], y == c) if n else np.nan),
        }
    return {
        "split": split,
        "n": n,
        "accuracy": number(right / n if n else np.nan),
        "ci": _interval(wilson(right, n) if n else None),
        "ece": number(expected_calibration_error(p, y)),
        "macro_auroc": number(_macro(p, y)),
        "macro_auroc_ci": _interval(
            bootstrap(lambda i: _macro(p[i], y[i]), n, draws=draws, seed=seed)
        ),
        "per_class": per_class,
        "confusion": {"rows": "true", "columns": "predicted", "counts": confusion.tolist()},
    }


def _macro(p: NDArray[np.float64], y: NDArray[Any]) -> float:
    """Mean over the classes for which it is defined; NaN where there is none."""
    if len(p) == 0:
        return float("nan")
    values = [auroc(p[:, c], y == c) for c in range(p.shape[1])]
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")


def number(value: float) -> float | None:
    """Six digits; None for what is undefined, since JSON has no NaN."""
    return round(float(value), 6) if np.isfinite(value) else None


def _interval(ci: tuple[float, float] | None) -> list[float] | None:
    return None if ci is None else [round(v, 6) for v in ci]
