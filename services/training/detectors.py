"""Probes and the out-of-distribution score, from activations and image measurements.

What each step may look at: the labelled lesions fit the probes, calibrate them and set their
operating points (leave-one-lesion-out); unlabelled training lesions give means, covariances and the
marginal; the labels of validation lesions choose between taps and between kinds of probe, which is
the one place where more labels than those of the labelled lesions enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bundle.parts import Reference
from models.cnn.data import SplitArrays
from models.evaluation.ranking import auroc
from models.imaging.measurements import names as measurement_names
from models.ood import OutOfDistributionScore, readout
from models.probes.evidence import Evidence
from models.probes.probeset import FEW_SHOT, ProbeSet
from models.vocabulary import Vocabulary
from models.voi import Preprocessing, centre
from services.training.activations import Activations


@dataclass(frozen=True)
class Detectors:
    """evidence: what probes read; the reference keeps its taps. choices: joined tap names -> macro
    AUROC on validation.
    """

    evidence: Evidence
    probes: ProbeSet
    ood: OutOfDistributionScore
    reference: Reference
    choices: dict[str, float | None]

    @property
    def probe_taps(self) -> list[str]:
        return list(self.evidence.taps)


def fit_detectors(
    training: SplitArrays,
    validation: SplitArrays,
    at_training: Activations,
    at_validation: Activations,
    measured: tuple[NDArray[np.float32], NDArray[np.float32]],
    labelled: NDArray[np.int64],
    vocabulary: Vocabulary,
    choices: Sequence[Sequence[str]],
    spec: Preprocessing,
    *,
    ood_quantile: float,
    bootstraps: int,
    seed: int,
) -> Detectors:
    """Fit probes for every choice of taps, keep the one that detects best on validation.

    measured: image measurements of training and validation lesions, [n, m] (measure_split). Only
    the lesions at `labelled` lend their feature labels; all of training is the unlabelled marginal
    and what 'similar lesions' looks at.
    """
    lengths = {tap: values.shape[1] for tap, values in at_training.averaged.items()}
    names = measurement_names(tuple(vocabulary.phase_ids))

    def fit(evidence: Evidence, only: Sequence[str] | None) -> tuple[ProbeSet, NDArray]:
        h = evidence.join(at_training.averaged, measured[0])
        held = evidence.join(at_validation.averaged, measured[1])
        probes = ProbeSet.fit(
            h[labelled],
            training.features[labelled],
            h,
            vocabulary.feature_ids,
            seed,
            evidence=evidence,
            only=only,
            validation=(held, validation.features),
        )
        return probes, held

    scored: list[tuple[float, Evidence]] = []
    for taps in choices:
        evidence = Evidence.of(taps, lengths, names)
        probes, held = fit(evidence, (FEW_SHOT,))
        scored.append((_macro(probes.probabilities(held), validation.features), evidence))
    # The first of equals: choices are listed from the smallest.
    _, evidence = max(scored, key=lambda row: row[0] if np.isfinite(row[0]) else -1.0)
    probes, held = fit(evidence, None)
    probes = probes.measured(
        held,
        validation.features,
        "validation",
        classes=validation.classes,
        draws=bootstraps,
        seed=seed,
    )
    # Every tap: a choice of probes must not decide what can be seen to be strange.
    every = list(at_training.plain)
    ood = OutOfDistributionScore.fit(
        every,
        _readout(at_training, training, spec, every),
        _readout(at_validation, validation, spec, every),
        ood_quantile,
        training.class_ids,
    )
    shown = set(labelled.tolist())
    present = training.present(vocabulary)
    reference = Reference(
        activations=at_training.joined(evidence.taps),
        lesion_ids=list(training.ids),
        class_ids=list(training.class_ids),
        features=[names if i in shown else [] for i, names in enumerate(present)],
    )
    return Detectors(
        evidence=evidence,
        probes=probes,
        ood=ood,
        reference=reference,
        choices={"+".join(e.taps): round(v, 6) if np.isfinite(v) else None for v, e in scored},
    )


def _readout(
    at: Activations, split: SplitArrays, spec: Preprocessing, taps: Sequence[str]
) -> NDArray[np.float64]:
    """What the out-of-distribution score reads, a lesion at a time: tensors take memory. [n, D]"""
    rows = [
        readout({t: at.plain[t][i : i + 1] for t in taps}, centre(base, spec)[None], taps)
        for i, base in enumerate(split.bases)
    ]
    return np.concatenate(rows)


def _macro(probabilities: NDArray, labels: NDArray) -> float:
    """Mean AUROC over the features for which it is defined; NaN where there is none."""
    values = []
    for p, y in zip(probabilities.T, labels.T, strict=True):
        known = np.isfinite(y)
        value = auroc(p[known], y[known] == 1)
        if np.isfinite(value):
            values.append(value)
    return float(np.mean(values)) if values else float("nan")
