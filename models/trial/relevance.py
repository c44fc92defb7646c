"""Does relevance say what really happens when a feature is switched off? Against causal truth.

Truth exists on phantoms alone: the change of the predicted class's centred logit between the lesion
and the same lesion rendered without the feature. Every form of relevance, and controls that know
neither the lesion nor the network, are asked of the same pairs, and compared by rank correlation
with paired bootstrap over lesions (a lesion's pairs are drawn together).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.evaluation.classification import number
from models.evaluation.correlation import agreement_drawn, spearman_drawn
from models.evaluation.drawn import macro, mean_drawn
from models.evaluation.resampling import (
    Drawn,
    Weights,
    difference,
    figure,
    interval,
    keyed,
    multiplicities,
)
from models.model import Model
from models.relevance.directions import Directions
from models.relevance.removal import centred
from models.trial.data import Pairs, Sample
from models.trial.edited import editable, edited_pairs
from models.trial.found import found_figures
from models.trial.weighing import (
    Question,
    Row,
    ask,
    by_probe,
    by_removal,
    class_prior,
    half_widths,
    shuffled,
)

Progress = Callable[[str, float | None], None]
_POINTS = 400
_MATTERS = 0.1  # logits: below it, a change's sign is nearly a toss


@dataclass(frozen=True)
class Sizes:
    """edited: test lesions whose image is edited, the first ones. draws: of the bootstrap."""

    edited: int = 400
    draws: int = 1000
    seed: int = 0


def measure_relevance(
    bundle: Bundle,
    model: Model,
    training: Sample,
    test: Sample,
    truth: Pairs,
    labellings: Sequence[NDArray[np.int64]],
    sizes: Sizes = Sizes(),
    *,
    joint: NDArray[np.float32] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """All figures as JSON values; the bundle's directions are the default form.

    training: the lesions that lend edits, labelled at the rows of each of `labellings`. truth:
    pairs of `test`. joint: logits of the first lesions of `test` without *any* of their features,
    [m, C]. progress(what, fraction).
    """
    tell = progress or (lambda *_: None)
    tell("gradients", None)
    question = ask(test, truth, bundle, model)
    rows = _rows(question, bundle, training, sizes.seed)
    tell("image edits of labelled training lesions", None)
    learned = _edit_directions(bundle, model, training, labellings)
    edited = {f"edit_{i}": by_removal(question, d) for i, d in enumerate(learned)}
    w, owners = _weights(question, sizes), [test.patients[i] for i in _lesions(question)]
    by_patient = multiplicities(len(owners), draws=sizes.draws, seed=sizes.seed, groups=owners)[
        :, np.unique(question.lesion, return_inverse=True)[1]
    ]
    default = rows.pop("default")
    tell("statistics", None)
    result: dict[str, Any] = {
        "n": len(_lesions(question)),
        "n_pairs": len(question),
        "form": "activation_removal" if bundle.directions else "first_order",
        "origin": bundle.directions.origin if bundle.directions else None,
        "pairs_learned_from": len(bundle.directions.feature) if bundle.directions else 0,
        **_agreement(default, question, w),
        "spearman_ci_patients": interval(spearman_drawn(default, question.truth, by_patient)),
        "within_feature": _within(default, question, w),
        "baselines": {name: _compared(row, default, question, w) for name, row in rows.items()},
        "per_feature": _per_feature(default, question, bundle),
        "by_class": _by_class(default, question, bundle, w),
        "scatter": _scatter(default, question.truth, sizes.seed),
        "edits": {
            "directions": _of_draws(edited, default, question, w),
            "cosine_with_renderings": _cosines(learned, bundle.directions),
        },
    }
    if bundle.directions is not None:
        half = half_widths(question, bundle.directions)
        known = np.isfinite(half)
        inside = np.abs(default - question.truth)[known] <= half[known]
        result["found"] = found_figures(
            question, bundle, bundle.directions, draws=sizes.draws, seed=sizes.seed
        )
        result["interval_coverage"] = number(float(inside.mean()) if len(inside) else np.nan)
    tell("image edits of test lesions", None)
    result["edits"]["image_removal"] = _image(bundle, model, question, default, sizes)
    if joint is not None and bundle.directions is not None:
        result["completeness"] = _completeness(question, bundle.directions, joint, sizes)
    return result


def _rows(question: Question, bundle: Bundle, training: Sample, seed: int) -> dict[str, Row]:
    absent = question.test.labels == 0
    rows = by_probe(question, bundle, absent)
    rows["class_prior"] = class_prior(question, training.classes, training.labels)
    if bundle.directions is None:
        return {"default": rows["first_order"], **rows}
    return {
        "default": by_removal(question, bundle.directions),
        "paired_mean": by_removal(question, bundle.directions, mean=True),
        **rows,
        "shuffled": shuffled(question, bundle.directions, seed),
    }


def _lesions(question: Question) -> NDArray[np.int64]:
    return np.unique(question.lesion)


def _weights(question: Question, sizes: Sizes) -> Weights:
    """[B, k]: the pairs of a lesion come together."""
    lesions, place = np.unique(question.lesion, return_inverse=True)
    return multiplicities(len(lesions), draws=sizes.draws, seed=sizes.seed)[:, place]


def _agreement(row: Row, question: Question, w: Weights) -> dict[str, Any]:
    truth = question.truth
    return {
        **keyed("spearman", spearman_drawn(row, truth, w)),
        **keyed("sign_agreement", agreement_drawn(row, truth, w)),
        **keyed("sign_agreement_above_0.1", agreement_drawn(row, truth, w, least=_MATTERS)),
        **keyed("sign_agreement_balanced", _balanced(row, truth, w)),
        **keyed("first_right", mean_drawn(_first_right(row, question), w)),
    }


def _first_right(row: Row, question: Question) -> Row:
    """Is the feature that is said to speak loudest for the verdict the one that does? 1 or 0 at the
    first pair of each lesion with two features or more, NaN at all others.
    """
    out = np.full(len(question), np.nan)
    for lesion in _lesions(question):
        mine = np.flatnonzero(question.lesion == lesion)
        if len(mine) > 1:
            out[mine[0]] = row[mine].argmax() == question.truth[mine].argmax()
    return out


def _balanced(row: Row, truth: Row, w: Weights) -> Drawn:
    """Mean of the sign agreement where the truth speaks for the class and where it speaks against
    it: most features speak for the verdict, and a row that always says so agrees with most pairs.
    """
    sides = [agreement_drawn(row, np.where(side, truth, 0.0), w) for side in (truth > 0, truth < 0)]
    return (sides[0] + sides[1]) / 2


def _compared(row: Row, default: Row, question: Question, w: Weights) -> dict[str, Any]:
    """A row, and how far the default is ahead of it, paired."""
    t = question.truth
    return {
        **_agreement(row, question, w),
        "default_ahead": difference(spearman_drawn(default, t, w), spearman_drawn(row, t, w)),
    }


def _within(row: Row, question: Question, w: Weights) -> dict[str, Any]:
    """Mean over features of the correlation among pairs of one feature: which lesion, not which
    feature. A mean direction through a linear end says nothing here.
    """
    each = [np.full(len(w), np.nan)]
    for f in np.unique(question.feature):
        mine = question.feature == f
        each.append(spearman_drawn(row[mine], question.truth[mine], w[:, mine]))
    return figure(macro(np.stack(each, axis=1)))


def _per_feature(row: Row, question: Question, bundle: Bundle) -> dict[str, Any]:
    found = {}
    for f, name in enumerate(bundle.probes.features):
        mine = question.feature == f
        t, r = question.truth[mine], row[mine]
        w = multiplicities(int(mine.sum()), draws=200)
        found[name] = {
            "n": int(mine.sum()),
            **keyed("spearman", spearman_drawn(r, t, w)),
            "sign_agreement": number(float(agreement_drawn(r, t, w)[0])),
            "mean_true": number(float(t.mean()) if len(t) else float("nan")),
            "mean_predicted": number(float(r.mean()) if len(r) else float("nan")),
        }
    return found


def _by_class(row: Row, question: Question, bundle: Bundle, w: Weights) -> dict[str, Any]:
    """What a feature weighs in the verdicts of a class: mean over its pairs, predicted and true."""
    found: dict[str, Any] = {}
    for c, class_id in enumerate(bundle.manifest.classes):
        for f, name in enumerate(bundle.probes.features):
            mine = (question.predicted == c) & (question.feature == f)
            if mine.sum() < 2:
                continue
            total = w[:, mine].sum(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                drawn = {
                    key: (w[:, mine] @ values[mine]) / total
                    for key, values in (("predicted", row), ("true", question.truth))
                }
            entry = {key: figure(values) for key, values in drawn.items()}
            found.setdefault(class_id, {})[name] = {"n": int(mine.sum()), **entry}
    return found


def _scatter(row: Row, truth: Row, seed: int) -> list[list[float]]:
    """[predicted, true] of a few hundred pairs drawn at random, for a picture."""
    drawn = np.sort(np.random.default_rng([seed, 0xD075]).permutation(len(row))[:_POINTS])
    return [[round(float(row[i]), 3), round(float(truth[i]), 3)] for i in drawn]


def _edit_directions(
    bundle: Bundle, model: Model, training: Sample, labellings: Sequence[NDArray[np.int64]]
) -> list[Directions]:
    """Directions from edits of each labelling's own lesions; an edit is made once for all."""
    if len(labellings) == 0:
        return []
    used = np.unique(np.concatenate(labellings))
    lesion, feature = editable(training.labels, bundle.vocabulary)
    mine = np.isin(lesion, used)
    target = list(model.info.taps)[-1]
    pairs = edited_pairs(
        training, model, [target], bundle.vocabulary, bundle.preprocessing,
        (lesion[mine], feature[mine]),
    )  # fmt: skip
    reference = {tap: np.asarray(training.plain[tap]) for tap in model.info.taps}
    found = []
    for rows in labellings:
        kept = np.isin(pairs.lesion, rows)
        found.append(
            Directions.fit(
                bundle.vocabulary.feature_ids,
                reference,
                {tap: values[pairs.lesion[kept]] for tap, values in reference.items()},
                {target: pairs.plain[target][kept]},
                pairs.feature[kept],
                origin="edit",
            )
        )
    return found


