"""Saliency maps of an explanation: the predicted class, and its strongest found features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.attribution.chunked import Tick
from models.attribution.integrated import Attribution, centred_logit, integrated_gradients
from models.bundle.read import Bundle
from models.model import Model
from models.reasons.rounding import decimals, significant, to_scale
from wire.api import ExplanationParameters
from wire.explanation import FeatureFinding, Prediction, SaliencyMap

METHOD = "integrated_gradients"
MOST_FEATURE_MAPS = 4


@dataclass(frozen=True)
class Drawn:
    """entries: what the document says of each map. arrays: name -> float32 [P, K, K, K]."""

    entries: list[SaliencyMap]
    arrays: dict[str, NDArray[np.float32]]


def saliency(
    model: Model,
    x: NDArray[np.float32],
    prediction: Prediction,
    features: Sequence[FeatureFinding],
    bundle: Bundle,
    parameters: ExplanationParameters,
    tick: Tick,
) -> Drawn:
    """x: the plain tensor [P, K, K, K]. Class maps are in logits, feature maps in log-odds."""
    classes = bundle.manifest.classes
    weights = centred_logit(classes.index(prediction.class_id), len(classes))
    targets: list[tuple[str, str, dict[str, NDArray]]] = [
        (f"class/{prediction.class_id}", prediction.class_id, {"logits": weights})
    ]
    for feature in [f for f in features if f.found][:MOST_FEATURE_MAPS]:
        targets.append((f"feature/{feature.id}", feature.id, feature_target(feature.id, bundle)))
    entries, arrays = [], {}
    for i, (name, target_id, target) in enumerate(targets):

        def part(fraction: float, i: int = i) -> None:
            tick((i + fraction) / len(targets))

        drawn = integrated_gradients(model, x, target, parameters.map_steps, part)
        arrays[name] = to_scale(drawn.map)
        entries.append(_entry(name, target_id, drawn, bundle.manifest.phases))
    return Drawn(entries, arrays)


def feature_target(feature_id: str, bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    """Weights at the probe taps whose sum is the feature's calibrated log-odds, but a constant.

    The deciding probe is linear in the activations, so the map shares out exactly what it reads.
    """
    probes = bundle.probes
    i = probes.features.index(feature_id)
    probe = probes.probes[probes.kinds[i]]
    weights = float(probe.slope[i]) * probe.weights[i] / probes.scale
    return {tap: weights[part].astype(np.float32) for tap, part in bundle.probe_slices.items()}


def _entry(name: str, target: str, drawn: Attribution, phases: Sequence[str]) -> SaliencyMap:
    error = drawn.completeness_error
    return SaliencyMap(
        name=name,
        target=target,
        method=METHOD,
        max_abs=significant(drawn.max_abs),
        share_by_phase={
            phase: decimals(share)
            for phase, share in zip(phases, drawn.share_by_phase, strict=True)
        },
        completeness_error=None if error is None else significant(error, 2),
    )
