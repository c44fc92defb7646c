"""Fit what judges a verdict: training labels and images teach, validation lesions join and set the
operating point. Test lesions have no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle.judges import Judges, ReviewQuality
from models.cnn.data import SplitArrays
from models.cnn.export import open_session
from models.consistency.features import READER_ERROR, FeatureModel
from models.consistency.image import ImageExpert
from models.consistency.review import Opinions, ReviewModel, held_out
from models.consistency.surroundings import wiped
from models.evaluation.calibration import softmax
from models.evaluation.ranking import auroc, auroc_interval
from models.vocabulary import Vocabulary
from models.voi import Preprocessing, centre
from services.training.activations import Activations
from services.training.detectors import Detectors


def fit_judges(
    classifier: Path,
    training: SplitArrays,
    validation: SplitArrays,
    at_validation: Activations,
    measured: tuple[NDArray[np.float32], NDArray[np.float32]],
    measurements: Sequence[str],
    labelled: NDArray[np.int64],
    detectors: Detectors,
    vocabulary: Vocabulary,
    temperature: float,
    spec: Preprocessing,
    *,
    bootstraps: int,
    seed: int,
) -> Judges:
    """What a bundle holds to judge its own verdicts.

    classifier: the ONNX graph. measured: image measurements of training and validation lesions,
    named `measurements`; none at all: no opinion of the image. labelled: the training lesions that
    lend their feature labels, as for the probes; the classes of all of them are used.
    """
    model = FeatureModel.fit(
        training.features[labelled],
        training.classes[labelled],
        vocabulary.class_ids,
        vocabulary.feature_ids,
    )
    image = None
    if len(measurements):
        image = ImageExpert.fit(
            measured[0], training.classes, vocabulary.class_ids, measurements, seed
        )
    shares = {
        "network": np.stack(
            [softmax(z / temperature).mean(axis=0) for z in at_validation.passes["logits"]]
        ),
        "surroundings": softmax(wiped_logits(classifier, validation, spec) / temperature),
    }
    if image is not None:
        shares["image"] = image.posterior(measured[1])
    ood = detectors.ood
    x = np.stack([centre(base, spec) for base in validation.bases])
    ratios = ood.scores(ood.read(at_validation.plain, x)) / ood.threshold
    joined = detectors.evidence.join(at_validation.averaged, measured[1])
    evidence = {
        "probes": model.from_probes(detectors.probes.probabilities(joined)),
        "reader": model.from_statuses(misread(validation.features, validation.ids, seed)),
    }
    opinions = {
        source: Opinions({**shares, "features": model.posterior(e)}, ratios)
        for source, e in evidence.items()
    }
    review = ReviewModel.fit(opinions, validation.classes, seed)
    quality = {s: _quality(o, validation.classes, bootstraps, seed) for s, o in opinions.items()}
    return Judges(model, image, review, quality)


def wiped_logits(classifier: Path, split: SplitArrays, spec: Preprocessing) -> NDArray[np.float32]:
    """Logits of the plain view without its surroundings, [n, C]."""
    session = open_session(classifier)
    rows = []
    for base, size in zip(split.bases, split.sizes_mm, strict=True):
        x = centre(wiped(base, size, spec), spec)[None]
        rows.append(session.run(["logits"], {"x": x})[0][0])
    return np.stack(rows)


def misread(
    labels: NDArray[np.floating], ids: Sequence[str], seed: int, share: float = READER_ERROR
) -> NDArray[np.float64]:
    """True statuses [n, F] with a share of them wrong: what a reader may say of these lesions.

    A lesion's errors depend on its id and the seed, not on its place.
    """
    out = np.array(labels, dtype=np.float64)
    for row, name in enumerate(ids):
        rng = np.random.default_rng([seed, 32, *name.encode("utf-8")])
        wrong = rng.random(out.shape[1]) < share
        out[row, wrong] = 1 - out[row, wrong]
    return out


def _quality(
    opinions: Opinions, classes: NDArray[np.int64], bootstraps: int, seed: int
) -> ReviewQuality:
    """Of the pool on held-out folds, without strangeness, which nothing was fitted for."""
    odds, wrong = held_out(opinions, classes, seed), opinions.verdict != classes
    value = auroc(odds, wrong)
    ci = auroc_interval(odds, wrong, draws=bootstraps, seed=seed)
    return ReviewQuality(
        round(value, 6) if np.isfinite(value) else None,
        None if ci is None else (round(ci[0], 6), round(ci[1], 6)),
        len(classes),
        "validation",
    )
