"""Relevance as a reader meets it: of features that were called found, there or not.

A feature that is not there weighs nothing in truth, and detection's mistakes become relevance's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.bundle.read import Bundle
from models.evaluation.classification import number
from models.evaluation.correlation import spearman_drawn
from models.evaluation.resampling import keyed, multiplicities
from models.relevance.directions import Directions
from models.trial.weighing import Question


def found_figures(
    question: Question, bundle: Bundle, directions: Directions, *, draws: int, seed: int
) -> dict[str, Any]:
    """Spearman over all pairs of lesion and found feature, plain and times its probability.

    The lesions are those that `question` knows the truth of.
    """
    test, target = question.test, directions.target
    rows = np.unique(question.lesion)
    measured = [bundle.measure(test.bases[i], test.sizes_mm[i]) for i in rows]
    averaged = {tap: values[rows] for tap, values in test.averaged.items()}
    h = bundle.probe_vector(averaged, np.stack(measured))
    probability, called = bundle.probes.probabilities(h), bundle.probes.found(h)
    called &= directions.counts > 0
    truth = np.zeros((len(test), len(directions.features)))
    truth[question.lesion, question.feature] = question.truth
    moves = directions.displacement({tap: values[rows] for tap, values in test.plain.items()})
    here = np.asarray(test.plain[target], np.float64)[rows, None]
    change = np.einsum(
        "nft,nt->nf", here - directions.without(here, moves), question.slopes[target][rows]
    )
    lesion, feature = np.nonzero(called)
    if len(lesion) == 0:
        return {"n_pairs": 0}
    w = multiplicities(len(rows), draws=draws, seed=seed)[:, lesion]
    true, said = truth[rows][lesion, feature], change[lesion, feature]
    sure = probability[lesion, feature]
    there = test.labels[rows][lesion, feature] == 1
    sizes = {
        key: number(float(np.abs(said[who]).mean()) if who.any() else float("nan"))
        for key, who in (("mean_size_present", there), ("mean_size_absent", ~there))
    }
    return {
        "n_pairs": len(lesion),
        "present": number(float(there.mean())),
        **keyed("spearman", spearman_drawn(said, true, w)),
        **keyed("spearman_times_probability", spearman_drawn(said * sure, true, w)),
        **sizes,
    }
