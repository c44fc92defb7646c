"""Derivative rules by operator. A new one is a function with @rule in one of these files."""

from models.graph.rules import (
    convolution,
    linear,
    normalisation,
    pointwise,
    pooling,
    reduction,
    shaping,
)
from models.graph.rules.base import RULES

__all__ = [
    "RULES",
    "convolution",
    "linear",
    "normalisation",
    "pointwise",
    "pooling",
    "reduction",
    "shaping",
]
