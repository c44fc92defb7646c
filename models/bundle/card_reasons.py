"""The card's part on reasons: relevance, the review flag, trust in maps."""

from __future__ import annotations

from models.bundle.markdown import figure, table, with_interval
from models.bundle.parts import BundleParts

_ORIGINS = {
    "rendering": "by rendering the phantom again with the feature switched off",
    "edit": "by editing the feature out of the image",
}


def reasons(parts: BundleParts) -> str:
    """What the bundle can give reasons with, and how far they go."""
    return "\n\n".join([_relevance(parts), _review(parts), _trust(parts)])


def _relevance(parts: BundleParts) -> str:
    directions = parts.directions
    if directions is None:
        return (
            "How much a feature weighs is known to first order only: there are no paired examples."
        )
    counts = dict(zip(directions.features, directions.counts, strict=True))
    none = [f"`{f}`" for f, n in counts.items() if n == 0]
    text = (
        f"How much a feature weighs is found by taking it out of the activations, learned from "
        f"{sum(counts.values())} training lesions with and without it, made "
        f"{_ORIGINS[directions.origin]}."
    )
    if none:
        text += f" Without pairs, to first order only: {', '.join(none)}."
    return "\n\n".join([text, *_by_class(parts)])


def _by_class(parts: BundleParts) -> list[str]:
    """The features that weigh most in the verdicts of each class."""
    found = parts.evaluation.get("relevance", {}).get("classes", {})
    rows = [
        [f"`{c}`", ", ".join(f"`{f}` {with_interval(v['value'], v['ci'])}" for f, v in top)]
        for c, row in found.items()
        if (top := list(row.items())[:3])
    ]
    if not rows:
        return []
    return [
        "What weighs most in the verdicts of each class, in logits, on validation lesions on which "
        "the feature was found:",
        table(["verdict", "features, mean (95 %)"], rows),
    ]


def _review(parts: BundleParts) -> str:
    judges = parts.judges
    if judges is None:
        return "There is no review flag."
    lines = [
        f"A review flag joins {'four' if judges.image else 'three'} opinions on the class: the "
        "network's, "
        + ("that of image measurements, " if judges.image else "")
        + "the network's without the lesion's surroundings, and that of the features. How well it "
        "tells wrong answers from right ones:"
    ]
    rows = [
        [source, with_interval(q.auroc, q.ci), f"{q.n} ({q.split})",
         figure(judges.review.joined[source].threshold)]
        for source, q in sorted(judges.quality.items())
    ]  # fmt: skip
    lines.append(table(["features from", "AUROC", "lesions", "flagged above"], rows))
    return "\n\n".join(lines)


def _trust(parts: BundleParts) -> str:
    if not parts.trust:
        return "Whether maps can be trusted was not measured."
    rows = [
        [f"`{c.method}`", c.kind, figure(c.pointing), figure(c.auprc), figure(c.control_auprc),
         figure(c.randomisation), figure(c.repeatability), figure(c.reproducibility),
         "passed" if c.passed else "failed: " + ", ".join(c.failed)]
        for c in parts.trust
    ]  # fmt: skip
    head = [
        "map", "of", "pointing", "AUPRC", "best control", "random weights", "repeated",
        "trained again", "gate",
    ]  # fmt: skip
    return "Trust in the maps, on validation lesions:\n\n" + table(head, rows)
