"""A bundle's network with shuffled weights, as a model that maps can be drawn of."""

from __future__ import annotations

from dataclasses import dataclass

from models.bundle.parts import ParitySample
from models.bundle.read import Bundle
from models.bundle.runtime import OnnxModel
from models.graph.randomise import randomised
from models.model import ModelInfo


@dataclass(frozen=True)
class _Shuffled:
    """What a runtime asks of a bundle."""

    info: ModelInfo
    classifier: bytes
    gradients: bytes
    parity: ParitySample


def randomised_model(bundle: Bundle, seed: int) -> OnnxModel:
    """The bundle's classifier with every weight tensor shuffled; its parity would not hold."""
    classifier, gradients = randomised(bundle.classifier, seed)
    return OnnxModel(_Shuffled(bundle.info, classifier, gradients, bundle.parity))
