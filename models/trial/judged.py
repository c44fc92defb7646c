"""Lesions as a bundle's judges see them: the verdict, every opinion on it, and who was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.consistency.review import Opinions, Verdicts
from models.consistency.surroundings import wiped
from models.errors import BundleError
from models.evaluation.calibration import softmax
from models.model import Model
from models.trial.data import Sample
from models.voi import centre

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """n lesions and what one bundle makes of them.

    classes: true index, another than any class's for one that is not among them [n]. labels: true
    features [n, F]. opinions: with the probes' features. probabilities, found: of the probes
    [n, F]. spread: mean standard deviation of the class shares over passes [n]. members: mean class
    shares of an ensemble that the network belongs to [n, C], where there is one.
    """

    bundle: Bundle
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    classes: NDArray[np.int64]
    labels: Array
    opinions: Opinions
    probabilities: Array
    found: NDArray[np.bool_]
    spread: Array
    plain: Array
    members: Array | None = field(default=None)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        return np.asarray(self.opinions.verdict != self.classes)

    def verdicts(self) -> Verdicts:
        """With the features of the probes."""
        assert self.bundle.judges is not None
        return self.bundle.judges.review.judge(self.opinions, "probes")

    def with_reader(self, error: float, seed: int) -> Verdicts:
        """With true features in place of a reader's, a share `error` of the statements wrong.

        A lesion's errors follow from its id; a larger share holds the smaller's errors too.
        """
        assert self.bundle.judges is not None
        judges = self.bundle.judges
        told = np.array(self.labels)
        for row, name in enumerate(self.ids):
            rng = np.random.default_rng([seed, 33, *name.encode("utf-8")])
            slips = rng.random(told.shape[1]) < error
            told[row, slips] = 1 - told[row, slips]
        features = judges.features.posterior(judges.features.from_statuses(told))
        shares = {**self.opinions.shares, "features": features}
        return judges.review.judge(Opinions(shares, self.opinions.ratios), "reader")


def judge(
    sample: Sample,
    bundle: Bundle,
    model: Model,
    members: NDArray[Any] | None = None,
    temperatures: Sequence[float] = (),
) -> Judged:
    """sample: lesions through the network of `bundle`, which is `model`. members: plain logits of
    other networks on the same lesions [S, n, C], temperatures: their own.

    Raises BundleError for a bundle without judges.
    """
    judges = bundle.judges
    if judges is None:
        raise BundleError(
            "the bundle holds no review score", code="bundle_manifest", field="review"
        )
    spec, pairs = bundle.preprocessing, list(zip(sample.bases, sample.sizes_mm, strict=True))
    measured = np.stack([bundle.measure(np.asarray(b), s) for b, s in pairs])
    without = [
        model.forward(centre(wiped(np.asarray(b), s, spec), spec)[None], ["logits"])["logits"][0]
        for b, s in pairs
    ]
    x = np.stack([centre(np.asarray(b), spec) for b in sample.bases])
    ratios = bundle.ood.scores(bundle.ood.read(sample.plain, x)) / bundle.ood.threshold
    h = bundle.evidence.join(sample.averaged, measured)
    probabilities = bundle.probes.probabilities(h)
    passes = bundle.probabilities(sample.pass_logits)
    plain = bundle.probabilities(sample.logits)
    shares = {
        "network": passes.mean(axis=1),
        "surroundings": bundle.probabilities(np.stack(without)),
        "features": judges.features.posterior(judges.features.from_probes(probabilities)),
    }
    if (image := judges.image) is not None:
        phases = bundle.manifest.phases
        read = measured
        if list(image.names) != bundle.manifest.measurements:
            read = np.stack([image.measure(np.asarray(b), s, spec, phases) for b, s in pairs])
        shares["image"] = image.posterior(read)
    together = None
    if members is not None and len(members):
        warmth = np.asarray(temperatures or np.ones(len(members)))[:, None, None]
        together = (softmax(members / warmth).sum(axis=0) + plain) / (len(members) + 1)
    return Judged(
        bundle=bundle,
        ids=sample.ids,
        patients=sample.patients,
        classes=np.asarray(sample.classes),
        labels=np.asarray(sample.labels, dtype=np.float64),
        opinions=Opinions(shares, ratios),
        probabilities=probabilities,
        found=bundle.probes.found(h),
        spread=passes.std(axis=1).mean(axis=1),
        plain=plain,
        members=together,
    )
