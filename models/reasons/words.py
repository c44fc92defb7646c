"""A few plain sentences out of the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from wire.explanation import FeatureFinding, OutOfDistribution, Prediction, Review

MOST_NAMES = 4


def join_words(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def percent(probability: float) -> str:
    """Whole percent, and never a bare 0 or 100 for what is not certain."""
    if 0.995 <= probability < 1:
        return "over 99 %"
    if 0 < probability < 0.005:
        return "under 1 %"
    return f"{100 * probability:.0f} %"


def plain_text(
    prediction: Prediction,
    features: Sequence[FeatureFinding],
    review: Review | None,
    ood: OutOfDistribution,
) -> str:
    """What a colleague would say: the verdict, the findings, and why somebody should look again. A
    lesion outside of what the network knows is said first."""
    sentences = []
    if ood.flagged:
        sentences.append(
            "This lesion lies outside of what the network knows, so its answer is not reliable."
        )
    sentences.append(_verdict(prediction))
    sentences.append(_findings(prediction, features))
    if review is not None and review.flagged:
        sentences.append(_why(review))
    return " ".join(sentences)


def _verdict(prediction: Prediction) -> str:
    first = prediction.probabilities[0]
    if first.probability >= 0.5 or len(prediction.probabilities) == 1:
        share = percent(first.probability)
        return f"The network reads the lesion as {first.label}, probability {share}."
    second = prediction.probabilities[1]
    return (
        f"The network is unsure: {first.label} comes first with {percent(first.probability)}, "
        f"before {second.label} with {percent(second.probability)}."
    )


def _findings(prediction: Prediction, features: Sequence[FeatureFinding]) -> str:
    found = [f for f in features if f.found]
    if not found:
        return f"It finds none of the {len(features)} features that it was taught."
    text = f"It finds {some([f.label for f in found])}"
    clear = [f for f in found if (f.relevance.ci or (f.relevance.value,))[0] > 0]
    if not clear:
        return f"{text}, but nothing found weighs clearly for this class."
    if len(found) == 1:
        return f"{text}, which weighs for this class."
    heaviest = max(clear, key=lambda f: f.relevance.value)
    return f"{text}; of these, {heaviest.label} weighs most for this class."


def _why(review: Review) -> str:
    """The strongest ground of a flag."""
    if not review.reasons:
        return "The signs together call for a second look."
    first = review.reasons[0].text
    return f"A second look is advised: {first[:1].lower()}{first[1:]}"


def some(labels: Sequence[str]) -> str:
    """At most four by name; the table has them all."""
    if len(labels) <= MOST_NAMES:
        return join_words(labels)
    return join_words([*labels[: MOST_NAMES - 1], f"{len(labels) - MOST_NAMES + 1} more"])
