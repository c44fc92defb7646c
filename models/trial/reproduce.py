"""The experiment of Wang et al. 2019 again: its split, its counts, its tables, with intervals.

A *run* is a network trained anew, ten lesions a feature drawn anew for labels, and what each
detector then says of the test lesions, which are the same in all runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.evaluation.classification import number
from models.evaluation.drawn import macro_auroc, within_class
from models.evaluation.resampling import Drawn, Weights, difference, interval, multiplicities

# Wang et al. 2019 (Eur Radiol 29:3348) and SPIE 10950 (2019); what a paper does not say is absent.
PUBLISHED: dict[str, dict[str, float]] = {
    "wang2019_gaussian": {
        "accuracy": 0.880,
        "micro_ppv": 0.765,
        "micro_sensitivity": 0.829,
        "sensitivity_misclassified": 0.604,
        "sensitivity_correct": 0.856,
        "true_features": 154,
    },
    "spie_rodeo": {"accuracy": 0.897, "micro_ppv": 0.722, "micro_sensitivity": 0.826},
}


@dataclass(frozen=True)
class Answer:
    """One detector on the test lesions of one run. scores [n, F]: for AUROC, None where the
    detector only names; found [n, F]; first [n]: the feature named first, -1 for none.
    """

    scores: NDArray[np.float64]
    found: NDArray[np.bool_]
    first: NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """predicted: class index of each test lesion [n]. answers: detector -> what it says."""

    predicted: NDArray[np.int64]
    answers: Mapping[str, Answer]


def published_split(
    patients: Sequence[str], classes: NDArray[np.int64], per_class: int, validation: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training, validation and test: `per_class` test lesions of each class, then
    `validation` of each, the rest for training; patients stay whole.

    The papers split by lesion and validate on the test lesions. patients: [n]. Deterministic in
    (patients, classes, numbers, seed). A class may get fewer where its patients have too many
    lesions. Raises InputError where a class has too few lesions to leave one for training.
    """
    y = np.asarray(classes)
    names = np.asarray(patients)
    short = [int(c) for c in np.unique(y) if (y == c).sum() <= per_class + validation]
    if short:
        raise InputError(
            "a class has too few lesions for this split", code="too_few", field="lesions",
            found=f"{int((y == short[0]).sum())} of class {short[0]}",
            expected=f"more than {per_class + validation}",
        )  # fmt: skip
    rng = np.random.default_rng([seed, 60])
    groups = [np.flatnonzero(names == p) for p in rng.permutation(np.unique(names))]
    # Small patients fill a quota exactly; large ones belong where there is room.
    groups.sort(key=len)
    parts: list[NDArray[np.int64]] = []
    for quota in (per_class, validation):
        room = {int(c): quota for c in np.unique(y)}
        taken: list[NDArray[np.int64]] = []
        rest: list[NDArray[np.int64]] = []
        for group in groups:
            want = {c: int((y[group] == c).sum()) for c in np.unique(y[group])}
            if all(room[int(c)] >= n for c, n in want.items()):
                for c, n in want.items():
                    room[int(c)] -= n
                taken.append(group)
            else:
                rest.append(group)
        parts.append(np.sort(np.concatenate(taken)) if taken else np.zeros(0, np.int64))
        groups = rest
    test, held = parts
    return np.sort(np.concatenate(groups)).astype(np.int64), held, test


