"""Does the report name the shortcut? A network was trained where a mark went with one class.

On data like its own it looks excellent, so its accuracy tells nobody. Three things may: the review
flag's first reason, what the verdict does when the surroundings are wiped, and where the gradient
of the verdict lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cohort.phantom.stress import mark_cover, spoiled_rows
from models.consistency.reasons import reasons
from models.evaluation.classification import number
from models.evaluation.intervals import wilson
from models.evaluation.resampling import figure, multiplicities
from models.model import Model
from models.trial.data import Sample
from models.trial.judged import Judged
from models.voi import Preprocessing, centre

NAMED = "surroundings"  # the key of the reason that means it


def measure_shortcut(
    judged: Judged,
    sample: Sample,
    model: Model,
    control: Model,
    *,
    accuracy_like_training: float | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The report's 'errors.stress.shortcut.shortcut'.

    judged, sample: the shortcut cohort through the network that was trained on marked lesions,
    `model`. control: a network that never saw the mark, on the same images. accuracy_like_training:
    of the former on lesions that are marked as in its training.
    """
    marked = spoiled_rows("shortcut", len(judged.classes))
    wrong, verdict = judged.wrong, judged.opinions.verdict
    seen = judged.verdicts()
    first = np.array([reasons(seen, judged.opinions, i)[0][0] for i in range(len(wrong))])
    rows = np.arange(len(wrong))
    without = np.asarray(judged.opinions.shares["surroundings"])
    gone = np.log(np.maximum(judged.plain[rows, verdict], 1e-4)) - np.log(
        np.maximum(without[rows, verdict], 1e-4)
    )
    spec = judged.bundle.preprocessing
    cover = centre(mark_cover(spec)[None], spec)[0]
    mass = _mass(sample, verdict, model, spec, cover)
    innocent = _mass(sample, _verdict(sample, control, spec), control, spec, cover)
    return {
        "accuracy_like_training": accuracy_like_training,
        "accuracy_marked": number(float(1 - wrong[marked].mean())),
        "accuracy_unmarked": number(float(1 - wrong[~marked].mean())),
        "named_on_marked_mistakes": _share((first == NAMED) & seen.flagged, marked & wrong),
        "named_on_unmarked_mistakes": _share((first == NAMED) & seen.flagged, ~marked & wrong),
        "flagged_of_marked_mistakes": _share(seen.flagged, marked & wrong),
        "nats_lost_by_wiping": {
            "marked": _mean(gone[marked], draws, seed),
            "unmarked": _mean(gone[~marked], draws, seed),
        },
        "gradient_mass_on_mark": {
            "marked": _mean(mass[marked], draws, seed),
            "unmarked": _mean(mass[~marked], draws, seed),
            "marked_control_network": _mean(innocent[marked], draws, seed),
            "share_of_volume": number(float(cover.mean())),
        },
        "named": bool(_lowest(first, seen.flagged, marked & wrong) > 0.5),
    }


def _share(hit: NDArray[np.bool_], among: NDArray[np.bool_]) -> dict[str, Any]:
    k, n = int((hit & among).sum()), int(among.sum())
    return {
        "value": number(k / n if n else np.nan),
        "ci": [round(v, 6) for v in wilson(k, n)],
        "n": n,
    }


def _lowest(first: NDArray[Any], flagged: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return wilson(int(((first == NAMED) & flagged & among).sum()), int(among.sum()))[0]


def _mean(values: NDArray[np.float64], draws: int, seed: int) -> dict[str, Any]:
    w = multiplicities(len(values), draws=draws, seed=seed).astype(np.float64)
    total = w.sum(axis=1)
    drawn = np.divide(w @ values, total, out=np.full(len(w), np.nan), where=total > 0)
    return {**figure(drawn), "n": len(values)}


def _verdict(sample: Sample, model: Model, spec: Preprocessing) -> NDArray[np.int64]:
    """Of the plain view, [n]."""
    views = (centre(np.asarray(base), spec)[None] for base in sample.bases)
    return np.array([int(model.forward(x, ["logits"])["logits"][0].argmax()) for x in views])


def _mass(
    sample: Sample,
    verdict: NDArray[np.int64],
    model: Model,
    spec: Preprocessing,
    cover: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Share of |gradient x input| of the verdict's centred logit that lies on the mark's place.

    cover: coverage of the mark in the network's view [K, K, K].
    """
    classes = sample.logits.shape[1]
    out = np.zeros(len(sample))
    for i, base in enumerate(sample.bases):
        x = centre(np.asarray(base), spec)[None]
        weight = np.full((1, classes), -1 / classes, np.float32)
        weight[0, verdict[i]] += 1
        slope = model.gradients(x, {"logits": weight})["input"][0]
        heat = np.abs(slope * x[0]).sum(axis=0)
        out[i] = float((heat * cover).sum() / max(float(heat.sum()), 1e-12))
    return out
