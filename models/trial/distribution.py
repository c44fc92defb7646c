"""How well does a bundle tell what it knows from what it does not: one row a set of outliers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import voi
from models.bundle.read import Bundle
from models.evaluation.classification import number
from models.evaluation.intervals import wilson
from models.evaluation.ranking import auroc, auroc_interval
from models.model import Model
from models.voi import Lesion


def distances(
    lesions: Iterable[Lesion],
    bundle: Bundle,
    model: Model,
    progress: Callable[[], None] | None = None,
) -> NDArray[np.float64]:
    """The out-of-distribution score of each lesion over its limit: above 1 it is flagged.

    From the plain pass, as a prediction has it. A lesion without some phases has a limit of its
    own, hence the ratio.
    """
    ratios = []
    for lesion in lesions:
        x = voi.tensor(lesion, bundle.preprocessing)[None]
        ood = bundle.ood.without(lesion.missing)
        ratios.append(ood.score(ood.read(model.forward(x, ood.taps), x)[0]) / ood.threshold)
        if progress:
            progress()
    return np.array(ratios)


def outlier_row(
    inside: NDArray[np.float64], outside: NDArray[np.float64], seed: int
) -> dict[str, Any]:
    """AUROC of outliers against unseen lesions of the known classes, and how many are flagged.

    Both: `distances`.
    """
    scores = np.r_[inside, outside]
    labels = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    ci = auroc_interval(scores, labels, seed=seed)
    return {
        "auroc": number(auroc(scores, labels)),
        "ci": None if ci is None else [round(v, 6) for v in ci],
        "n": len(outside),
        **_flagged(outside),
    }


def inlier_row(inside: NDArray[np.float64]) -> dict[str, Any]:
    """How many lesions of the known classes are flagged: the price of the threshold."""
    return {"n": len(inside), **_flagged(inside)}


def _flagged(scores: NDArray[np.float64]) -> dict[str, Any]:
    count = int((scores > 1).sum())
    share = count / len(scores) if len(scores) else float("nan")
    return {
        "flagged": number(share),
        "flagged_ci": [round(v, 6) for v in wilson(count, len(scores))],
        "median": number(float(np.median(scores)) if len(scores) else float("nan")),
    }
