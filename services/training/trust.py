"""Trust cards of a bundle at the time of training: the short form that goes into it.

A few validation lesions, every method that is cheap enough, the network itself and the same with
shuffled weights. True masks are used where the cohort has them. Whether maps come out alike when
the network is trained again is measured by an evaluation, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.attribution.goal import Settings
from models.bundle.read import Bundle
from models.bundle.runtime import OnnxModel
from models.cnn.data import SplitArrays
from models.cohort.format import Cohort
from models.cohort.mask_view import view_masks
from models.evaluation.resampling import multiplicities
from models.reasons.maps import steps_of
from models.trial.localisation import trust_card
from models.trial.mapped import MappedLesions, Masks, Network, Rows, chosen, measure
from models.voi import Preprocessing
from services.training.randomised import randomised_model
from services.training.splits import take
from wire.explanation import TrustCard

# Occlusion asks for hundreds of forwards a map: its card is left to an evaluation.
METHODS = ("integrated_gradients", "gradient_x_input", "smoothgrad", "grad_cam")
LESIONS = {"feature": 2, "class": 2}  # a feature, a class
STEPS = 8  # of a class map, as an explanation draws it by default
DRAWS = 200


def trust_cards(
    bundle: Bundle,
    model: OnnxModel,
    split: SplitArrays,
    *,
    cohort: Cohort | None = None,
    split_name: str = "validation",
    methods: Sequence[str] = METHODS,
    seed: int = 0,
    tick: Callable[[float], None] | None = None,
) -> list[TrustCard]:
    """A card for each method and kind of target, judged.

    split: lesions that the network did not learn from. cohort: where its masks are; without it, or
    for lesions without masks, localisation stays unmeasured. Deterministic in its arguments; the
    order of the lesions does not matter.
    """
    split = take(split, np.argsort(np.array(split.ids)))
    lesions = MappedLesions(
        ids=split.ids,
        bases=split.bases,
        sizes_mm=np.asarray(split.sizes_mm, dtype=np.float64),
        classes=split.classes,
        labels=np.asarray(split.features, dtype=np.float64),
    )
    random = randomised_model(bundle, seed)
    own = Network(bundle, model)
    w = multiplicities(len(split), draws=DRAWS, seed=seed)
    cards, done, total = [], 0, 2 * len(methods)
    for kind in ("feature", "class"):
        picks = chosen(lesions, kind, LESIONS[kind], seed)
        rows_wanted = [i for i, _ in picks]
        seen = with_masks(lesions, rows_wanted, cohort, bundle.preprocessing)
        for name in methods:

            def part(fraction: float, done: int = done) -> None:
                if tick:
                    tick((done + fraction) / total)

            rows: Rows = measure(
                seen, picks, kind, name, own,
                Settings(steps=steps_of(kind, name, STEPS), seed=seed),
                random=random, seed=seed, tick=part,
            )  # fmt: skip
            cards.append(trust_card(rows, w, split_name))
            done += 1
    return cards


def with_masks(
    lesions: MappedLesions, rows: Sequence[int], cohort: Cohort | None, spec: Preprocessing
) -> MappedLesions:
    """The same lesions with the true masks of some of them, where the cohort has any."""
    if cohort is None:
        return lesions
    known: list[Masks] = [{} for _ in lesions.ids]
    for i in rows:
        entry = cohort.find(lesions.ids[i])
        if entry.masks:
            known[i] = view_masks(cohort, entry, lesions.sizes_mm[i], spec)
    return MappedLesions(
        lesions.ids, lesions.bases, lesions.sizes_mm, lesions.classes, lesions.labels, tuple(known)
    )
