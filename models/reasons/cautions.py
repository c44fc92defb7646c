"""What a reader must know before trusting an answer, in plain words."""

from __future__ import annotations

from models.reasons.words import join_words
from models.vocabulary import Vocabulary
from models.voi import Lesion
from wire.explanation import Caution, OutOfDistribution, Prediction

FEW_PASSES = 10
LOW_AGREEMENT = 0.7


def about_lesion(lesion: Lesion, vocabulary: Vocabulary) -> list[Caution]:
    """Faults of the images themselves."""
    cautions = _missing(lesion, vocabulary)
    for group in _same(lesion):
        names = join_words([vocabulary.phase(p).label for p in group])
        cautions.append(
            Caution(
                code="phases_identical",
                text=f"The {names} phases are one and the same image. Enhancement over time cannot "
                "be judged.",
            )
        )
    if lesion.slices == 1:
        cautions.append(
            Caution(
                code="single_slice",
                text="The study is a single slice. The third dimension was filled by repeating it.",
            )
        )
    return cautions


def _missing(lesion: Lesion, vocabulary: Vocabulary) -> list[Caution]:
    """Phases that were not acquired, and the features that are judged on them."""
    if not lesion.missing:
        return []
    many = len(lesion.missing) > 1
    names = join_words([vocabulary.phase(p).label for p in lesion.missing])
    text = (
        f"The {names} phase{'s were' if many else ' was'} not acquired. The network was trained to "
        f"tolerate this, but it sees less than with all {len(lesion.phases)} phases."
    )
    if len(lesion.acquired) == 1:
        text += " Enhancement over time cannot be judged on one phase."
    touched = [f for f in vocabulary.features if set(f.judged_on) & set(lesion.missing)]
    blind = [f.label for f in touched if set(f.judged_on) <= set(lesion.missing)]
    less = [f.label for f in touched if not set(f.judged_on) <= set(lesion.missing)]
    if blind:
        text += f" Cannot be judged without {'them' if many else 'it'}: {join_words(blind)}."
    if less:
        text += f" Less reliable, for want of a phase: {join_words(less)}."
    return [Caution(code="phase_missing", text=text)]


def about_distribution(ood: OutOfDistribution) -> list[Caution]:
    if not ood.flagged:
        return []
    return [
        Caution(
            code="out_of_distribution",
            text="The lesion lies outside of what the network knows "
            f"(score {ood.score:g}, limit {ood.threshold:g}). Class and features are not reliable.",
        )
    ]


def about_passes(prediction: Prediction, passes: int) -> list[Caution]:
    """Few passes, or passes that disagree."""
    cautions = []
    if passes < FEW_PASSES:
        cautions.append(
            Caution(
                code="few_passes",
                text=f"Only {passes} stochastic pass{'es were' if passes > 1 else ' was'} "
                "averaged. Probabilities and intervals are coarse.",
            )
        )
    if prediction.pass_agreement < LOW_AGREEMENT:
        cautions.append(
            Caution(
                code="passes_disagree",
                text=f"Only {prediction.pass_agreement:.0%} of the stochastic passes agree on the "
                "class. Small changes of the image change the answer.",
            )
        )
    return cautions


def _same(lesion: Lesion) -> list[list[str]]:
    """Groups of phases that are one image, in phase order."""
    groups: list[list[str]] = []
    for first, second in lesion.identical_phases:
        for group in groups:
            if first in group or second in group:
                group.extend(p for p in (first, second) if p not in group)
                break
        else:
            groups.append([first, second])
    return groups
