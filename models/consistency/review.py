"""When should a person look again? Several opinions on the class, joined into one score.

    network        class shares, calibrated and averaged over stochastic passes
    image          class from measurements of the image alone
    surroundings   class shares of the network when the surroundings are wiped
    features       class from the features that were found: by the probes, a reader, a report

They are joined as a logarithmic pool, log p(c) = sum_i w_i log p_i(c) + const (Genest & Zidek 1986,
doi 10.1214/ss/1177013825), with weights of zero or more, so that an opinion that speaks against the
verdict never lowers the score. The weights maximise the log-likelihood of the *class* of validation
lesions: each lesion teaches, not only the few that were misclassified. What the pool leaves to
other classes than the network's verdict is the probability of a mistake, calibrated on held-out
folds; odds that the lesion is of no known kind (strangeness) are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.consistency.strangeness import Strangeness
from models.errors import InputError

Array = NDArray[np.float64]

EXPERTS = ("network", "image", "surroundings", "features")
SOURCES = ("probes", "reader")  # a report's features count as a reader's
FLAGGED = 0.20  # of validation lesions: whom a person is asked to look at again
_FLOOR = 1e-4  # of any opinion: nobody is ever certain
_PULL = 0.02  # towards equal weights, nats per squared unit of a weight


@dataclass(frozen=True)
class Opinions:
    """What each expert says of n lesions: expert -> class probabilities [n, C].

    shares: 'network' always; another that is not known (a phase is missing, no features) may be
    left out. verdict: the network's class [n]. ratios: out-of-distribution score over its limit
    [n].
    """

    shares: Mapping[str, NDArray[Any]]
    ratios: NDArray[Any]

    @property
    def verdict(self) -> NDArray[np.int64]:
        return np.asarray(self.shares["network"]).argmax(axis=1)

    def logs(self, experts: Sequence[str]) -> Array:
        """[E, n, C]; an expert that is silent says the same of every class."""
        n, c = np.asarray(self.shares["network"]).shape
        return np.stack(
            [
                np.log(np.clip(np.asarray(self.shares.get(e, np.full((n, c), 1 / c))), _FLOOR, 1))
                for e in experts
            ]
        )

    def take(self, rows: NDArray[Any]) -> Opinions:
        """Some of the lesions."""
        shares = {e: np.asarray(p)[rows] for e, p in self.shares.items()}
        return Opinions(shares, np.asarray(self.ratios)[rows])


@dataclass(frozen=True)
class Joined:
    """How opinions are joined where the features come from one source.

    weights: of EXPERTS [4]. slope, intercept: from the pool's log-odds of a mistake to calibrated
    ones. threshold: flagged above this probability.
    """

    weights: tuple[float, ...]
    slope: float
    intercept: float
    threshold: float


@dataclass(frozen=True)
class Verdicts:
    """score: probability that the class is wrong [n]. flagged: [n]. alternative: the likeliest
    other class [n]. pooled: [n, C]. voices: expert -> nats by which it speaks for the verdict over
    the alternative, weighted [n]; what is negative speaks against. weights: of each expert.
    strange: odds of no known kind [n].
    """

    score: Array
    flagged: NDArray[np.bool_]
    alternative: NDArray[np.int64]
    pooled: Array
    voices: dict[str, Array]
    weights: dict[str, float]
    strange: Array


@dataclass(frozen=True)
class ReviewModel:
    """joined: source of the features -> how opinions are joined."""

    joined: Mapping[str, Joined]
    strangeness: Strangeness

    @classmethod
    def fit(
        cls, opinions: Mapping[str, Opinions], classes: NDArray[Any], seed: int = 0
    ) -> ReviewModel:
        """opinions: source -> of validation lesions; classes: their true index [n].

        The order of lesions does not matter. Raises InputError where a source is unknown or there
        is no lesion.
        """
        c = np.asarray(classes, dtype=np.int64)
        unknown = sorted(set(opinions) - set(SOURCES))
        if unknown or not opinions or len(c) == 0:
            raise InputError(
                "no opinions to join", code="too_few", field="opinions",
                found=", ".join(unknown) or f"{len(c)} lesions", expected=", ".join(SOURCES),
            )  # fmt: skip
        first = next(iter(opinions.values()))
        order = np.lexsort((c, first.ratios, *np.asarray(first.shares["network"]).T))
        c, opinions = c[order], {source: o.take(order) for source, o in opinions.items()}
        strangeness = Strangeness.fit(first.ratios)
        joined = {source: _join(o, c, strangeness, seed) for source, o in opinions.items()}
        return cls(joined, strangeness)

    def judge(self, opinions: Opinions, source: str = "probes") -> Verdicts:
        """source: of the features, 'probes', 'reader' or 'report'. Raises InputError."""
        join = self.joined.get("reader" if source == "report" else source)
        if join is None:
            raise InputError(
                "no such source of features", code="unknown_source", field="source",
                found=source, expected=", ".join(self.joined),
            )  # fmt: skip
        weights = np.array(join.weights)
        logs = opinions.logs(EXPERTS)
        verdict = opinions.verdict
        pooled, odds = _pool(logs, weights, verdict)
        rows = np.arange(len(verdict))
        others = pooled.copy()
        others[rows, verdict] = -1.0
        alternative = others.argmax(axis=1)
        voices = {
            e: weights[i] * (logs[i, rows, verdict] - logs[i, rows, alternative])
            for i, e in enumerate(EXPERTS)
            if e in opinions.shares
        }
        strange = self.strangeness.odds(opinions.ratios)
        score = _score(odds, join.slope, join.intercept, strange)
        return Verdicts(
            score, score > join.threshold, alternative, pooled, voices,
            dict(zip(EXPERTS, join.weights, strict=True)), strange,
        )  # fmt: skip

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(tensors for safetensors, JSON meta)."""
        joined = {
            source: {
                "weights": dict(zip(EXPERTS, j.weights, strict=True)),
                "slope": j.slope, "intercept": j.intercept, "threshold": j.threshold,
            }
            for source, j in self.joined.items()
        }  # fmt: skip
        return {"known": self.strangeness.known}, {"joined": joined, "rate": self.strangeness.rate}

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
    ) -> ReviewModel:
        """Raises KeyError or ValueError where something is missing or out of range."""
        joined = {}
        for source, j in meta["joined"].items():
            weights = tuple(float(j["weights"][e]) for e in EXPERTS)
            if source not in SOURCES or min(weights) < 0 or float(j["slope"]) < 0:
                raise ValueError("review: an unknown source, or a weight below zero")
            joined[source] = Joined(
                weights, float(j["slope"]), float(j["intercept"]), float(j["threshold"])
            )
        if tensors["known"].ndim != 1 or not joined:
            raise ValueError("review: shapes disagree")
        return cls(joined, Strangeness(tensors["known"], float(meta["rate"])))


