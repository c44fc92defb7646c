"""The evaluation's maps: every method against true masks, its trust card, two controls.

`map_figures` gives what the report's `maps` holds:

    default            the default feature map: pointing, auprc, per feature, trust
    <method>           the same for each method; 'class_<method>' for maps of the class
    <method>_parenchyma  feature maps compared with parenchyma in place of the edited lesion
    controls           centre, edge, and edit: the image edit alone, without the network
    beats_controls     features on which the default's AUPRC is above both centre and edge
    focal              features whose mask covers a part of the lesion
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.attribution.goal import Settings
from models.attribution.registry import DEFAULT, METHODS
from models.attribution.trust import Kind, judged
from models.evaluation.localisation import group_means, is_focal, mean_of_groups
from models.evaluation.resampling import Weights, figure, keyed, multiplicities
from models.model import Model
from models.trial.mapped import (
    CONTROLS,
    LESION,
    TWINS,
    MappedLesions,
    Network,
    Rows,
    Tick,
    chosen,
    measure,
)
from wire.explanation import TrustCard

__all__ = ["map_figures", "trust_card"]


def map_figures(
    lesions: MappedLesions,
    own: Network,
    random: Model,
    again: Network | None = None,
    *,
    each: int = 12,
    twins: int = 30,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    methods: Sequence[str] = tuple(METHODS),
    draws: int = 1000,
    seed: int = 0,
    patients: Sequence[str] | None = None,
    split: str = "test",
    tick: Tick | None = None,
) -> dict[str, Any]:
    """JSON of the experiment. each: lesions a feature (or class). twins: lesions that are drawn by
    the shuffled and the retrained network and in a variation too.

    random: the network with shuffled weights. again: trained again from another seed. patients:
    [n], to draw whole patients. The same arguments give the same figures.
    """
    w = multiplicities(len(lesions.ids), draws=draws, seed=seed, groups=patients)
    features = own.bundle.manifest.features
    focal = _focal(lesions, features)
    plan: list[tuple[Kind, str, bool]] = [("feature", m, True) for m in methods]
    plan += [("feature", m, False) for m in methods if m == DEFAULT["feature"]]
    plan += [("class", m, False) for m in methods]
    picks = {kind: chosen(lesions, kind, each, seed) for kind in ("feature", "class")}
    found: dict[str, Any] = {}
    for number, (kind, name, edited) in enumerate(plan):

        def part(fraction: float, number: int = number) -> None:
            if tick:
                tick((number + fraction) / len(plan))

        rows = measure(
            lesions, picks[kind], kind, name, own, settings, random=random, again=again,
            seed=seed, twins=twins, edited=edited, tick=part,
        )  # fmt: skip
        names = features if kind == "feature" else own.bundle.manifest.classes
        entry = _figures(rows, w, names, focal) | {
            "trust": trust_card(rows, w, split).model_dump(mode="json")
        }
        if kind == "class":
            found[f"class_{name}"] = entry
        elif not edited:
            found[f"{name}_parenchyma"] = entry
        else:
            found[name] = entry
            if name == DEFAULT["feature"]:
                found["default"] = {**entry, "method": name}
                found |= _beside_controls(rows, w, names, focal)
    found["focal"] = [features[f] for f in sorted(focal)]
    return found


def _focal(lesions: MappedLesions, features: Sequence[str]) -> set[int]:
    known = set()
    for f, name in enumerate(features):
        both = [m for m in lesions.masks if name in m and LESION in m]
        if both and is_focal([m[name] for m in both], [m[LESION] for m in both]):
            known.add(f)
    return known


def _macro(rows: Rows, name: str, w: Weights, only: set[int] | None = None) -> NDArray[np.float64]:
    """[B, G] of the targets, those outside of `only` NaN."""
    means = group_means(rows.array(name), np.array(rows.lesion), np.array(rows.target), w)
    if only is not None:
        means[:, [g for g in range(means.shape[1]) if g not in only]] = np.nan
    return means


def _figures(
    rows: Rows, w: Weights, names: Sequence[str], focal: set[int], prefix: str = ""
) -> dict[str, Any]:
    """Mean over targets, over focal and diffuse ones, and for each."""
    if not rows.lesion:
        return {"n": 0}
    entry: dict[str, Any] = {"n": len(rows.lesion), "n_lesions": len(set(rows.lesion))}
    per: dict[str, dict[str, Any]] = {names[t]: {} for t in sorted(set(rows.target))}
    for measure_name in ("pointing", "auprc"):
        means = _macro(rows, prefix + measure_name, w)
        entry |= keyed(measure_name, mean_of_groups(means))
        if rows.kind == "feature":
            for word, wanted in (("focal", focal), ("diffuse", set(range(len(names))) - focal)):
                part = _macro(rows, prefix + measure_name, w, wanted)
                entry |= keyed(f"{word}_{measure_name}", mean_of_groups(part))
        for t in sorted(set(rows.target)):
            per[names[t]] |= keyed(measure_name, means[:, t])
            per[names[t]]["n"] = rows.target.count(t)
    return entry | {"per_feature" if rows.kind == "feature" else "per_class": per}


def _beside_controls(
    rows: Rows, w: Weights, names: Sequence[str], focal: set[int]
) -> dict[str, Any]:
    """Controls on the same maps' masks, and on how many features the map beats them."""
    controls = {c: _figures(rows, w, names, focal, f"{c}_") for c in CONTROLS}
    if not rows.lesion:
        return {"controls": controls, "beats_controls": 0, "beats": {}, "over_edit": {}}
    own = _macro(rows, "auprc", w)
    best = np.maximum(_macro(rows, "centre_auprc", w), _macro(rows, "edge_auprc", w))
    gaps = own - best
    beats = {names[t]: figure(gaps[:, t]) for t in sorted(set(rows.target))}
    over = {
        m: figure(mean_of_groups(_macro(rows, m, w)) - mean_of_groups(_macro(rows, f"edit_{m}", w)))
        for m in ("pointing", "auprc")
    }
    return {
        "controls": controls,
        "beats_controls": sum(1 for b in beats.values() if (b["value"] or 0) > 0),
        "beats_controls_ci": sum(1 for b in beats.values() if b["ci"] and b["ci"][0] > 0),
        "beats": beats,
        "over_edit": over,
    }


