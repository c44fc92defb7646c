"""How well are the features detected? PPV, sensitivity, AUROC; lesions are the unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.calibration import binary_calibration_error
from models.evaluation.classification import number
from models.evaluation.drawn import (
    ap_drawn,
    auroc_drawn,
    macro,
    mean_drawn,
    micro_ppv,
    micro_sensitivity,
    per_feature,
    within_class_features,
)
from models.evaluation.multiplicity import corrected
from models.evaluation.resampling import Drawn, Weights, difference, keyed, multiplicities

# The figures of a whole detector, in a report's order.
FIGURES = ("macro_auroc", "macro_ap", "within_class_auroc", "micro_ppv", "micro_sensitivity")


@dataclass(frozen=True)
class Detection:
    """row: JSON values. drawn: each of FIGURES over the bootstrap draws, for paired comparisons."""

    row: dict[str, Any]
    drawn: dict[str, Drawn]


def measure_detection(
    scores: NDArray[Any],
    found: NDArray[Any],
    labels: NDArray[Any],
    features: Sequence[str],
    w: Weights,
    *,
    classes: NDArray[Any] | None = None,
    probabilities: bool = True,
) -> Detection:
    """All figures of one detector, with 95 % intervals.

    scores: higher is more likely present, [n, F], or [R, n, F] for R fits (labelling draws) of one
    detector: figures are then means over the fits, and 'fits' holds each one's macro AUROC. found:
    bool of the same shape. labels: 1 present, 0 absent, NaN not assessed, [n, F]. w: draws of the
    lesions (`multiplicities`). classes: true class [n], for the figure within classes.
    probabilities: whether scores are such, so that a calibration error means something.
    """
    s, called = np.asarray(scores, dtype=np.float64), np.asarray(found, dtype=bool)
    if s.ndim == 2:
        s, called = s[None], called[None]
    y = np.asarray(labels, dtype=np.float64)
    fits = range(len(s))
    by_feature = {
        "auroc": _mean([per_feature(auroc_drawn, s[r], y, w) for r in fits]),
        "ap": _mean([per_feature(ap_drawn, s[r], y, w) for r in fits]),
        "ppv": _mean([_ppv(called[r], y, w) for r in fits]),
        "sensitivity": _mean([_sensitivity(called[r], y, w) for r in fits]),
    }
    drawn = {"macro_auroc": macro(by_feature["auroc"]), "macro_ap": macro(by_feature["ap"])}
    if classes is not None:
        within = _mean([within_class_features(s[r], y, classes, w) for r in fits])
        by_feature["within_class_auroc"], drawn["within_class_auroc"] = within, macro(within)
    drawn["micro_ppv"] = _mean([micro_ppv(called[r], y, w) for r in fits])
    drawn["micro_sensitivity"] = _mean([micro_sensitivity(called[r], y, w) for r in fits])
    row: dict[str, Any] = {"n": len(y)}
    for name in FIGURES:
        if name in drawn:
            row |= keyed(name, drawn[name])
    if len(s) > 1:
        ones = w[:1]
        each = [macro(per_feature(auroc_drawn, s[r], y, ones)) for r in fits]
        row["fits"] = [number(float(value[0])) for value in each]
    row["per_feature"] = {}
    for f, name in enumerate(features):
        known = np.isfinite(y[:, f])
        entry: dict[str, Any] = {
            "n_present": int((y[:, f] == 1).sum()),
            "n_absent": int((y[:, f] == 0).sum()),
        }
        for key, values in by_feature.items():
            entry |= keyed(key, values[:, f])
        if probabilities:
            gaps = [binary_calibration_error(s[r, known, f], y[known, f]) for r in fits]
            entry["ece"] = number(float(np.mean(gaps)))
        row["per_feature"][name] = entry
    return Detection(row, drawn)


def compare_detections(
    first: Detection, others: dict[str, Detection]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Figure -> other detector -> the first less that other, paired; p corrected by Holm.

    All were measured with the same draws of the same lesions; the others are one family a figure.
    """
    return {
        name: corrected(
            {key: difference(first.drawn[name], other.drawn[name]) for key, other in others.items()}
        )
        for name in FIGURES
        if name in first.drawn
    }


def evaluate_features(
    probabilities: NDArray[Any],
    found: NDArray[Any],
    labels: NDArray[Any],
    features: Sequence[str],
    *,
    split: str,
    draws: int = 500,
    seed: int = 0,
    classes: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """`measure_detection` of one split as JSON values, its draws by lesion. Undefined: None."""
    w = multiplicities(len(labels), draws=draws, seed=seed)
    done = measure_detection(probabilities, found, labels, features, w, classes=classes)
    return {"split": split} | done.row


def _ppv(called: NDArray[np.bool_], y: NDArray[np.float64], w: Weights) -> NDArray[np.float64]:
    columns = [
        mean_drawn(np.where(called[:, f], y[:, f], np.nan), w)  # NaN labels count for nothing
        for f in range(y.shape[1])
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((len(w), 0))


def _sensitivity(
    called: NDArray[np.bool_], y: NDArray[np.float64], w: Weights
) -> NDArray[np.float64]:
    columns = [
        mean_drawn(np.where(y[:, f] == 1, called[:, f].astype(float), np.nan), w)
        for f in range(y.shape[1])
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((len(w), 0))


def _mean(values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Over the fits; undefined where one of them is."""
    return np.mean(np.stack(values), axis=0)
