"""A bundle's model at a precision: fp32, or a variant that was accepted and agrees with its record.

fp32        classifier and gradients on onnxruntime (models.bundle.runtime)
a variant   classifier by the variant; gradients on the fp32 graph, always: maps show what the
            network does, not how it was rounded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.bundle.manifest import CLASSIFIER
from models.bundle.providers import Execution
from models.bundle.read import Bundle
from models.bundle.runtime import OUTPUT_TOLERANCE, OnnxModel
from models.bundle.runtime_classifier import OnnxClassifier
from models.bundle.tensors import largest_error
from models.bundle.variant import FOLDER, Kind, read_variant
from models.errors import BundleError
from models.model import ModelInfo
from models.recipes import Composed, Found, Line, Weights


class Classifying(Protocol):
    """The forward half of a model, on some runtime."""

    @property
    def runtime(self) -> str: ...
    @property
    def outputs(self) -> list[str]: ...
    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]: ...


class VariantModel(Composed):
    """models.model.Model whose classifier is a variant. Thread-safe, as its parts are.

    precision: the variant's kind. base: the bundle in fp32, which gives the gradients.
    """

    def __init__(self, precision: str, classifier: Classifying, base: OnnxModel) -> None:
        self.precision = precision
        self.info: ModelInfo = base.info
        self._classifier = classifier
        self._base = base

    @property
    def runtime(self) -> str:
        """Of the classifier, e.g. 'openvino 2026.4.1 cpu bf16'."""
        return self._classifier.runtime

    @property
    def outputs(self) -> list[str]:
        """All names that `forward` can be asked for."""
        return self._classifier.outputs

    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """As models.model.Model.forward, by the variant."""
        return self._classifier.forward(x, outputs)

    def gradients(
        self, x: NDArray[np.float32], weights: Weights, wanted: Sequence[str] | None = None
    ) -> Found:
        """As models.model.Model.gradients, by the fp32 graph."""
        return self._base.gradients(x, weights, wanted)

    def paths(self, line: Line, weights: Weights) -> Found:
        """As models.model.Model.paths, by the fp32 graphs."""
        return self._base.paths(line, weights)


def load_variant(
    bundle: Bundle, name: str, base: OnnxModel, *, threads: int = 1, streams: int = 1
) -> VariantModel:
    """The accepted variant `name` of the bundle, checked on the stored sample.

    base: the same bundle in fp32. threads: of one call. streams: calls side by side (OpenVINO; an
    onnxruntime session takes any number). Raises BundleError, as models.bundle.variant says.
    """
    variant = read_variant(bundle, name)
    data = bundle.classifier if variant.classifier is None else variant.classifier
    classifier = open_classifier(variant.kind, base.info, data, threads=threads, streams=streams)
    check_tolerance(classifier, bundle, variant.record.tolerance, variant.kind)
    return VariantModel(name, classifier, base)


def open_classifier(
    kind: Kind, info: ModelInfo, data: bytes, *, threads: int = 1, streams: int = 1
) -> Classifying:
    """A classifier of this kind from its graph, measured or not."""
    file = f"{FOLDER}/{kind.name}/{CLASSIFIER}" if kind.quantised else CLASSIFIER
    if kind.runtime == "onnxruntime":
        return OnnxClassifier(info, data, Execution(threads), file)
    from models.bundle.runtime_openvino import OpenVinoClassifier  # an extra's package

    return OpenVinoClassifier(info, data, kind.hint, file, threads=threads, streams=streams)


def errors(classifier: Classifying, bundle: Bundle) -> dict[str, float]:
    """Output -> error on the bundle's stored sample, as OnnxModel.check_parity counts it."""
    sample = bundle.parity
    found = classifier.forward(sample.x, list(sample.outputs))
    return {name: largest_error(found[name], value) for name, value in sample.outputs.items()}


def tolerated(found: Mapping[str, float]) -> dict[str, float]:
    """What a variant with these errors is allowed on another machine: half as much again, since
    integers round differently there; never less than fp32 is allowed."""
    return {name: max(OUTPUT_TOLERANCE, float(f"{1.5 * e:.2g}")) for name, e in found.items()}


def check_tolerance(
    classifier: Classifying, bundle: Bundle, tolerance: Mapping[str, float], kind: Kind
) -> None:
    """Raises BundleError bundle_parity where an output is further off than the record says."""
    for name, error in errors(classifier, bundle).items():
        allowed = tolerance.get(name)
        if allowed is None or not error <= allowed:  # NaN is refused too
            raise BundleError(
                f"{name} of the variant {kind.name!r} differs from what was measured",
                code="bundle_parity",
                field="precision",
                found=f"error {error:.2g}",
                expected="a tolerance in its record" if allowed is None else f"at most {allowed:g}",
            )