def _join(
    opinions: Opinions, classes: NDArray[np.int64], strangeness: Strangeness, seed: int
) -> Joined:
    """Weights on all lesions; calibration and threshold on scores of held-out folds."""
    weights = _weights(opinions.logs(EXPERTS), classes)
    odds = held_out(opinions, classes, seed)
    slope, intercept = _calibrate(odds, opinions.verdict != classes)
    scores = _score(odds, slope, intercept, strangeness.odds(opinions.ratios))
    return Joined(
        tuple(round(float(w), 4) for w in weights),
        round(slope, 4),
        round(intercept, 4),
        round(float(np.quantile(scores, 1 - FLAGGED)), 4),
    )


def held_out(opinions: Opinions, classes: NDArray[Any], seed: int = 0) -> Array:
    """Log-odds of a mistake [n], each lesion by weights from the other four fifths."""
    c = np.asarray(classes, dtype=np.int64)
    logs, verdict = opinions.logs(EXPERTS), opinions.verdict
    n = len(c)
    folds = np.random.default_rng([seed, 31]).permutation(n) % min(5, max(n, 1))
    odds = np.empty(n)
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        own = _weights(logs[:, ~held], c[~held])
        odds[held] = _pool(logs[:, held], own, verdict[held])[1]
    return odds


def _weights(logs: Array, classes: NDArray[np.int64]) -> Array:
    """Weights [E] of zero or more with the highest log-likelihood of the classes [n]."""
    from scipy.optimize import minimize

    experts, n = len(logs), len(classes)
    equal = np.full(experts, 1 / experts)
    if n == 0:
        return equal
    rows = np.arange(n)

    def loss(w: Array) -> tuple[float, Array]:
        z = np.tensordot(w, logs, axes=1)
        z = z - z.max(axis=1, keepdims=True)
        shares = np.exp(z)
        total = shares.sum(axis=1)
        shares /= total[:, None]
        value = float(np.mean(np.log(total) - z[rows, classes]))
        slope = (shares * logs).sum(axis=2).mean(axis=1) - logs[:, rows, classes].mean(axis=1)
        return value + _PULL * float(((w - equal) ** 2).sum()), slope + 2 * _PULL * (w - equal)

    found = minimize(loss, equal, jac=True, method="L-BFGS-B", bounds=[(0, None)] * experts)
    return np.asarray(found.x)


def _pool(logs: Array, weights: Array, verdict: NDArray[np.int64]) -> tuple[Array, Array]:
    """Pooled probabilities [n, C] and the log-odds that the verdict is wrong [n]."""
    z = np.tensordot(weights, logs, axes=1)
    z = z - z.max(axis=1, keepdims=True)
    rows = np.arange(len(z))
    own = z[rows, verdict]
    others = z.copy()
    others[rows, verdict] = -np.inf
    top = others.max(axis=1)
    rest = top + np.log(np.exp(others - top[:, None]).sum(axis=1)) if z.shape[1] > 1 else own - 50
    shares = np.exp(z)
    return shares / shares.sum(axis=1, keepdims=True), rest - own


def _calibrate(odds: Array, wrong: NDArray[np.bool_]) -> tuple[float, float]:
    """Platt's slope and intercept, with his prior counts; no slope where all or none are wrong."""
    from models.probes.calibration import calibrate

    fitted = calibrate(odds, wrong.astype(np.float64))
    if fitted.slope <= 0:
        return 1.0, 0.0  # too few mistakes to learn from: the pool's own odds
    return fitted.slope, fitted.intercept


def _score(odds: Array, slope: float, intercept: float, strange: Array) -> Array:
    """Odds of a mistake among the known classes, and odds of none of them, add up."""
    total = np.exp(np.clip(slope * odds + intercept, -30, 30)) + strange
    return np.asarray(total / (1 + total))
