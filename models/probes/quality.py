"""How well does each probe do on lesions that it did not learn from?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.detection import measure_detection
from models.evaluation.resampling import multiplicities
from wire.explanation import DetectionQuality

_MEASURES = {
    "auroc": "auroc",
    "ap": "average_precision",
    "ppv": "ppv",
    "sensitivity": "sensitivity",
}


def detection_quality(
    probabilities: NDArray[np.float64],
    found: NDArray[np.bool_],
    labels: NDArray[np.float64],
    classes: NDArray[Any] | None,
    split: str,
    *,
    draws: int,
    seed: int,
) -> list[DetectionQuality]:
    """probabilities, found, labels (NaN not assessed): [n, F]. classes: [n]. One entry a feature.

    A lesion without a probability (NaN) counts as not assessed. Intervals are 95 %, bootstrap over
    lesions.
    """
    y = np.where(np.isfinite(probabilities), labels, np.nan)
    names = [str(f) for f in range(y.shape[1])]
    row = measure_detection(
        np.nan_to_num(probabilities),
        found,
        y,
        names,
        multiplicities(len(y), draws=draws, seed=seed),
        classes=classes,
    ).row["per_feature"]
    return [_quality(row[name], split) for name in names]


def _quality(entry: dict[str, Any], split: str) -> DetectionQuality:
    one_kind = min(entry["n_present"], entry["n_absent"]) == 0
    values: dict[str, Any] = {}
    for key, name in _MEASURES.items():
        defined = not (one_kind and key in ("auroc", "ap"))
        values[name] = entry[key] if defined else None
        ci = entry[f"{key}_ci"]
        values["ci" if key == "auroc" else f"{name}_ci"] = ci if defined else None
    return DetectionQuality(
        **values,
        within_class_auroc=entry.get("within_class_auroc"),
        n_present=entry["n_present"],
        n_absent=entry["n_absent"],
        split=split,
    )
