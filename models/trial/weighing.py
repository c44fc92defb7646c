"""Every way of saying how much a feature weighs, asked of the same lesion-feature pairs.

A row is a number a pair: the change of the predicted class's centred logit that the feature's
presence is said to make. The truth is what the network does when the feature is switched off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.model import Model
from models.recipes import CHUNK
from models.relevance.directions import Directions
from models.relevance.first_order import along, projected_out, to_absent_mean
from models.relevance.removal import centred
from models.trial.data import Pairs, Sample
from models.voi import centre

Row = NDArray[np.float64]  # [k]


@dataclass(frozen=True)
class Question:
    """k pairs to weigh. lesion, feature: [k], rows of `test` and indices of features. predicted:
    class index [k]. truth: [k], and of every class [k, C]. slopes: tap -> [n, D_tap], gradient of
    the predicted class's centred logit at the plain view of each lesion.
    """

    test: Sample
    lesion: NDArray[np.int64]
    feature: NDArray[np.int64]
    predicted: NDArray[np.int64]
    truth: Row
    truth_by_class: NDArray[np.float64]
    slopes: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.lesion)

    def pick(self, values: NDArray[Any]) -> Row:
        """[n, F] -> [k], of each pair's lesion and feature."""
        return np.asarray(values[self.lesion, self.feature], dtype=np.float64)


def ask(test: Sample, truth: Pairs, bundle: Bundle, model: Model) -> Question:
    """The pairs of `truth` (features that are present), with gradients of their lesions."""
    change = centred(test.logits[truth.lesion]) - centred(truth.logits)
    predicted = np.asarray(test.logits.argmax(axis=1))
    mine = predicted[truth.lesion]
    return Question(
        test=test,
        lesion=np.asarray(truth.lesion),
        feature=np.asarray(truth.feature),
        predicted=mine,
        truth=change[np.arange(len(mine)), mine],
        truth_by_class=change,
        slopes=_slopes(test, predicted, np.unique(truth.lesion), bundle, model),
    )


def _slopes(
    test: Sample,
    predicted: NDArray[np.int64],
    rows: NDArray[np.int64],
    bundle: Bundle,
    model: Model,
) -> dict[str, NDArray[np.float64]]:
    """Zero for lesions that no pair asks of."""
    taps, classes = model.info.taps, len(model.info.classes)
    weights = (np.eye(classes) - 1.0 / classes).astype(np.float32)
    out = {tap: np.zeros((len(test), width)) for tap, width in taps.items()}
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        x = np.stack([centre(test.bases[i], bundle.preprocessing) for i in some])
        found = model.gradients(x, {"logits": weights[predicted[some]]})
        for tap in taps:
            out[tap][some] = found[tap]
    return out


def by_removal(question: Question, directions: Directions, *, mean: bool = False) -> Row:
    """Removal in activations, displaced as paired examples of lesions like this one were; or, with
    `mean`, by their mean difference, the same for every lesion.
    """
    test, target = question.test, directions.target
    every = directions.displacement(test.plain)[question.lesion, question.feature]
    moved = directions.moves[question.feature] if mean else every
    here = np.asarray(test.plain[target], np.float64)[question.lesion]
    gone = directions.without(here, moved)
    return np.asarray(np.einsum("kd,kd->k", here - gone, question.slopes[target][question.lesion]))


def half_widths(question: Question, directions: Directions) -> Row:
    """Half of the 95 % interval that `by_removal` comes with."""
    rows, back = np.unique(question.lesion, return_inverse=True)
    half = directions.half_width(question.slopes[directions.target][rows])  # [F, lesions]
    return np.asarray(half[question.feature, back])


def by_probe(question: Question, bundle: Bundle, absent: NDArray[np.bool_]) -> dict[str, Row]:
    """The forms that need a probe and no pairs, at the plain view and the probe taps.

    absent: [n, F], lesions of `test` that the probe does not find the feature on: what the
    conditional mean is of.
    """
    evidence, probes, test = bundle.evidence, bundle.probes, question.test
    width, taps = evidence.tap_length, len(evidence.taps)
    slopes = evidence.tap_vector(question.slopes)
    scale = probes.scale[:width].astype(np.float64)
    z = (evidence.tap_vector(test.plain) - probes.mean[:width]) / scale
    kinds = [probes.probes[kind] for kind in probes.kinds]
    weights = np.array([p.weights[f, :width] for f, p in enumerate(kinds)], dtype=np.float64)
    bias = np.array([p.bias[f] for f, p in enumerate(kinds)], dtype=np.float64)
    norm = np.linalg.norm(weights, axis=1, keepdims=True)
    unit = np.divide(weights, norm, out=np.zeros_like(weights), where=norm > 0)
    steps = np.array([probes.direction(f)[:width] for f in range(len(kinds))], dtype=np.float64)
    score = z @ weights.T + bias
    silent = absent & np.isfinite(score)
    mean = (score * silent).sum(axis=0) / np.maximum(silent.sum(axis=0), 1)
    away = projected_out(z, weights, bias)
    toward = to_absent_mean(z, weights, bias, steps / scale, mean)
    rows = {
        "first_order": along(slopes, steps, taps),
        "probe_gradient": along(slopes, unit * scale, taps),
        "projected_out": along(slopes, away * scale, taps),
        "absent_mean": along(slopes, toward * scale, taps),
    }
    return {name: question.pick(values) for name, values in rows.items()}


def class_prior(
    question: Question, classes: NDArray[np.int64], labels: NDArray[np.floating]
) -> Row:
    """log P(f | predicted class) / P(f) from training labels: needs no network at all.

    classes: [m]. labels: [m, F], NaN not assessed. With one imagined lesion of each status.
    """

    def share(rows: NDArray[np.floating]) -> NDArray[np.float64]:
        return (np.nansum(rows, axis=0) + 1) / (np.isfinite(rows).sum(axis=0) + 2)

    count = question.truth_by_class.shape[1]
    given = np.stack([share(labels[classes == c]) for c in range(count)])
    return np.asarray(np.log(given / share(labels))[question.predicted, question.feature])


def shuffled(question: Question, directions: Directions, seed: int) -> Row:
    """A control: each pair is weighed by the direction of another feature, drawn at random."""
    rng = np.random.default_rng([seed, 0x5EED])
    count = len(directions.features)
    other = (question.feature + rng.integers(1, max(count, 2), len(question))) % max(count, 1)
    wrong = Question(**{**vars(question), "feature": other})
    return by_removal(wrong, directions)
