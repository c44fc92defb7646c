"""Two or three plain sentences out of the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from models.vocabulary import Vocabulary
from wire.explanation import FeatureFinding, OutOfDistribution, Prediction

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
    expected_missing: Sequence[str],
    speaks_for_others: Sequence[str],
    ood: OutOfDistribution,
    vocabulary: Vocabulary,
) -> str:
    """What a colleague would say. A lesion outside of what the network knows is said first."""
    sentences = []
    if ood.flagged:
        sentences.append(
            "This lesion lies outside of what the network knows, so its answer is not reliable."
        )
    sentences.append(_verdict(prediction))
    sentences.append(_findings(prediction, features))
    if not ood.flagged:
        sentences.append(_against(prediction, expected_missing, speaks_for_others, vocabulary))
    return " ".join(s for s in sentences if s)


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
    text = f"It finds {_some([f.label for f in found])}"
    clear = [f for f in found if f.influence.ci and f.influence.ci[0] > 0]
    if not clear:
        return f"{text}, but nothing found weighs clearly for this class."
    if len(found) == 1:
        return f"{text}, which weighs for this class."
    heaviest = max(clear, key=lambda f: f.influence.value)
    return f"{text}; of these, {heaviest.label} weighs most for this class."


def _against(
    prediction: Prediction,
    expected_missing: Sequence[str],
    speaks_for_others: Sequence[str],
    vocabulary: Vocabulary,
) -> str:
    """What does not fit: found but typical of others, expected but not found."""
    parts = []
    if speaks_for_others:
        others = [
            c.plural
            for c in vocabulary.classes
            if any(c.id in vocabulary.feature(f).typical_of for f in speaks_for_others)
        ]
        whose = join_words(others) if len(others) <= 2 else "other classes"
        labels = [vocabulary.feature(f).label for f in speaks_for_others]
        parts.append(f"{_some(labels)} {_be(labels)} rather typical of {whose}")
    if expected_missing:
        labels = [vocabulary.feature(f).label for f in expected_missing]
        plural = vocabulary.lesion_class(prediction.class_id).plural
        parts.append(f"{_some(labels)}, typical of {plural}, {_be(labels)} not found")
    if not parts:
        return ""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _some(labels: Sequence[str]) -> str:
    """At most four by name; the table has them all."""
    if len(labels) <= MOST_NAMES:
        return join_words(labels)
    return join_words([*labels[: MOST_NAMES - 1], f"{len(labels) - MOST_NAMES + 1} more"])


def _be(labels: Sequence[str]) -> str:
    return "is" if len(labels) == 1 else "are"
