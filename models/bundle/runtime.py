"""The bundle's graphs in onnxruntime: the in-process `Model`; runtime_sessions opens its sessions.

`run` of an onnxruntime session may be called from many threads; a session's own thread pool is
small by default (one), since several calls side by side beat one call on several threads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.bundle.manifest import CLASSIFIER, GRADIENTS, PARITY
from models.bundle.parts import ParitySample
from models.bundle.providers import Execution
from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime_classifier import OnnxClassifier
from models.bundle.runtime_sessions import Session
from models.bundle.sliced import slices
from models.bundle.tensors import checked, largest_error
from models.errors import BundleError, InputError
from models.model import ModelInfo
from models.recipes import Composed, Draw, Found, Line, Weights, chunks, joined

# Outputs: largest error, relative to the largest value (but at least 1). Gradients: a ReLU or a
# pooling near-tie may flip between processors, so the 99th percentile is compared, and the whole
# in relative L2 with room for a few flips.
OUTPUT_TOLERANCE = 1e-3
GRADIENT_TOLERANCE = 1e-3
GRADIENT_L2_TOLERANCE = 5e-2


class Graphed(Protocol):
    """What a runtime asks of a bundle."""

    @property
    def info(self) -> ModelInfo: ...
    @property
    def classifier(self) -> bytes: ...
    @property
    def gradients(self) -> bytes: ...
    @property
    def parity(self) -> ParitySample: ...


class OnnxModel(OnnxClassifier, Composed):
    """models.model.Model over onnxruntime, from a checked bundle. Thread-safe.

    On the CPU with `threads`, unless an execution says where and how.
    """

    def __init__(
        self, bundle: Graphed, threads: int = 1, execution: Execution | None = None
    ) -> None:
        execution = execution or Execution(threads)
        classifier, gradients = bundle.classifier, bundle.gradients
        super().__init__(bundle.info, classifier, execution, CLASSIFIER)
        self.bundle = bundle
        self._gradients = Session(GRADIENTS, gradients, execution)
        inputs = [i.name for i in self._gradients.get_inputs()]
        _require(GRADIENTS, inputs, ["x", "w_logits", *(f"w_{tap}" for tap in self.info.taps)])
        results = [output.name for output in self._gradients.get_outputs()]
        _require(GRADIENTS, results, ["grad_input", *(f"grad_{tap}" for tap in self.info.taps)])
        self._lengths = {"logits": len(self.info.classes), **self.info.taps}
        self._heads, self._paths = slices(
            classifier, gradients, self._lengths, self.info.input_shape,
            lambda data: Session(GRADIENTS, data, execution),
        )  # fmt: skip

    def gradients(
        self, x: NDArray[np.float32], weights: Weights, wanted: Sequence[str] | None = None
    ) -> Found:
        """As models.model.Model.gradients; weights left out are zero. Raises InputError."""
        x = checked(x, "x", (None, *self.info.input_shape))
        everything = ["input", *self.info.taps]
        names = everything if wanted is None else list(dict.fromkeys(wanted))
        _known(names, everything, "wanted")
        _known(weights, self._lengths, "weights")
        feed = {"x": x}
        for name, length in self._lengths.items():
            given = weights.get(name)
            feed[f"w_{name}"] = (
                np.zeros((len(x), length), dtype=np.float32)
                if given is None
                else checked(given, f"weights.{name}", (len(x), length))
            )
        if not names:
            return {}
        results = [f"grad_{name}" for name in names]
        if self._heads is not None and "input" not in names:
            found = self._heads.run(x, results, feed)
            if found is not None:
                return {name: found[f"grad_{name}"] for name in names}
        return dict(zip(names, self._gradients.run(results, feed), strict=True))

    def passes(self, draw: Draw, outputs: Sequence[str], weights: Weights) -> Found:
        """As models.model.Model.passes. Raises InputError."""
        checked(draw.base, "base", (self.info.input_shape[0], *(draw.spec.base_voxels,) * 3))
        grads = [f"grad_{tap}" for tap in self.info.taps]
        _known(outputs, [*self._outputs, *grads], "outputs")
        _known(weights, self._lengths, "weights")
        for name, given in weights.items():
            checked(given, f"weights.{name}", (self._lengths[name],))
        if self._heads is None or not any(name in grads for name in outputs):
            return super().passes(draw, outputs, weights)
        parts = []
        for rows in chunks(draw.views()):
            feed = {
                f"w_{name}": np.tile(
                    weights.get(name, np.zeros(length, np.float32)), (len(rows), 1)
                )
                for name, length in self._lengths.items()
            }
            found = self._heads.run(rows, outputs, feed)
            if found is None:
                return super().passes(draw, outputs, weights)
            parts.append(found)
        return joined(parts, outputs)

    def paths(self, line: Line, weights: Weights) -> Found:
        """As models.model.Model.paths. Raises InputError."""
        checked(line.x, "x", self.info.input_shape)
        goals = len(checked(line.baselines, "baselines", (None, *self.info.input_shape)))
        _known(weights, self._lengths, "weights")
        for name, given in weights.items():
            checked(given, f"weights.{name}", (goals, self._lengths[name]))
        if self._paths is None or not self._paths.serves(list(weights)):
            return super().paths(line, weights)
        return self._paths.run(line, weights)

    def check_parity(self) -> dict[str, float]:
        """Run the stored sample and give the error of each output.

        Errors of outputs are relative to max(1, largest value), those of gradients relative L2.
        Raises BundleError bundle_parity, also where the sample leaves an output or gradient out.
        """
        sample = self.bundle.parity
        taps = list(self.info.taps)
        for kind, there, needed in (
            ("output", sample.outputs, ["scores", "logits", *taps]),
            ("gradient", sample.gradients, ["input", *taps]),
        ):
            left_out = [name for name in needed if name not in there]
            if left_out:
                raise BundleError(
                    f"the stored sample lacks the {kind} {left_out[0]!r}",
                    code="bundle_parity",
                    field=PARITY,
                )
        try:
            outputs = self.forward(sample.x, list(sample.outputs))
            found = self.gradients(sample.x, sample.weights)
            short = self._short_ways(sample)
        except InputError as fault:  # a sample of another network
            raise BundleError(
                f"the stored sample does not fit the network: {fault.line}",
                code="bundle_parity",
                field=PARITY,
            ) from None
        errors: dict[str, float] = {}
        for name, value in outputs.items():
            error = largest_error(value, sample.outputs[name])
            errors[name] = error
            _refuse(name, error, OUTPUT_TOLERANCE)
        for name, value in found.items():
            tail, whole = _gradient_errors(value, sample.gradients[name])
            errors[f"grad_{name}"] = whole
            _refuse(f"grad_{name}", tail, GRADIENT_TOLERANCE)
            _refuse(f"grad_{name}", whole, GRADIENT_L2_TOLERANCE)
        for name, (value, expected) in short.items():
            tail, whole = _gradient_errors(value, expected)
            errors[name] = whole
            _refuse(name, tail, GRADIENT_TOLERANCE)
            _refuse(name, whole, GRADIENT_L2_TOLERANCE)
        return errors

    def _short_ways(
        self, sample: ParitySample
    ) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """What the graphs cut out of the whole ones say of the sample, and what they should.

        A path from an image to itself has the image's own gradient all along.
        """
        known = {k: w for k, w in sample.weights.items() if self._paths and self._paths.serves([k])}
        if not known:
            return {}
        found = [
            self.paths(Line(x, x[None], steps=1), {k: w[i : i + 1] for k, w in known.items()})
            for i, x in enumerate(sample.x)
        ]
        expected = self.gradients(sample.x, known, ["input"])["input"]
        return {"paths": (np.concatenate([f["gradient"] for f in found]), expected)}


def load_model(
    source: Bundle | Path | str, threads: int = 1, execution: Execution | None = None
) -> OnnxModel:
    """Open a bundle, build its sessions, check parity on the stored sample.

    Raises BundleError, and InputError where the execution's provider is not installed.
    """
    bundle = source if isinstance(source, Bundle) else read_bundle(source)
    model = OnnxModel(bundle, threads, execution)
    model.check_parity()
    return model


def _require(file: str, present: Sequence[str], needed: Sequence[str]) -> None:
    absent = [name for name in needed if name not in present]
    if absent:
        raise BundleError(f"the graph has no {absent[0]!r}", code="bundle_manifest", field=file)


def _known(names: Iterable[str], known: Collection[str], field: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            "no such output to weigh" if field == "weights" else "no such output",
            code="unknown_output",
            field=field,
            found=unknown[0],
            expected="one of " + ", ".join(known),
        )


def _refuse(name: str, error: float, tolerance: float) -> None:
    if not error <= tolerance:  # NaN is refused too
        raise BundleError(
            f"{name} differs from what was computed at export",
            code="bundle_parity",
            field=PARITY,
            found=f"error {error:.2g}",
            expected=f"at most {tolerance:g}",
        )


def _gradient_errors(
    found: NDArray[np.float32], expected: NDArray[np.float32]
) -> tuple[float, float]:
    """99th percentile of the error over the largest value, and relative L2."""
    if found.shape != expected.shape:
        return float("inf"), float("inf")
    difference = np.abs(found.astype(np.float64) - expected)
    largest = float(np.abs(expected).max(initial=0)) or 1.0
    norm = float(np.linalg.norm(expected)) or 1.0
    return float(np.quantile(difference, 0.99)) / largest, float(np.linalg.norm(difference)) / norm