def _of_draws(
    rows: Mapping[str, Row], default: Row, question: Question, w: Weights
) -> dict[str, Any]:
    """The mean over labelling draws, and each."""
    if not rows:
        return {}
    t = question.truth
    drawn = np.mean([spearman_drawn(r, t, w) for r in rows.values()], axis=0)
    signs = np.mean([agreement_drawn(r, t, w) for r in rows.values()], axis=0)
    return {
        **keyed("spearman", drawn),
        **keyed("sign_agreement", signs),
        "default_ahead": difference(spearman_drawn(default, t, w), drawn),
        "each": {n: number(float(spearman_drawn(r, t, w[:1])[0])) for n, r in rows.items()},
    }


def _cosines(learned: Sequence[Directions], rendered: Directions | None) -> dict[str, Any]:
    """Cosine between a feature's mean move from edits and from renderings, mean over draws."""
    if rendered is None or not learned:
        return {}
    a = rendered.moves.astype(np.float64)
    found = {}
    for f, name in enumerate(rendered.features):
        values = []
        for other in learned:
            b = other.moves[f].astype(np.float64)
            size = float(np.linalg.norm(a[f]) * np.linalg.norm(b))
            if size > 0:
                values.append(float(a[f] @ b) / size)
        found[name] = number(float(np.mean(values)) if values else float("nan"))
    return found


