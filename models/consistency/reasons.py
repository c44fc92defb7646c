"""Why a lesion is flagged: which opinions speak against the verdict, the weightiest first."""

from __future__ import annotations

import numpy as np

from models.consistency.review import Opinions, Verdicts

# Code -> what a person is told; {verdict} and {other} are labels of classes.
REASONS = {
    "network_unsure": "The network itself wavers between {verdict} and {other}.",
    "image_disagrees": "Measurements of the image alone speak for {other}, not for {verdict}.",
    "features_disagree": "The features speak for {other}, not for {verdict}.",
    "surroundings": "Without its surroundings the lesion looks like {other} to the network: the "
    "verdict rests on something beside the lesion.",
    "strange": "The lesion is unlike those that the network knows.",
    "weak_agreement": "No opinion contradicts {verdict}, but together they are not sure of it.",
}
_CODES = {
    "image": "image_disagrees", "surroundings": "surroundings", "features": "features_disagree"
}  # fmt: skip
_UNSURE = 0.5  # the network's share of its own verdict
_LEFT = 0.5  # of the network's share of its verdict, where it rests on the surroundings
_STRANGE = 0.4  # odds of no known kind, of MOST


def reasons(judged: Verdicts, opinions: Opinions, row: int = 0) -> list[tuple[str, int]]:
    """[(key of REASONS, index of the class that speaks instead)] of one lesion, never empty.

    An opinion is a reason where its own first choice is another class than the verdict; `other` is
    that choice, or the likeliest alternative of all together. Wiping the surroundings is an
    experiment and not only an opinion: a verdict that it changes rests on them, however little
    weight validation lesions gave it (where a shortcut works, they give it none).
    """
    verdict = int(opinions.verdict[row])
    network = np.asarray(opinions.shares["network"])[row]
    other = int(judged.alternative[row])
    found: list[tuple[float, str, int]] = []
    for expert, code in _CODES.items():
        weight = judged.weights[expert]
        if expert == "surroundings":
            weight = max(weight, max(judged.weights.values()))
        if expert in opinions.shares and weight > 0:
            shares = np.asarray(opinions.shares[expert])[row]
            choice = int(shares.argmax())
            if expert == "surroundings" and shares[verdict] > _LEFT * network[verdict]:
                continue  # it wavers with and without them
            if choice != verdict:
                gap = np.log(max(shares[choice], 1e-4)) - np.log(max(shares[verdict], 1e-4))
                found.append((weight * float(gap), code, choice))
    if float(network.max()) < _UNSURE:
        found.append((0.0, "network_unsure", other))
    if float(judged.strange[row]) >= _STRANGE:
        found.append((float(np.log(judged.strange[row] / _STRANGE)), "strange", other))
    found.sort(key=lambda reason: (-reason[0], reason[1]))
    return [(code, choice) for _, code, choice in found] or [("weak_agreement", other)]
