"""Probes and the out-of-distribution score, from activations; validation chooses the taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bundle.parts import Reference
from models.cnn.data import SplitArrays
from models.evaluation.ranking import auroc
from models.ood import OutOfDistributionScore, readout
from models.probes.probeset import ProbeSet
from models.vocabulary import Vocabulary
from models.voi import Preprocessing, centre
from services.training.activations import Activations


@dataclass(frozen=True)
class Detectors:
    """probe_taps: what probes and reference read. choices: joined tap names -> macro AUROC on
    validation.
    """

    probe_taps: list[str]
    probes: ProbeSet
    ood: OutOfDistributionScore
    reference: Reference
    choices: dict[str, float | None]


def fit_detectors(
    training: SplitArrays,
    validation: SplitArrays,
    at_training: Activations,
    at_validation: Activations,
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

    Only the lesions at `labelled` lend their feature labels; all of training is the unlabelled
    marginal and what 'similar lesions' looks at.
    """
    scored: list[tuple[float, tuple[str, ...], ProbeSet]] = []
    for taps in choices:
        h = at_training.joined(taps)
        probes = ProbeSet.fit(
            h[labelled],
            training.features[labelled],
            h,
            vocabulary.feature_ids,
            seed,
            validation=(at_validation.joined(taps), validation.features),
        )
        value = _macro(probes.probabilities(at_validation.joined(taps)), validation.features)
        scored.append((value, tuple(taps), probes))
    # The first of equals: choices are listed from the smallest.
    _, taps, probes = max(scored, key=lambda row: row[0] if np.isfinite(row[0]) else -1.0)
    probes = probes.measured(
        at_validation.joined(taps), validation.features, "validation", draws=bootstraps, seed=seed
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
        activations=at_training.joined(taps),
        lesion_ids=list(training.ids),
        class_ids=list(training.class_ids),
        features=[names if i in shown else [] for i, names in enumerate(present)],
    )
    return Detectors(
        probe_taps=list(taps),
        probes=probes,
        ood=ood,
        reference=reference,
        choices={"+".join(t): round(v, 6) if np.isfinite(v) else None for v, t, _ in scored},
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
