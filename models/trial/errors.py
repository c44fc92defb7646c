"""How well is a mistake told before anybody knows the truth? In distribution and under stress.

A mistake is a lesion whose class by the network, averaged over stochastic passes, is not the true
one. Every score is compared on the same lesions and the same bootstrap draws. Nothing here is
fitted: weights and thresholds come with the bundle, from validation lesions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cohort.phantom.stress import KINDS, spoiled_rows
from models.evaluation.classification import number
from models.evaluation.drawn import auroc_drawn, micro_ppv, micro_sensitivity
from models.evaluation.intervals import wilson
from models.evaluation.resampling import (
    Drawn,
    difference,
    keyed,
    multiplicities,
)
from models.evaluation.selective import caught, risk_coverage
from models.trial.judged import Judged

SLIPS = (0.0, 0.1, 0.2)  # share of a reader's statements that are wrong
Array = NDArray[np.float64]


def measure_errors(
    inside: Judged, stress: Mapping[str, Judged], *, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The report's 'errors'.

    inside: unseen lesions like those of the training. stress: kind (models.cohort.phantom.stress)
    -> its cohort through the network that it is for. `stress_wins` counts the cohorts where the
    interval of the review score's gain over max-softmax lies above zero.
    """
    cohorts = {kind: _cohort(judged, draws, seed) for kind, judged in stress.items()}
    for kind, row in cohorts.items():
        row["what"] = KINDS.get(kind, kind)
        row["n_spoiled"] = int(spoiled_rows(kind, row["n"]).sum())
    wins = [k for k, row in cohorts.items() if _above(row["paired_ci"])]
    human = [
        k for k, row in cohorts.items()
        if all(_above(h["paired_ci"]) for h in row["human_features"].values())
    ]  # fmt: skip
    found = _cohort(inside, draws, seed)
    return {
        **found,
        "features_on_mistakes": _features(inside, draws, seed),
        "risk_coverage": _curves(inside, seed),
        "stress": cohorts,
        "stress_wins": len(wins),
        "stress_won": wins,
        "stress_won_with_human_features": human,
    }


def scores(judged: Judged) -> dict[str, Array]:
    """Score -> [n], high where a mistake is likely: the review score, its rivals, its parts."""
    shares, rows = judged.opinions.shares, np.arange(len(judged.classes))
    network, verdict = np.asarray(shares["network"]), judged.opinions.verdict
    out = {
        "review": judged.verdicts().score,
        "max_softmax": -network.max(axis=1),
        "max_softmax_one_pass": -judged.plain[rows, verdict],
        "entropy": -(network * np.log(np.maximum(network, 1e-12))).sum(axis=1),
        "pass_variance": judged.spread,
        "out_of_distribution": np.asarray(judged.opinions.ratios),
    }
    if judged.members is not None:
        out["ensemble"] = -judged.members[rows, verdict]
    for expert in ("image", "surroundings", "features"):
        if expert in shares:
            out[f"only_{expert}"] = -np.asarray(shares[expert])[rows, verdict]
    return out


def _cohort(judged: Judged, draws: int, seed: int) -> dict[str, Any]:
    wrong = judged.wrong.astype(np.float64)
    w = multiplicities(len(wrong), draws=draws, seed=seed)
    by_patient = multiplicities(len(wrong), draws=draws, seed=seed, groups=judged.patients)
    each = scores(judged)
    drawn = {name: auroc_drawn(s, wrong, w) for name, s in each.items()}
    base = drawn["max_softmax"]
    gain = difference(drawn["review"], base)
    patients = difference(
        auroc_drawn(each["review"], wrong, by_patient),
        auroc_drawn(each["max_softmax"], wrong, by_patient),
    )
    human = {
        f"{share:.0%}".rstrip("%"): _against(
            auroc_drawn(judged.with_reader(share, seed).score, wrong, w), drawn
        )
        for share in SLIPS
    }
    n, mistakes = len(wrong), int(wrong.sum())
    return {
        "n": n,
        "n_wrong": mistakes,
        "accuracy": number(1 - mistakes / n if n else np.nan),
        "accuracy_ci": [round(v, 6) for v in wilson(n - mistakes, n)],
        "auroc": number(float(drawn["review"][0])),
        "ci": keyed("auroc", drawn["review"])["auroc_ci"],
        "max_softmax_auroc": number(float(base[0])),
        "difference": gain["difference"],
        "paired_ci": gain["ci"],
        "paired_ci_by_patient": patients["ci"],
        "scores": {
            name: {**keyed("auroc", d), "over_max_softmax": difference(d, base)["difference"]}
            for name, d in drawn.items()
        },
        "human_features": human,
        "flag": _flag(judged),
    }


def _against(drawn: Drawn, rivals: Mapping[str, Drawn]) -> dict[str, Any]:
    """A score beside max-softmax with passes and, where there is one, the ensemble."""
    gain = difference(drawn, rivals["max_softmax"])
    row = {
        **keyed("auroc", drawn),
        "difference": gain["difference"],
        "paired_ci": gain["ci"],
    }
    if "ensemble" in rivals:
        over = difference(drawn, rivals["ensemble"])
        row |= {"over_ensemble": over["difference"], "over_ensemble_ci": over["ci"]}
    return row


def _features(judged: Judged, draws: int, seed: int) -> dict[str, Any]:
    """Features found on misclassified and on correct lesions, and the difference."""

    def of(rows: NDArray[np.bool_]) -> dict[str, Any]:
        w = multiplicities(int(rows.sum()), draws=draws, seed=seed)
        found, labels = judged.found[rows], judged.labels[rows]
        return {
            "n": int(rows.sum()),
            **keyed("ppv", micro_ppv(found, labels, w)),
            **keyed("sensitivity", micro_sensitivity(found, labels, w)),
        }

    return {"misclassified": of(judged.wrong), "correct": of(~judged.wrong)}


def _flag(judged: Judged) -> dict[str, Any]:
    """What the review flag does at the threshold that came with the bundle."""
    return caught(judged.verdicts().flagged, ~judged.wrong)


def _curves(judged: Judged, seed: int) -> dict[str, Any]:
    right = ~judged.wrong
    each = scores(judged)
    curves = {name: risk_coverage(-each[name], right) for name in _CURVES if name in each}
    curves["human_features"] = risk_coverage(-judged.with_reader(0.1, seed).score, right)
    return curves


_CURVES = ("review", "max_softmax", "entropy", "ensemble", "out_of_distribution")


def _above(ci: list[float] | None) -> bool:
    return ci is not None and ci[0] > 0
