"""What labels are worth: how they are collected, how many, where they are seen, and what a probe
makes of labels that mean nothing.

All fits are of the default's own kind ('whitened'), each with labels of training lesions alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.classification import number
from models.evaluation.controls import best_f1_thresholds
from models.evaluation.correlation import multiple_correlation
from models.evaluation.detection import FIGURES, Detection, measure_detection
from models.evaluation.drawn import auroc_drawn, per_feature
from models.evaluation.multiplicity import corrected
from models.evaluation.resampling import Weights, difference, keyed, multiplicities
from models.probes.evidence import Evidence
from models.probes.labelling import choose_any, choose_labelled, positives_only
from models.probes.probeset import ProbeSet
from models.trial.experiment import Experiment

SIZES = (2, 5, 10, 20, 50)  # labelled lesions a feature


def protocols(experiment: Experiment, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The same budget spent in three ways, and the ceiling; the first is the default's.

    every_feature: ten lesions that show each feature, every feature labelled on each of them.
    any_lesions: as many lesions at random, every feature labelled: nobody needs to know beforehand
    what a lesion shows. positives_only: ten lesions a feature count as present, and every other
    training lesion, whatever it shows, as absent; since its probabilities then mean nothing, its
    thresholds are those with the best F1 on validation, in its favour. Each as detectors read it
    with image measurements and without ('_taps').
    """
    w = multiplicities(len(experiment.test), draws=draws, seed=seed)
    rows: dict[str, Any] = {}
    for suffix, evidence in (
        ("", experiment.evidence(experiment.taps)),
        ("_taps", experiment.evidence(experiment.taps, False)),
    ):
        measured = {
            name: _measure(experiment, evidence, fits, w, name == "positives_only")
            for name, fits in _protocol_fits(experiment, evidence).items()
        }
        first = measured["every_feature"]
        for name, done in measured.items():
            rows[name + suffix] = _short(done)
            if done is not first:
                rows[name + suffix]["less_than_every_feature"] = {
                    figure: difference(first.drawn[figure], done.drawn[figure])
                    for figure in FIGURES
                }
    return rows


def _protocol_fits(experiment: Experiment, evidence: Evidence) -> dict[str, list[ProbeSet]]:
    labels = experiment.training.labels
    everything = np.arange(len(labels))
    return {
        "every_feature": [experiment.fit(evidence, rows) for rows in experiment.labelled],
        "any_lesions": [
            experiment.fit(evidence, choose_any(labels, len(rows), s))
            for rows, s in zip(experiment.labelled, experiment.seeds, strict=True)
        ],
        "positives_only": [
            experiment.fit(
                evidence, everything, labels=positives_only(labels, experiment.budget, s)
            )
            for s in experiment.seeds
        ],
    }


def learning_curve(
    experiment: Experiment, sizes: Sequence[int] = SIZES, *, draws: int = 500, seed: int = 0
) -> list[dict[str, Any]]:
    """A point for each number of labelled lesions a feature. A size that the training lesions can't
    give for every feature takes what there is.
    """
    w = multiplicities(len(experiment.test), draws=draws, seed=seed)
    evidence, points = experiment.evidence(experiment.taps), []
    for size in sizes:
        chosen = [choose_labelled(experiment.training.labels, size, s) for s in experiment.seeds]
        done = _measure(
            experiment, evidence, [experiment.fit(evidence, rows) for rows in chosen], w
        )
        lesions = float(np.mean([len(rows) for rows in chosen]))
        points.append({"per_feature": size, "labelled_lesions": round(lesions, 1), **_short(done)})
    return points


