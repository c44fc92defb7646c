"""A classifier as the two ONNX files that serving runs: what training hands to `assemble`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.bundle.parts import ParitySample

CLASSIFIER, GRADIENTS = "classifier.onnx", "gradients.onnx"


@dataclass(frozen=True)
class Graphs:
    """A folder with classifier.onnx and gradients.onnx, checked against each other already.

    classifier.onnx: x [batch, P, K, K, K] -> scores, logits, every tap, '<tap>_map' where the tap
    is the mean of a map. gradients.onnx: x, w_logits, w_<tap>... -> grad_input, grad_<tap>...
    taps: pooled tap -> length, in network order. parity: the sample that servers check themselves
    with. figures: how far the files were from their source ('max_abs', 'gradient_median', ...),
    on `n_compared` lesions.
    """

    folder: Path
    architecture: str
    taps: dict[str, int]
    parity: ParitySample
    figures: dict[str, float] = field(default_factory=dict)
    n_compared: int = 0
    origin: Literal["trained", "adopted"] = "trained"

    @property
    def classifier(self) -> Path:
        return self.folder / CLASSIFIER

    @property
    def gradients(self) -> Path:
        return self.folder / GRADIENTS