def tables(
    runs: Sequence[Run],
    labels: NDArray[np.float64],
    classes: NDArray[np.int64],
    features: Sequence[str],
    class_ids: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The papers' tables as JSON values, with 95 % intervals over lesions *and* retrainings.

    labels: test lesions [n, F], 1 present, 0 absent, NaN to be ignored: a feature named there
    counts neither for nor against, as in the paper. classes: [n]. Each draw takes runs and lesions
    with replacement; with one run the interval is over lesions alone.
    """
    n, count = len(labels), len(runs)
    if count == 0:
        raise InputError("there is no run", field="runs", found="0", expected="at least 1")
    lesions = multiplicities(n, draws=draws, seed=seed)
    again = multiplicities(count, draws=draws, seed=seed + 1)
    both = _Both(lesions, again)
    right = np.stack([run.predicted == classes for run in runs])
    y = np.asarray(labels, dtype=np.float64)
    report: dict[str, Any] = {
        "runs": count,
        "n_test": n,
        "true_features": int((y == 1).sum()),
        "published": PUBLISHED,
        "classifier": {
            "accuracy": both.ratio(right, np.ones_like(right)),
            "by_run": [number(float(row.mean())) for row in right],
            "by_class": {
                name: both.ratio(right * (classes == c), np.ones_like(right) * (classes == c))
                for c, name in enumerate(class_ids)
            },
        },
        "detectors": {},
    }
    drawn: dict[str, dict[str, Drawn]] = {}
    for name in runs[0].answers:
        answers = [run.answers[name] for run in runs]
        report["detectors"][name], drawn[name] = _detector(
            answers, y, classes, right, features, class_ids, both
        )
    ours = next(iter(runs[0].answers))
    report["differences"] = {
        other: {key: difference(drawn[ours][key], drawn[other][key]) for key in drawn[ours]}
        for other in drawn
        if other != ours
    }
    return report


class _Both:
    """Bootstrap over lesions and over runs at once. lesions: [B, n]. runs: [B, R]."""

    def __init__(self, lesions: Weights, runs: Weights) -> None:
        self.lesions = lesions.astype(np.float64)
        self.runs = runs.astype(np.float64)

    def sum(self, values: NDArray[Any]) -> Drawn:
        """values: [R, n] -> their weighted sum in each draw [B]."""
        v = np.asarray(values, dtype=np.float64)
        return np.asarray(((self.runs @ v) * self.lesions).sum(axis=1))

    def over(self, above: NDArray[Any], below: NDArray[Any]) -> Drawn:
        a, b = self.sum(above), self.sum(below)
        return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)

    def ratio(self, above: NDArray[Any], below: NDArray[Any]) -> dict[str, Any]:
        return _figure(self.over(above, below))

    def mean(self, per_run: list[Drawn]) -> Drawn:
        """A statistic of each run over the lesion draws [B] -> its mean over drawn runs [B]."""
        values = np.stack(per_run, axis=1)
        return np.asarray((self.runs * values).sum(axis=1) / self.runs.sum(axis=1))


def _detector(
    answers: list[Answer],
    y: NDArray[np.float64],
    classes: NDArray[np.int64],
    right: NDArray[np.bool_],
    features: Sequence[str],
    class_ids: Sequence[str],
    both: _Both,
) -> tuple[dict[str, Any], dict[str, Drawn]]:
    found = np.stack([a.found for a in answers])
    hits = found & (y == 1)
    named = found & np.isfinite(y)
    there = np.broadcast_to(y == 1, found.shape)

    def pair(where: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        mask = np.ones(found.shape[:2]) if where is None else where
        return {
            "ppv": both.ratio(hits.sum(axis=2) * mask, named.sum(axis=2) * mask),
            "sensitivity": both.ratio(hits.sum(axis=2) * mask, there.sum(axis=2) * mask),
        }

    first = np.stack([a.first for a in answers])
    said = np.take_along_axis(
        np.broadcast_to(y == 1, found.shape), np.maximum(first, 0)[:, :, None], axis=2
    )[:, :, 0] & (first >= 0)
    w = both.lesions.astype(np.float32)
    drawn = {
        "micro_ppv": both.over(hits.sum(axis=2), named.sum(axis=2)),
        "micro_sensitivity": both.over(hits.sum(axis=2), there.sum(axis=2)),
        "macro_auroc": both.mean([macro_auroc(a.scores, y, w) for a in answers]),
        "within_class_auroc": both.mean([within_class(a.scores, y, classes, w) for a in answers]),
    }
    row: dict[str, Any] = {key: _figure(values) for key, values in drawn.items()}
    row |= {
        "named_per_lesion": number(float(found.sum(axis=2).mean())),
        "first_right": both.ratio(said, np.ones_like(said)),
        "first_right_misclassified": both.ratio(said & ~right, ~right),
        "correct": pair(right),
        "misclassified": pair(~right),
        "by_run": {
            "micro_ppv": _by_run(hits, named),
            "micro_sensitivity": _by_run(hits, there),
        },
        "by_class": {name: pair(np.broadcast_to(classes == c, right.shape)) for c, name in
                     enumerate(class_ids)},
        "by_feature": {
            name: {
                "n_present": int((y[:, f] == 1).sum()),
                "ppv": both.ratio(hits[:, :, f], named[:, :, f]),
                "sensitivity": both.ratio(hits[:, :, f], there[:, :, f]),
            }
            for f, name in enumerate(features)
        },
    }  # fmt: skip
    return row, drawn


def _by_run(above: NDArray[np.bool_], below: NDArray[np.bool_]) -> list[float | None]:
    a, b = above.sum(axis=(1, 2)), below.sum(axis=(1, 2))
    return [number(float(x / z)) if z else None for x, z in zip(a, b, strict=True)]


def _figure(values: Drawn) -> dict[str, Any]:
    value = number(float(values[0]))
    return {"value": value, "ci": interval(values) if value is not None else None}
