"""The review flag of one lesion, and in words why it was raised, the weightiest reason first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.judges import Judges
from models.consistency.reasons import REASONS, reasons
from models.consistency.review import Opinions
from models.reasons.rounding import decimals
from models.reasons.words import join_words, some
from models.vocabulary import Vocabulary
from wire.explanation import (
    Consistency,
    FeatureSource,
    OutOfDistribution,
    Prediction,
    Review,
    ReviewReason,
)

# Share of the other class's probability above which features do not decide between the two.
EVEN = 0.67


def review(
    judges: Judges,
    shares: Mapping[str, NDArray[Any]],
    fit: Consistency,
    prediction: Prediction,
    ood: OutOfDistribution,
    classes: Sequence[str],
    vocabulary: Vocabulary,
) -> Review:
    """shares: expert -> class probabilities [C], the features' too. fit: what was said of them.

    The flag is decided on the rounded numbers, so that the document agrees with itself.
    """
    ratio = ood.score / ood.threshold if ood.threshold > 0 else 1.0
    said = Opinions({e: np.asarray(p)[None] for e, p in shares.items()}, np.array([ratio]))
    seen = judges.review.judge(said, fit.source)
    kind: FeatureSource = "reader" if fit.source == "report" else fit.source
    score = decimals(seen.score[0])
    threshold = decimals(judges.review.joined[kind].threshold)
    flagged = score > threshold
    chosen = classes.index(prediction.class_id)
    quality = judges.quality.get(kind)
    return Review(
        flagged=flagged,
        score=score,
        threshold=threshold,
        source=fit.source,
        reasons=[
            ReviewReason(code=code, text=_text(code, classes[other], fit, prediction, vocabulary))
            for code, other in reasons(seen, said)
        ]
        if flagged
        else [],
        components={
            **{e: decimals(float(np.asarray(p)[chosen])) for e, p in shares.items()},
            "out_of_distribution": decimals(ratio),
        },
        auroc=None if quality is None or quality.auroc is None else decimals(quality.auroc, 3),
        ci=None
        if quality is None or quality.ci is None
        else (decimals(quality.ci[0], 3), decimals(quality.ci[1], 3)),
        n=0 if quality is None else quality.n,
        split="" if quality is None else quality.split,
    )


def _text(
    code: str, other: str, fit: Consistency, prediction: Prediction, vocabulary: Vocabulary
) -> str:
    label = vocabulary.lesion_class(other).label
    text = REASONS[code].format(verdict=prediction.label, other=label)
    if code != "features_disagree":
        return text
    whose = {
        "probes": "The features that the network shows",
        "reader": "The reader’s features",
        "report": "The report’s features",
    }[fit.source]
    text = text.replace("The features", whose, 1)
    shares = {p.id: p.probability for p in fit.probabilities}
    if shares[prediction.class_id] > EVEN * shares[other]:
        text = f"{whose} do not decide between {prediction.label} and {label}."
    parts = []
    if fit.expected_missing:
        names = [vocabulary.feature(f).label for f in fit.expected_missing]
        whom = vocabulary.lesion_class(prediction.class_id).plural
        parts.append(f"{some(names)}, expected in {whom}, {_be(names)} not found")
    if fit.speaks_for_others:
        names = [vocabulary.feature(f).label for f in fit.speaks_for_others]
        found = dict.fromkeys(fit.speaks_for_others.values())
        plural = join_words([vocabulary.lesion_class(c).plural for c in found])
        parts.append(f"{some(names)} {_be(names)} rather seen in {plural}")
    return f"{text.removesuffix('.')}: {'; '.join(parts)}." if parts else text


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
