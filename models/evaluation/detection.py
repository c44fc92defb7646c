"""How well are the features detected? PPV, sensitivity, AUROC; lesions are the unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.calibration import binary_calibration_error
from models.evaluation.classification import number
from models.evaluation.intervals import bootstrap
from models.evaluation.ranking import auroc, auroc_interval


def evaluate_features(
    probabilities: NDArray[Any],
    found: NDArray[Any],
    labels: NDArray[Any],
    features: Sequence[str],
    *,
    split: str,
    draws: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """Micro-averaged PPV and sensitivity, macro AUROC, and each feature, with 95 % intervals.

    probabilities, found (bool), labels (1 present, 0 absent, NaN not assessed): [n, F]. Lesions on
    which a feature was not assessed count for nothing there. Undefined figures are None.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    called = np.asarray(found, dtype=bool)
    known = np.isfinite(y)
    n = len(y)

    def ppv(i: NDArray[np.int64]) -> float:
        right = (called[i] & (y[i] == 1)).sum()
        all_called = (called[i] & known[i]).sum()
        return right / all_called if all_called else float("nan")

    def sensitivity(i: NDArray[np.int64]) -> float:
        right, there = (called[i] & (y[i] == 1)).sum(), (y[i] == 1).sum()
        return right / there if there else float("nan")

    def macro(i: NDArray[np.int64]) -> float:
        values = [auroc(p[i, f][known[i, f]], y[i, f][known[i, f]] == 1) for f in range(p.shape[1])]
        defined = [v for v in values if np.isfinite(v)]
        return float(np.mean(defined)) if defined else float("nan")

    everyone = np.arange(n)
    result: dict[str, Any] = {"split": split, "n": n}
    for name, statistic in (
        ("micro_ppv", ppv),
        ("micro_sensitivity", sensitivity),
        ("macro_auroc", macro),
    ):
        result[name] = number(statistic(everyone))
        ci = bootstrap(statistic, n, draws=draws, seed=seed)
        result[f"{name}_ci"] = None if ci is None else [round(v, 6) for v in ci]
    result["per_feature"] = {
        name: _one(p[:, f], called[:, f], y[:, f], draws, seed) for f, name in enumerate(features)
    }
    return result


def _one(
    p: NDArray[np.float64], called: NDArray[np.bool_], y: NDArray[np.float64], draws: int, seed: int
) -> dict[str, Any]:
    known = np.isfinite(y)
    p, called, there = p[known], called[known], y[known] == 1
    right = int((called & there).sum())
    ci = auroc_interval(p, there, draws=draws, seed=seed)
    return {
        "n_present": int(there.sum()),
        "n_absent": int((~there).sum()),
        "auroc": number(auroc(p, there)),
        "auroc_ci": None if ci is None else [round(v, 6) for v in ci],
        "ppv": number(right / called.sum() if called.any() else np.nan),
        "sensitivity": number(right / there.sum() if there.any() else np.nan),
        "ece": number(binary_calibration_error(p, there)),
    }
