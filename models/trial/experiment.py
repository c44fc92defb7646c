"""What experiments on detection share: three splits of one network, and fits of probes to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.imaging.measurements import measure, names
from models.probes.evidence import Evidence
from models.probes.labelling import choose_labelled
from models.probes.probeset import FEW_SHOT, ProbeSet
from models.trial.data import Sample
from models.voi import Preprocessing

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Reading:
    """A detector on the test lesions, once for each labelling draw.

    scores, found: [R, n, F]. labelled: training lesions whose feature labels it learned from, a
    number a draw; validation_labels: whether those of validation lesions chose anything.
    """

    scores: NDArray[np.float64]
    found: NDArray[np.bool_]
    labelled: tuple[int, ...]
    validation_labels: bool = False
    probabilities: bool = True


@dataclass(frozen=True)
class Experiment:
    """training, validation, test: of one network. taps: those that the default probes read.
    budget: labelled lesions a feature. seeds: one labelling draw each.
    """

    training: Sample
    validation: Sample
    test: Sample
    features: tuple[str, ...]
    taps: tuple[str, ...]
    phases: tuple[str, ...]
    spec: Preprocessing = field(default_factory=Preprocessing)
    budget: int = 10
    seeds: tuple[int, ...] = (0, 1, 2)

    @cached_property
    def measured(self) -> dict[str, NDArray[np.float32]]:
        """Image measurements [n, m] of each split."""
        return {
            name: np.stack(
                [
                    measure(base, size, self.spec, self.phases)
                    for base, size in zip(split.bases, split.sizes_mm, strict=True)
                ]
            )
            for name, split in self._splits.items()
        }

    @cached_property
    def labelled(self) -> list[Rows]:
        """The training lesions to label, one array a draw."""
        return [choose_labelled(self.training.labels, self.budget, s) for s in self.seeds]

    @property
    def last(self) -> tuple[str]:
        """The last hidden layer, which the published methods read."""
        return (list(self.training.averaged)[-1],)

    def evidence(self, taps: Sequence[str], measurements: bool = True) -> Evidence:
        lengths = {tap: values.shape[1] for tap, values in self.training.averaged.items()}
        return Evidence.of(taps, lengths, names(self.phases) if measurements else ())

    def vectors(self, evidence: Evidence, split: str) -> NDArray[np.float32]:
        """What probes read of a split, [n, D]."""
        measured = self.measured[split] if evidence.measurements else None
        if not evidence.taps:
            return self.measured[split]
        return evidence.join(self._splits[split].averaged, measured)

    def fit(
        self,
        evidence: Evidence,
        rows: Rows,
        *,
        labels: NDArray[np.float64] | None = None,
        only: Sequence[str] | None = (FEW_SHOT,),
        choose: bool = False,
    ) -> ProbeSet:
        """Probes of the training lesions at `rows`; labels: theirs, in place of the true ones.

        only: kinds to fit. choose: validation decides between them.
        """
        h = self.vectors(evidence, "training")
        held = self.vectors(evidence, "validation"), self.validation.labels
        return ProbeSet.fit(
            h[rows],
            self.training.labels[rows] if labels is None else labels,
            h,
            self.features,
            0,
            evidence=evidence,
            only=only,
            validation=held if choose else None,
        )

    def read(
        self,
        evidence: Evidence,
        fits: Sequence[ProbeSet],
        labelled: Sequence[int],
        *,
        validation_labels: bool = False,
    ) -> Reading:
        """Fitted probes on the test lesions, one fit a draw. labelled: lesions that each used."""
        h = self.vectors(evidence, "test")
        return Reading(
            np.stack([p.probabilities(h) for p in fits]),
            np.stack([p.found(h) for p in fits]),
            tuple(labelled),
            validation_labels,
        )

    @property
    def _splits(self) -> dict[str, Sample]:
        return {"training": self.training, "validation": self.validation, "test": self.test}