def trust_card(rows: Rows, w: Weights, split: str) -> TrustCard:
    """The card of what was measured, judged. w: of the lesions' bootstrap, [B, n]."""
    macros = {
        name: figure(mean_of_groups(_macro(rows, name, w)))
        if rows.lesion
        else {"value": None, "ci": None}
        for name in ("pointing", "auprc", "centre_auprc", "edge_auprc", "rises", *TWINS)
    }
    better = [macros[f"{c}_auprc"]["value"] for c in ("centre", "edge")]
    incomplete = rows.array("incomplete")
    known = incomplete[np.isfinite(incomplete)]
    card = TrustCard(
        method=rows.method,
        kind=rows.kind,
        n=len(rows.lesion),
        split=split,
        pointing=_round(macros["pointing"]["value"]),
        pointing_ci=_pair(macros["pointing"]),
        auprc=_round(macros["auprc"]["value"]),
        auprc_ci=_pair(macros["auprc"]),
        control_auprc=_round(max((b for b in better if b is not None), default=None)),
        completeness_error=_round(float(np.median(known))) if len(known) else None,
        rises=_round(macros["rises"]["value"]),
        passed=False,
        **{name: _round(macros[name]["value"]) for name in TWINS},
    )
    return judged(card)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _pair(found: Mapping[str, Any]) -> tuple[float, float] | None:
    ci = found["ci"]
    return None if ci is None else (round(ci[0], 4), round(ci[1], 4))
