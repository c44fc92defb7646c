"""What a bundle is made of, as values: the same classes on the writing and the reading side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.bundle.judges import Judges
from models.ood import OutOfDistributionScore
from models.passes import PassRecipe
from models.probes.evidence import Evidence
from models.probes.probeset import ProbeSet
from models.relevance.directions import Directions
from models.vocabulary import Vocabulary
from models.voi import Preprocessing
from wire.explanation import TrustCard


@dataclass(frozen=True)
class Reference:
    """Training lesions in activation space: the probes' marginal, and what 'similar' looks at.

    activations: float32 [n, D_taps], averaged over passes, the probe taps concatenated in order.
    lesion_ids, class_ids: [n]. features: ids labelled present on each lesion, [n] lists.
    """

    activations: NDArray[np.float32]
    lesion_ids: list[str]
    class_ids: list[str]
    features: list[list[str]]

    def __post_init__(self) -> None:
        n = len(self.lesion_ids)
        if self.activations.ndim != 2 or self.activations.shape[0] != n:
            raise ValueError(f"activations {self.activations.shape} for {n} lesions")
        if len(self.class_ids) != n or len(self.features) != n:
            raise ValueError("class_ids and features need one entry a lesion")


@dataclass(frozen=True)
class ParitySample:
    """What the network computed when it was exported: every server must get the same.

    x: float32 [n, P, K, K, K]. outputs: 'scores', 'logits' and taps -> arrays.
    weights, gradients: as in models.model.Model.gradients ('logits' and taps; 'input' and taps).
    """

    x: NDArray[np.float32]
    outputs: Mapping[str, NDArray[np.float32]]
    weights: Mapping[str, NDArray[np.float32]]
    gradients: Mapping[str, NDArray[np.float32]]

    def to_tensors(self) -> dict[str, NDArray[np.float32]]:
        """Flat names: 'x', 'outputs/<name>', 'weights/<name>', 'gradients/<name>'."""
        tensors = {"x": self.x}
        for group in ("outputs", "weights", "gradients"):
            tensors |= {f"{group}/{name}": value for name, value in getattr(self, group).items()}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.float32]]) -> ParitySample:
        groups: dict[str, dict[str, NDArray[np.float32]]] = {}
        for key, value in tensors.items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = value
        return cls(
            tensors["x"],
            groups.get("outputs", {}),
            groups.get("weights", {}),
            groups.get("gradients", {}),
        )


@dataclass(frozen=True)
class BundleParts:
    """Everything that training hands over to `write_bundle`.

    taps: pooled tap -> length, in network order. probe_taps: those that probes and reference read,
    concatenated in this order; measurements: of the image, that probes read after them.
    classifier, gradients: ONNX files or their bytes. training: free JSON record of the run
    ('seed', 'profile', 'epochs', 'n_train', ...).
    evaluation: JSON of models.evaluation ('classifier', 'features', 'parity', each with 'split').
    optional_phases: may be missing from a study, since the network was trained with phase dropout;
    never the first phase. origin: 'adopted' where the classifier was trained elsewhere.
    directions: along which features are taken away. judges: of the verdict. trust: cards of the map
    methods.
    """

    name: str
    architecture: str
    trained_on: str
    synthetic: bool
    vocabulary: Vocabulary
    taps: dict[str, int]
    probe_taps: list[str]
    preprocessing: Preprocessing
    recipe: PassRecipe
    temperature: float
    classifier: Path | bytes
    gradients: Path | bytes
    probes: ProbeSet
    reference: Reference
    ood: OutOfDistributionScore
    parity: ParitySample
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    optional_phases: list[str] = field(default_factory=list)
    modality: Literal["MR", "CT"] = "MR"
    origin: Literal["trained", "adopted"] = "trained"
    measurements: list[str] = field(default_factory=list)
    directions: Directions | None = None
    judges: Judges | None = None
    trust: list[TrustCard] = field(default_factory=list)

    @property
    def evidence(self) -> Evidence:
        """Layout of the vector that probes read. Raises KeyError for an unknown tap."""
        return Evidence.of(self.probe_taps, self.taps, self.measurements)
