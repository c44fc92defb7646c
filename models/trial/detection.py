"""How well are features detected? Every detector on the same unseen lesions, compared in pairs.

Operating points of our probes come from the labelled training lesions alone (leave-one-lesion-out).
Validation labels choose the kind of the default probe and, in its favour, the thresholds of the
class-only control; each row says what it used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.calibration import softmax
from models.evaluation.classification import number
from models.evaluation.controls import best_f1_thresholds, class_only
from models.evaluation.detection import Detection, compare_detections, measure_detection
from models.evaluation.drawn import macro_auroc
from models.evaluation.multiplicity import corrected
from models.evaluation.resampling import Weights, difference, multiplicities
from models.probes.kde import SparseKDE
from models.probes.probeset import PROBES
from models.trial.data import Sample
from models.trial.experiment import Experiment, Reading
from models.trial.labelling import auroc_of_features
from models.trial.published import PUBLISHED

RIVALS = (*PUBLISHED, "class_only")  # what the default must beat
CONCEPT = "concept"  # tap of a network that was trained with concept supervision
TRADED = ("default", "all_labels", "measurements_only", "last_tap", "class_only")
DIALS = tuple(round(float(t), 3) for t in np.arange(0.05, 0.96, 0.05))


def measure_probes(
    experiment: Experiment,
    *,
    scar_class: int | None = None,
    concept: Experiment | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """'probes' (a row a detector), 'comparisons' of the default with its rivals,
    'comparisons_last_tap': of our probes on the published methods' activations and nothing else,
    'gain_over_class' by feature, 'trade_off'; JSON values.

    scar_class: see models.trial.published. concept: the same lesions through a network that was
    trained with concept supervision.
    """
    test = experiment.test
    readings = read_all(experiment, scar_class=scar_class)
    if concept is not None:
        readings["concept_supervised"] = _fitted(concept, (CONCEPT,), True)
    w = multiplicities(len(test), draws=draws, seed=seed)
    measured = {name: _measure(r, test, experiment.features, w) for name, r in readings.items()}
    rivals = {name: measured[name] for name in RIVALS if name in measured}
    patients = multiplicities(len(test), draws=draws, seed=seed, groups=test.patients)
    by_patient = {
        name: _measure(readings[name], test, experiment.features, patients)
        for name in ("default", *rivals)
    }
    return {
        "probes": {
            name: {**done.row, **_budget(readings[name])} for name, done in measured.items()
        },
        "comparisons": compare_detections(measured["default"], rivals),
        "comparisons_last_tap": compare_detections(measured["last_tap"], rivals),
        "comparisons_by_patient": compare_detections(
            by_patient["default"], {name: by_patient[name] for name in rivals}
        ),
        "gain_over_class": _gains(readings["default"], readings["class_only"], experiment, w),
        "trade_off": {name: trade_off(readings[name].scores, test.labels) for name in TRADED},
    }


def read_all(experiment: Experiment, *, scar_class: int | None = None) -> dict[str, Reading]:
    """Every detector by its row's name. The default comes first."""
    taps = experiment.taps
    evidence = experiment.evidence(taps)
    counts = [len(rows) for rows in experiment.labelled]
    fits = [experiment.fit(evidence, rows, only=None, choose=True) for rows in experiment.labelled]
    readings = {"default": experiment.read(evidence, fits, counts, validation_labels=True)}
    for kind in PROBES:
        of_kind = [replace(p, kinds=[kind] * len(p.kinds)) for p in fits]
        readings[kind] = experiment.read(evidence, of_kind, counts)
    readings["last_tap"] = _fitted(experiment, experiment.last, False)
    readings["sparse_kde"] = _sparse_kde(experiment)
    readings["taps_only"] = replace(
        _fitted(experiment, best_taps(experiment), False), validation_labels=True
    )
    readings["measurements_only"] = _fitted(experiment, (), True)
    everything = np.arange(len(experiment.training))
    ceiling = experiment.fit(evidence, everything)
    readings["all_labels"] = experiment.read(evidence, [ceiling], [len(everything)])
    readings["class_only"] = _class_only(experiment)
    readings |= _published(experiment, scar_class)
    return readings


