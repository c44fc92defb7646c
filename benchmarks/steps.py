"""How many points on a path does a map need? Maps of few steps against true masks, and against 32.

Lesions of a cohort with masks that did not train the network, the same lesions and goals at every
number of steps, so that differences are paired: means over features (or classes), intervals over
patients by bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.attribution.goal import Settings
from models.bundle.read import Bundle
from models.cnn.data import load_split
from models.cohort.format import Cohort
from models.evaluation.localisation import group_means, mean_of_groups
from models.evaluation.resampling import Weights, figure, multiplicities
from models.model import Model
from models.trial.localisation import trust_card
from models.trial.mapped import MappedLesions, Network, Rows, chosen, measure
from services.training.randomised import randomised_model
from services.training.trust import with_masks

MEASURES = ("pointing", "auprc")
METHOD = "integrated_gradients"


def localisation(
    bundle: Bundle,
    model: Model,
    cohort: Cohort,
    *,
    steps: Sequence[int],
    against: int,
    split: str = "test",
    each: int = 8,
    twins: int = 10,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """By kind of map and number of steps: pointing and AUPRC, each less that at `against` steps
    with a 95 % interval, and the trust card's criteria. each: lesions a feature or class."""
    arrays = load_split(cohort, split, bundle.vocabulary, bundle.preprocessing)
    lesions = MappedLesions(
        ids=arrays.ids,
        bases=arrays.bases,
        sizes_mm=np.asarray(arrays.sizes_mm, dtype=np.float64),
        classes=arrays.classes,
        labels=np.asarray(arrays.features, dtype=np.float64),
    )
    w = multiplicities(
        len(arrays), draws=draws, seed=seed,
        groups=[cohort.find(i).patient_id for i in arrays.ids],
    )  # fmt: skip
    own, random = Network(bundle, model), randomised_model(bundle, seed)
    found: dict[str, Any] = {"split": split, "against": against}
    for kind in ("feature", "class"):
        picks = chosen(lesions, kind, each, seed)
        seen = with_masks(lesions, [i for i, _ in picks], cohort, bundle.preprocessing)
        rows = {
            n: measure(
                seen, picks, kind, METHOD, own, Settings(steps=n, seed=seed),
                random=random, seed=seed, twins=twins,
            )
            for n in (*steps, against)
        }  # fmt: skip
        found[kind] = {str(n): _entry(rows[n], rows[against], w, split) for n in rows}
    return found


def _entry(rows: Rows, plain: Rows, w: Weights, split: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"n": len(rows.lesion)}
    for name in MEASURES:
        mine, other = _macro(rows, name, w), _macro(plain, name, w)
        entry[name] = figure(mine)
        entry[f"{name}_less"] = figure(mine - other)
    card = trust_card(rows, w, split)
    return entry | {"trust": card.model_dump(mode="json", exclude={"method", "kind", "split", "n"})}


def _macro(rows: Rows, name: str, w: Weights) -> NDArray[np.float64]:
    means = group_means(rows.array(name), np.array(rows.lesion), np.array(rows.target), w)
    return mean_of_groups(means)
