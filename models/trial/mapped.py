"""Maps of many lesions, held against true masks and against each other: a row a map.

One drawing serves every criterion: the map of a lesion by the network itself, by the same network
with shuffled weights, by one that was trained again, and of a variation of the lesion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.attribution.goal import Attribution, Goal, Settings
from models.attribution.registry import method
from models.attribution.trust import Kind, similarity, variation
from models.bundle.read import Bundle
from models.evaluation.localisation import (
    average_precision,
    centre_prior,
    edge_detector,
    pointing,
    read_out,
)
from models.model import Model
from models.reasons.maps import class_goal, feature_goal, feature_target
from models.voi import centre

LESION = "lesion"  # the mask of the whole lesion, which class maps are held against

Masks = Mapping[str, NDArray[np.bool_]]
Tick = Callable[[float], None]


@dataclass(frozen=True)
class Network:
    """A bundle and its model. The model may be another one, with the bundle's probes."""

    bundle: Bundle
    model: Model


@dataclass(frozen=True)
class MappedLesions:
    """ids [n]. bases [n, P, M, M, M]. sizes_mm [n, 3]. classes: true class index [n]. labels:
    [n, F], 1 present. masks: name -> bool [K, K, K], a mapping a lesion; none: no truth is known.
    """

    ids: tuple[str, ...]
    bases: NDArray[np.float32]
    sizes_mm: NDArray[np.float64]
    classes: NDArray[np.int64]
    labels: NDArray[np.float64]
    masks: tuple[Masks, ...] = ()


@dataclass
class Rows:
    """What was measured of m maps; NaN where it was not.

    lesion: row [m]. target: index of the feature or class [m]. values: name -> [m]: pointing,
    auprc; the same with prefix centre_, edge_, edit_ of the controls; rises, incomplete,
    randomisation, repeatability, reproducibility.
    """

    kind: Kind
    method: str
    lesion: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, lesion: int, target: int, values: Mapping[str, float]) -> None:
        self.lesion.append(lesion)
        self.target.append(target)
        for name in NAMES:
            self.values.setdefault(name, []).append(values.get(name, float("nan")))

    def array(self, name: str) -> NDArray[np.float64]:
        return np.array(self.values.get(name, []), dtype=np.float64)


CONTROLS = ("centre", "edge", "edit")
TWINS = ("randomisation", "repeatability", "reproducibility")
NAMES = (
    "pointing", "auprc", *(f"{c}_{m}" for c in CONTROLS for m in ("pointing", "auprc")),
    "rises", "incomplete", *TWINS,
)  # fmt: skip


def chosen(lesions: MappedLesions, kind: Kind, each: int, seed: int) -> list[tuple[int, list[int]]]:
    """(lesion, its targets): at most `each` lesions a feature that have it, or a class.

    Where masks are known, of lesions whose mask is not empty. Deterministic in the ids and `seed`,
    whatever the order of the lesions.
    """
    count = lesions.labels.shape[1] if kind == "feature" else int(lesions.classes.max()) + 1
    order = sorted(range(len(lesions.ids)), key=lambda i: lesions.ids[i])
    wanted: dict[int, list[int]] = {}
    for target in range(count):
        have = [
            i
            for i in order
            if (lesions.labels[i, target] == 1 if kind == "feature" else True)
            and (kind == "feature" or lesions.classes[i] == target)
        ]
        rng = np.random.default_rng([seed, 0x3A9, kind == "feature", target])
        for i in sorted(rng.permutation(len(have))[:each]):
            wanted.setdefault(have[i], []).append(target)
    return [(i, wanted[i]) for i in sorted(wanted, key=lambda i: lesions.ids[i])]


def measure(
    lesions: MappedLesions,
    picks: Sequence[tuple[int, list[int]]],
    kind: Kind,
    name: str,
    own: Network,
    settings: Settings,
    *,
    random: Model | None = None,
    again: Network | None = None,
    seed: int = 0,
    twins: int = 10**9,
    edited: bool = True,
    tick: Tick | None = None,
) -> Rows:
    """Draw and measure. twins: as many lesions, spread over the picks, are drawn by the others too.

    edited: compare features with the edited lesion; else with parenchyma.
    """
    rows = Rows(kind, name)
    spec, phases = own.bundle.preprocessing, len(own.bundle.manifest.phases)
    near = centre_prior(spec.tensor_voxels)
    with_twins = set(np.linspace(0, len(picks) - 1, min(twins, len(picks))).astype(int).tolist())
    draw = partial(method(name), settings=settings)
    for number, (i, targets) in enumerate(picks):
        if tick:
            tick(number / len(picks))
        base, size = np.asarray(lesions.bases[i]), lesions.sizes_mm[i]
        goals_of = partial(_goals, kind, targets, base, size, edited)
        x, goals = centre(base, spec), goals_of(own.bundle)
        found = draw(own.model, x, goals)
        values = [_alone(image) for image in found]
        if lesions.masks:
            controls = {"centre": near, "edge": edge_detector(x)}
            for row, target, image, goal in zip(values, targets, found, goals, strict=True):
                mask = lesions.masks[i].get(_mask_name(kind, target, own.bundle))
                if mask is not None and mask.any():
                    row |= _against(mask, image, controls, goal, x)
        if number in with_twins:
            if random is not None:
                _compare(values, "randomisation", found, draw(random, x, goals))
            if again is not None:
                twin = draw(again.model, x, goals_of(again.bundle))
                _compare(values, "reproducibility", found, twin)
            varied = variation(spec, phases, seed, number)
            images = draw(own.model, varied.view(base), goals_of(own.bundle, varied.view))
            back = [replace(image, map=varied.back(image.map)) for image in images]
            _compare(values, "repeatability", found, back)
        for target, row in zip(targets, values, strict=True):
            rows.add(i, target, row)
    return rows


def _goals(
    kind: Kind,
    targets: Sequence[int],
    base: NDArray[np.float32],
    size_mm: NDArray[np.float64],
    edited: bool,
    bundle: Bundle,
    view: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> list[Goal]:
    if kind == "class":
        return [class_goal(bundle.manifest.classes[t], bundle) for t in targets]
    names = [bundle.manifest.features[t] for t in targets]
    if not edited:
        return [Goal(feature_target(name, bundle)) for name in names]
    return [feature_goal(name, bundle, base, size_mm, view) for name in names]


def _mask_name(kind: Kind, target: int, bundle: Bundle) -> str:
    return LESION if kind == "class" else bundle.manifest.features[target]


def _alone(found: Attribution) -> dict[str, float]:
    error = found.completeness_error
    return {
        "rises": float(found.change > 0),
        "incomplete": float("nan") if error is None else error,
    }


def _against(
    mask: NDArray[np.bool_],
    found: Attribution,
    controls: Mapping[str, NDArray[np.float64]],
    goal: Goal,
    x: NDArray[np.float32],
) -> dict[str, float]:
    """The map and the controls; one of them is the edit alone, without the network."""
    scores = {"": read_out(found.map), **{f"{name}_": score for name, score in controls.items()}}
    if goal.baseline is not None:
        scores["edit_"] = read_out(x - goal.baseline)
    figures = {}
    for prefix, score in scores.items():
        figures[f"{prefix}pointing"] = pointing(score, mask)
        figures[f"{prefix}auprc"] = average_precision(score, mask)
    return figures


def _compare(
    values: Sequence[dict[str, float]],
    name: str,
    found: Sequence[Attribution],
    other: Sequence[Attribution],
) -> None:
    for row, a, b in zip(values, found, other, strict=True):
        row[name] = similarity(a.map, b.map)