def best_taps(experiment: Experiment) -> tuple[str, ...]:
    """The tap, or the two neighbouring ones, whose probes alone detect best on validation."""
    taps = tuple(experiment.training.averaged)
    choices = [(tap,) for tap in taps] + list(pairwise(taps))
    truth, values = experiment.validation.labels, []
    for chosen in choices:
        evidence = experiment.evidence(chosen, False)
        probes = experiment.fit(evidence, experiment.labelled[0])
        p = probes.probabilities(experiment.vectors(evidence, "validation"))
        value = float(macro_auroc(p, truth, np.ones((1, len(truth)), np.float32))[0])
        values.append(value if np.isfinite(value) else -1.0)
    return choices[int(np.argmax(values))]


def trade_off(
    scores: NDArray[np.float64], labels: NDArray[np.float64], dials: Sequence[float] = DIALS
) -> list[dict[str, Any]]:
    """Micro-averaged PPV and sensitivity while one threshold on the calibrated probability, the
    same for every feature, is turned. scores: [R, n, F], means over the draws.
    """
    known, there = np.isfinite(labels), labels == 1
    points = []
    for dial in dials:
        pairs = []
        for p in scores:
            called = (p >= dial) & known
            right = float((called & there).sum())
            pairs.append((right / max(called.sum(), 1), right / max(there.sum(), 1)))
        ppv, sensitivity = np.mean(pairs, axis=0)
        points.append(
            {
                "threshold": dial,
                "ppv": number(float(ppv)),
                "sensitivity": number(float(sensitivity)),
            }
        )
    return points


def _fitted(experiment: Experiment, taps: Sequence[str], measurements: bool) -> Reading:
    evidence = experiment.evidence(taps, measurements)
    fits = [experiment.fit(evidence, rows) for rows in experiment.labelled]
    return experiment.read(evidence, fits, [len(rows) for rows in experiment.labelled])


def _class_only(experiment: Experiment) -> Reading:
    """P(feature | class) of *all* training labels, and thresholds that are best on validation."""
    training = experiment.training.classes, experiment.training.labels

    def guess(split: Sample) -> NDArray[np.float64]:
        return class_only(softmax(split.pass_logits).mean(axis=1), *training)

    thresholds = best_f1_thresholds(guess(experiment.validation), experiment.validation.labels)
    scores = guess(experiment.test)
    return Reading(scores[None], (scores >= thresholds)[None], (len(experiment.training),), True)


def _sparse_kde(experiment: Experiment) -> Reading:
    """Kernel density ratios on the last tap; found above even odds."""
    evidence = experiment.evidence(experiment.last, False)
    h, test = (experiment.vectors(evidence, split) for split in ("training", "test"))
    labels = experiment.training.labels
    p = np.stack(
        [SparseKDE().fit(h[r], labels[r], h).predict_proba(test) for r in experiment.labelled]
    )
    return Reading(p, p > 0.5, tuple(len(rows) for rows in experiment.labelled))


def _published(experiment: Experiment, scar_class: int | None) -> dict[str, Reading]:
    """The published methods on the same lesions; nothing for samples without single passes."""
    if not experiment.test.passes:
        return {}
    readings = {}
    for name, method in PUBLISHED.items():
        more: Mapping[str, Any] = {"scar_class": scar_class} if name == "wang2019_gaussian" else {}
        done = [
            method(experiment.training, rows, experiment.test, experiment.features, **more)
            for rows in experiment.labelled
        ]
        readings[name] = Reading(
            np.stack([d.scores for d in done]),
            np.stack([d.found for d in done]),
            tuple(len(rows) for rows in experiment.labelled),
            probabilities=False,
        )
    return readings


def _gains(
    default: Reading, control: Reading, experiment: Experiment, w: Weights
) -> dict[str, dict[str, Any]]:
    """AUROC of each feature less that of the class-only control, paired; p corrected by Holm."""
    ours, theirs = (
        auroc_of_features(reading.scores, experiment.test.labels, w)
        for reading in (default, control)
    )
    return corrected(
        {name: difference(ours[:, f], theirs[:, f]) for f, name in enumerate(experiment.features)}
    )


def _measure(reading: Reading, test: Sample, features: Sequence[str], w: Weights) -> Detection:
    return measure_detection(
        reading.scores,
        reading.found,
        test.labels,
        features,
        w,
        classes=test.classes,
        probabilities=reading.probabilities,
    )


def _budget(reading: Reading) -> dict[str, Any]:
    return {
        "labelled_lesions": list(reading.labelled),
        "validation_labels": reading.validation_labels,
    }
