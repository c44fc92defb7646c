"""Answering only where one is sure: risk over coverage, and how well mistakes are told.

Risk-coverage curves after Geifman & El-Yaniv (arXiv 1705.08500). A score is high where the answer
is to be trusted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.classification import number
from models.evaluation.drawn import auroc_drawn
from models.evaluation.resampling import Drawn, Weights

COVERAGES = tuple(round(0.05 * i, 2) for i in range(1, 21))


def risk_coverage(trust: NDArray[Any], right: NDArray[Any]) -> dict[str, Any]:
    """Share of mistakes among the most trusted lesions. Both [n].

    Returns {'coverage', 'risk', 'aurc', 'n'}: risk at each of COVERAGES (lesions of equal trust
    share their mean risk, so their order does not matter), and its mean over all coverages.
    """
    t, wrong = np.asarray(trust, dtype=np.float64), 1.0 - np.asarray(right, dtype=np.float64)
    n = len(t)
    if n == 0:
        return {"coverage": list(COVERAGES), "risk": [None] * len(COVERAGES), "aurc": None, "n": 0}
    order = np.argsort(-t, kind="stable")
    _, group = np.unique(-t[order], return_inverse=True)
    mean = np.bincount(group, weights=wrong[order]) / np.bincount(group)
    risk = np.cumsum(mean[group]) / np.arange(1, n + 1)
    at = [max(int(np.ceil(c * n - 1e-9)), 1) - 1 for c in COVERAGES]
    return {
        "coverage": list(COVERAGES),
        "risk": [number(float(risk[i])) for i in at],
        "aurc": number(float(risk.mean())),
        "n": n,
    }


def error_auroc(trust: NDArray[Any], right: NDArray[Any], w: Weights) -> Drawn:
    """AUROC of telling correct answers from mistakes, [B]."""
    return auroc_drawn(trust, np.asarray(right, dtype=np.float64), w)


def caught(flagged: NDArray[Any], right: NDArray[Any]) -> dict[str, Any]:
    """What a flag does: share flagged, mistakes caught, risk of the rest. Both [n], bool."""
    flagged = np.asarray(flagged, dtype=bool)
    wrong = ~np.asarray(right, dtype=bool)
    kept = ~flagged
    return {
        "flagged": number(float(flagged.mean()) if len(flagged) else np.nan),
        "mistakes_caught": number(float(flagged[wrong].mean()) if wrong.any() else np.nan),
        "risk_left": number(float(wrong[kept].mean()) if kept.any() else np.nan),
        "n": len(flagged),
        "n_wrong": int(wrong.sum()),
    }
