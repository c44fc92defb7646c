"""A bundle's weights in memory: its two graphs on onnxruntime, parity checked, warm, measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

from models.bundle.read import Bundle
from models.bundle.runtime import OnnxModel, load_model
from models.model import ModelInfo
from models.recipes import Draw, Line

SECONDS = Histogram(
    "lesionlens_inference_seconds",
    "Time in the graph, by kind of call.",
    ["call"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ROWS = Counter("lesionlens_inference_rows", "Tensors classified or differentiated.", ["call"])


class Measured:
    """models.model.Model that records how long each call took."""

    def __init__(self, model: OnnxModel) -> None:
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
        self,
        x: NDArray[np.float32],
        weights: Mapping[str, NDArray[np.float32]],
        wanted: Sequence[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        with SECONDS.labels("gradients").time():
            found = self._model.gradients(x, weights, wanted)
        ROWS.labels("gradients").inc(len(x))
        return found

    def passes(
        self, draw: Draw, outputs: Sequence[str], weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        with SECONDS.labels("passes").time():
            found = self._model.passes(draw, outputs, weights)
        ROWS.labels("passes").inc(draw.count)
        return found

    def paths(
        self, line: Line, weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        with SECONDS.labels("paths").time():
            found = self._model.paths(line, weights)
        ROWS.labels("paths").inc(len(line.points) * len(line.baselines))
        return found


class ModelHost:
    """One loaded bundle: its graphs, checked and warm, and the shapes of all that they give.

    Building it takes as long as loading does: call it in a thread. Whoever holds the host may use
    it; its memory goes with the last holder. Raises BundleError.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        start = time.perf_counter()
        model = load_model(bundle, threads)
        self.bundle = bundle
        self.shapes = _shapes(model)
        self.model = Measured(model)
        self.load_seconds = time.perf_counter() - start


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
