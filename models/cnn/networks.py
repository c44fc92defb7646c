"""Architectures by name. A new one is a file with a Classifier, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from models.cnn.architecture import Architecture
from models.cnn.classifier import Classifier
from models.cnn.network import LesionNet
from models.cnn.wang2019 import Wang2019

NETWORKS: dict[str, Callable[[Architecture, int, int, int], Classifier]] = {
    "lesionnet": lambda a, phases, classes, edge: LesionNet(a, phases, classes),
    "wang2019": Wang2019,
}


def build(architecture: Architecture, phases: int, classes: int, edge: int) -> Classifier:
    """A fresh network for tensors [B, phases, edge, edge, edge]."""
    return NETWORKS[architecture.network](architecture, phases, classes, edge)
