"""Saliency maps of an explanation: the predicted class, and its strongest found features.

A class map compares the lesion with parenchyma, a feature map with the lesion itself as it would
be without the feature (models.imaging.edits), where there is an edit for it: then the map says
which voxels make the network see the feature. Each map carries the outcome of its method's trust
card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.attribution.chunked import Tick
from models.attribution.goal import Attribution, Goal, Settings, centred_logit
from models.attribution.registry import DEFAULT, method
from models.bundle.read import Bundle
from models.imaging.edits import EDITS, Edits
from models.model import Model
from models.reasons.rounding import decimals, significant, to_scale
from models.voi import centre
from wire.api import ExplanationParameters
from wire.explanation import FeatureFinding, Prediction, SaliencyMap, TrustCard

MOST_FEATURE_MAPS = 4

Kind = Literal["class", "feature"]


@dataclass(frozen=True)
class Drawn:
    """entries: what the document says of each map. arrays: name -> float32 [P, K, K, K]."""

    entries: list[SaliencyMap]
    arrays: dict[str, NDArray[np.float32]]

    @property
    def methods(self) -> set[tuple[str, str]]:
        """(kind, method) of every map."""
        return {(entry.kind, entry.method) for entry in self.entries}


def saliency(
    model: Model,
    base: NDArray[np.float32],
    size_mm: Sequence[float],
    prediction: Prediction,
    features: Sequence[FeatureFinding],
    bundle: Bundle,
    parameters: ExplanationParameters,
    tick: Tick,
    edits: Edits | None = None,
) -> Drawn:
    """base: [P, M, M, M] (models.voi.normalise). size_mm: the VOI's edges [3]. edits: of the base.

    Class maps are in logits, feature maps in log-odds, both of the plain view. Raises InputError
    for an unknown method.
    """
    x = centre(base, bundle.preprocessing)
    found = [f.id for f in features if f.found][:MOST_FEATURE_MAPS]
    groups: dict[Kind, dict[str, Goal]] = {
        "class": {prediction.class_id: class_goal(prediction.class_id, bundle)},
        "feature": {f: feature_goal(f, bundle, base, size_mm, edits=edits) for f in found},
    }
    total = 1 + len(found)
    entries: list[SaliencyMap] = []
    arrays: dict[str, NDArray[np.float32]] = {}
    for kind, goals in groups.items():
        name = DEFAULT[kind] if parameters.map_method == "default" else parameters.map_method

        def part(fraction: float, goals: dict[str, Goal] = goals) -> None:
            tick((len(entries) + fraction * len(goals)) / total)

        settings = Settings(steps=steps_of(kind, name, parameters.map_steps), seed=parameters.seed)
        drawn = method(name)(model, x, list(goals.values()), settings, part)
        for target, image in zip(goals, drawn, strict=True):
            arrays[f"{kind}/{target}"] = to_scale(image.map)
            entries.append(_entry(kind, target, name, image, bundle))
    return Drawn(entries, arrays)


def steps_of(kind: Kind, name: str, steps: int) -> int:
    """Points on the way of a map of this kind, of the `map_steps` that were asked for.

    From the edited lesion to the lesion is a short way: a quarter of the points bring a feature's
    map as near to its limit (docs/maps.md).
    """
    return max(1, steps // 4) if (kind, name) == ("feature", "integrated_gradients") else steps


def class_goal(class_id: str, bundle: Bundle) -> Goal:
    """The class's centred logit, compared with an image like parenchyma."""
    classes = bundle.manifest.classes
    return Goal({"logits": centred_logit(classes.index(class_id), len(classes))})


def feature_goal(
    feature_id: str,
    bundle: Bundle,
    base: NDArray[np.float32],
    size_mm: Sequence[float] | NDArray,
    view: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    edits: Edits | None = None,
) -> Goal:
    """The feature's log-odds, compared with the lesion without it; with parenchyma where no edit
    takes the feature away.

    view: base -> tensor, of the edited lesion; the plain view by default. edits: of this base,
    where several goals share them.
    """
    weights = feature_target(feature_id, bundle)
    if feature_id not in EDITS:
        return Goal(weights)
    spec, phases = bundle.preprocessing, bundle.manifest.phases
    edited = (edits or Edits(base, size_mm, spec, phases)).without(feature_id)
    # An edit that finds nothing to change leaves no difference to share out.
    if np.array_equal(edited, base):
        return Goal(weights)
    return Goal(weights, view(edited) if view else centre(edited, spec))


def feature_target(feature_id: str, bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    """Weights at the probe taps whose sum is the feature's calibrated log-odds, but for a constant
    and what the probe reads of image measurements.

    The deciding probe is linear in the activations, so the map shares out exactly what it reads of
    the network.
    """
    probes = bundle.probes
    i = probes.features.index(feature_id)
    probe = probes.probes[probes.kinds[i]]
    weights = float(probe.slope[i]) * probe.weights[i] / probes.scale
    places = bundle.evidence.slices
    return {tap: weights[places[tap]].astype(np.float32) for tap in bundle.manifest.probe_taps}


def card_of(bundle: Bundle, kind: Kind, name: str) -> TrustCard | None:
    """The bundle's trust card of a method for this kind of target."""
    return next((c for c in bundle.trust if (c.kind, c.method) == (kind, name)), None)


def _entry(kind: Kind, target: str, name: str, drawn: Attribution, bundle: Bundle) -> SaliencyMap:
    error = drawn.completeness_error
    card = card_of(bundle, kind, name)
    return SaliencyMap(
        name=f"{kind}/{target}",
        target=target,
        kind=kind,
        method=name,
        max_abs=significant(drawn.max_abs),
        share_by_phase={
            phase: decimals(share)
            for phase, share in zip(bundle.manifest.phases, drawn.share_by_phase, strict=True)
        },
        completeness_error=None if error is None else significant(error, 2),
        gate="not_measured" if card is None else "passed" if card.passed else "failed",
        warning=_warning(card),
    )


def _warning(card: TrustCard | None) -> str | None:
    if card is None:
        return "Whether such maps can be trusted on this network was not measured."
    if card.passed:
        return None
    return f"Maps of this kind failed their test on this network: {', '.join(card.failed)}."