def _image(
    bundle: Bundle, model: Model, question: Question, default: Row, sizes: Sizes
) -> dict[str, Any]:
    """Removal in the image of the first test lesions, on the pairs that have an edit."""
    test = question.test
    some = np.isin(question.lesion, _lesions(question)[: sizes.edited])
    lesion, feature = editable(test.labels, bundle.vocabulary)
    known = set(zip(lesion.tolist(), feature.tolist(), strict=True))
    some &= np.array(
        [p in known for p in zip(question.lesion.tolist(), question.feature.tolist(), strict=True)],
        dtype=bool,
    )
    kept = np.flatnonzero(some)
    if len(kept) == 0:
        return {}
    pairs = edited_pairs(
        test, model, [], bundle.vocabulary, bundle.preprocessing,
        (question.lesion[kept], question.feature[kept]),
    )  # fmt: skip
    change = centred(test.logits[pairs.lesion]) - centred(pairs.logits)
    row = change[np.arange(len(kept)), question.predicted[kept]]
    narrow = Question(
        **{
            **vars(question),
            **{
                name: getattr(question, name)[kept]
                for name in ("lesion", "feature", "predicted", "truth", "truth_by_class")
            },
        }
    )
    w = _weights(narrow, sizes)
    return {
        "n": len(_lesions(narrow)),
        "n_pairs": len(kept),
        **_compared(row, default[kept], narrow, w),
        "within_feature": _within(row, narrow, w),
        "per_feature": _per_feature(row, narrow, bundle),
        # Two removals that err differently: what the two bars say together.
        "mean_with_default": _compared((row + default[kept]) / 2, default[kept], narrow, w),
    }


def _completeness(
    question: Question, directions: Directions, joint: NDArray[np.float32], sizes: Sizes
) -> dict[str, Any]:
    """All features of a lesion gone at once: true, predicted jointly, and as a sum of singles."""
    test = question.test
    rows = np.array([i for i in _lesions(question) if i < len(joint)], dtype=np.int64)
    if len(rows) == 0:
        return {}
    predicted = test.logits[rows].argmax(axis=1)
    change = centred(test.logits[rows]) - centred(joint[rows])
    true = change[np.arange(len(rows)), predicted]
    moves = directions.displacement({t: v[rows] for t, v in test.plain.items()})
    there = test.labels[rows] == 1
    here = np.asarray(test.plain[directions.target], np.float64)[rows]
    slopes = question.slopes[directions.target][rows]
    gone = directions.without(here, np.einsum("nf,nft->nt", there.astype(float), moves))
    together = np.einsum("nt,nt->n", here - gone, slopes)
    each = here[:, None] - directions.without(here[:, None], moves)
    singles = (np.einsum("nft,nt->nf", each, slopes) * there).sum(axis=1)
    true_singles = np.zeros(len(test))
    np.add.at(true_singles, question.lesion, question.truth)
    w = multiplicities(len(rows), draws=sizes.draws, seed=sizes.seed)
    found: dict[str, Any] = {"n": len(rows), "mean_true": number(float(true.mean()))}
    for name, values in (
        ("joint", together),
        ("sum_of_singles", singles),
        ("sum_of_true_singles", true_singles[rows]),
    ):
        size = np.maximum(np.abs(true).sum(), 1e-12)
        found[name] = {
            **keyed("spearman", spearman_drawn(values, true, w)),
            "mean": number(float(values.mean())),
            "relative_error": number(float(np.abs(values - true).sum() / size)),
        }
    return found
