"""A bundle's weights in memory: its two graphs on onnxruntime, parity checked, warm, measured.

Beside them the variants that were asked for: each is loaded and checked once, when it is first
needed, and only where it was accepted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

from models.bundle.precision import VariantModel, load_variant
from models.bundle.providers import Execution
from models.bundle.read import Bundle
from models.bundle.runtime import OnnxModel, load_model
from models.bundle.variant import FP32
from models.errors import BundleError, InputError
from models.model import ModelInfo

SECONDS = Histogram(
    "lesionlens_inference_seconds",
    "Time in the graph, by kind of call.",
    ["call"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ROWS = Counter("lesionlens_inference_rows", "Tensors classified or differentiated.", ["call"])


class Measured:
    """models.model.Model that records how long each call took."""

    def __init__(self, model: OnnxModel | VariantModel) -> None:
        self._model = model
        self.info: ModelInfo = model.info

    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        with SECONDS.labels("forward").time():
            found = self._model.forward(x, outputs)
        ROWS.labels("forward").inc(len(x))
        return found

    def gradients(
        self, x: NDArray[np.float32], weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        with SECONDS.labels("gradients").time():
            found = self._model.gradients(x, weights)
        ROWS.labels("gradients").inc(len(x))
        return found


class ModelHost:
    """One loaded bundle: its graphs, checked and warm, and the shapes of all that they give.

    Building it takes as long as loading does: call it in a thread. Whoever holds the host may use
    it; its memory goes with the last holder. Raises BundleError.

    model: fp32, which explanations and gradients always run on. precision: what answers who asks
    for none. streams: calls side by side, for a variant on OpenVINO.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        *,
        execution: Execution | None = None,
        precision: str = FP32,
        streams: int = 1,
    ) -> None:
        start = time.perf_counter()
        model = load_model(bundle, threads, execution)
        self.bundle = bundle
        self.precision = precision
        self.shapes = _shapes(model)
        self.model = Measured(model)
        self._base = model
        self._threads, self._streams = threads, streams
        self._variants: dict[str, Measured] = {}
        self._lock = threading.Lock()
        self.load_seconds = time.perf_counter() - start

    def at(self, precision: str) -> Measured:
        """The model at a precision. Loads a variant at its first use: call it in a thread.

        Raises InputError (422) for a precision that this bundle does not serve, with the reason;
        BundleError for a variant that is damaged.
        """
        if precision == FP32:
            return self.model
        with self._lock:
            if precision not in self._variants:
                self._variants[precision] = self._loaded(precision)
            return self._variants[precision]

    def _loaded(self, precision: str) -> Measured:
        try:
            found = load_variant(
                self.bundle, precision, self._base, threads=self._threads, streams=self._streams
            )
        except BundleError as error:
            if not error.code.startswith("variant_"):
                raise
            raise InputError(
                error.message,
                code=error.code,
                field=error.field,
                found=error.found,
                expected=error.expected,
            ) from None
        found.forward(np.zeros((1, *found.info.input_shape), np.float32), ["scores"])
        return Measured(found)


def _shapes(model: OnnxModel) -> dict[str, dict[str, list[int]]]:
    """Run both graphs on one tensor: warms them up, and shows the true shape of every output."""
    x = np.zeros((1, *model.info.input_shape), np.float32)
    outputs = model.forward(x, model.outputs)
    weights = {"logits": np.ones((1, len(model.info.classes)), np.float32)}
    gradients = {f"grad_{k}": v for k, v in model.gradients(x, weights).items()}
    return {
        "classifier": {name: [-1, *value.shape[1:]] for name, value in outputs.items()},
        "gradients": {name: [-1, *value.shape[1:]] for name, value in gradients.items()},
    }