def selectivity(experiment: Experiment, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The default against itself with labels dealt out to the wrong lesions (a control task after
    Hewitt & Liang 2019, doi 10.18653/v1/D19-1275): what a probe can make of nothing.

    selectivity: the difference in macro AUROC. found: features that the control finds a lesion.
    ever_found: share of (draw, feature) that it could find at all; its budget is FALSE_FINDS.
    """
    w = multiplicities(len(experiment.test), draws=draws, seed=seed)
    evidence = experiment.evidence(experiment.taps)
    true, false = [], []
    for rows, s in zip(experiment.labelled, experiment.seeds, strict=True):
        true.append(experiment.fit(evidence, rows))
        labels = experiment.training.labels[rows]
        order = np.random.default_rng([s, 16]).permutation(len(rows))
        false.append(experiment.fit(evidence, rows, labels=labels[order]))
    real, control = (_measure(experiment, evidence, fits, w) for fits in (true, false))
    found = experiment.read(evidence, false, [len(r) for r in experiment.labelled]).found
    per_feature = {
        name: {"control_auroc": row["auroc"], "control_auroc_ci": row["auroc_ci"]}
        for name, row in control.row["per_feature"].items()
    }
    return {
        "selectivity": difference(real.drawn["macro_auroc"], control.drawn["macro_auroc"]),
        **keyed("control_macro_auroc", control.drawn["macro_auroc"]),
        "found": round(float(found.sum(axis=2).mean()), 4),
        "ever_found": round(float(np.mean([(p.thresholds < 1) for p in false])), 4),
        "per_feature": per_feature,
    }


def by_tap(experiment: Experiment, *, draws: int = 500, seed: int = 0) -> dict[str, Any]:
    """Which tap sees a feature best: probes on each tap alone, and on image measurements alone.

    best: the tap with the highest AUROC. lead: of it over the last tap, paired, with p corrected
    over features by Holm (a best of several is flattered by chance: the correction covers features,
    not taps). correlation: cross-validated multiple correlation R of the last tap's activations
    with the feature, on test lesions.
    """
    test = experiment.test
    w = multiplicities(len(test), draws=draws, seed=seed)
    taps = list(experiment.training.averaged)
    sources = {tap: experiment.evidence((tap,), False) for tap in taps}
    sources["measurements"] = experiment.evidence((), True)
    rows, aurocs = {}, {}
    for name, evidence in sources.items():
        fits = [experiment.fit(evidence, rows) for rows in experiment.labelled]
        rows[name] = _short(_measure(experiment, evidence, fits, w))
        aurocs[name] = auroc_of_features(
            experiment.read(evidence, fits, [0] * len(fits)).scores, test.labels, w
        )
    last = taps[-1]
    found: dict[str, Any] = {}
    leads: dict[str, Any] = {}
    for f, feature in enumerate(experiment.features):
        values = {name: number(float(a[0, f])) for name, a in aurocs.items()}
        known = {tap: values[tap] for tap in taps if values[tap] is not None}
        best = max(known, key=lambda tap: known[tap] or 0.0) if known else last
        r = multiple_correlation(
            test.averaged[last], test.labels[:, f], test.patients, w, seed=seed
        )
        leads[feature] = difference(aurocs[best][:, f], aurocs[last][:, f])
        found[feature] = {"auroc": values, "best": best, **keyed("correlation", r)}
    for feature, lead in corrected(leads).items():
        found[feature]["lead"] = lead
    return {"sources": rows, "per_feature": found}


def auroc_of_features(
    scores: NDArray[np.float64], labels: NDArray[np.float64], w: Weights
) -> NDArray[np.float64]:
    """[R, n, F] -> [B, F], the mean over the draws of labels."""
    return np.mean([per_feature(auroc_drawn, s, labels, w) for s in scores], axis=0)


def _measure(
    experiment: Experiment,
    evidence: Evidence,
    fits: Sequence[ProbeSet],
    w: Weights,
    by_validation: bool = False,
) -> Detection:
    """by_validation: thresholds with the best F1 on validation, in place of the probes' own."""
    read, test = experiment.read(evidence, fits, [0] * len(fits)), experiment.test
    found = read.found
    if by_validation:
        h, truth = experiment.vectors(evidence, "validation"), experiment.validation.labels
        cuts = [best_f1_thresholds(probes.probabilities(h), truth) for probes in fits]
        found = read.scores >= np.stack(cuts)[:, None]
    return measure_detection(
        read.scores, found, test.labels, experiment.features, w, classes=test.classes
    )


def _short(done: Detection) -> dict[str, Any]:
    """The row without its features."""
    return {k: v for k, v in done.row.items() if k != "per_feature"}
