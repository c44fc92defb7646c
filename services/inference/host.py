"""A bundle's weights in memory: its two graphs on onnxruntime, parity checked, warm, measured.

Beside them the variants that were asked for: each is loaded and checked once, when it is first
needed, and only where it was accepted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

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
from models.recipes import GRADIENT_COST, Draw, Line
from models.turns import make_way

T = TypeVar("T")

SECONDS = Histogram(
    "lesionlens_inference_seconds",
    "Time in the graph, by kind of call.",
    ["call"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ROWS = Counter("lesionlens_inference_rows", "Tensors classified or differentiated.", ["call"])


RUN_ROWS = Histogram(
    "lesionlens_inference_batch_rows",
    "Rows of one run of a graph.",
    ["call"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)


class Measured:
    """models.model.Model that runs at most `chunk` rows at once, makes way between, and measures.

    A row's numbers do not depend on where it is cut: on fp32 on the CPU the bits are the same, and
    elsewhere the cuts depend on the request alone.
    """

    def __init__(self, model: OnnxModel | VariantModel, chunk: int) -> None:
        self._model = model
        self._chunk = chunk
        self.info: ModelInfo = model.info
        self._forward = _Meter("forward", 1)
        self._gradients = _Meter("gradients", GRADIENT_COST)
        self._passes = _Meter("passes", 1)
        self._paths = _Meter("paths", GRADIENT_COST)

    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        return self._cut(self._forward, x, lambda at: self._model.forward(x[at], outputs))

    def gradients(
        self,
        x: NDArray[np.float32],
        weights: Mapping[str, NDArray[np.float32]],
        wanted: Sequence[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        def part(at: slice) -> dict[str, NDArray[np.float32]]:
            return self._model.gradients(x[at], {k: v[at] for k, v in weights.items()}, wanted)

        return self._cut(self._gradients, x, part)

    def passes(
        self, draw: Draw, outputs: Sequence[str], weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        return self._passes.measure(draw.count, lambda: self._model.passes(draw, outputs, weights))

    def paths(
        self, line: Line, weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        rows = len(line.points) * len(line.baselines)
        return self._paths.measure(rows, lambda: self._model.paths(line, weights))

    def _cut(
        self,
        meter: _Meter,
        x: NDArray[np.float32],
        part: Callable[[slice], dict[str, NDArray[np.float32]]],
    ) -> dict[str, NDArray[np.float32]]:
        if len(x) <= self._chunk:
            make_way(len(x) * meter.cost)
            return meter.measure(len(x), lambda: part(slice(None)))
        found = []
        for start in range(0, len(x), self._chunk):
            at = slice(start, start + self._chunk)
            make_way(len(x[at]) * meter.cost)
            found.append(meter.measure(len(x[at]), lambda at=at: part(at)))  # type: ignore[misc]
        return {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}


class _Meter:
    """Metrics of one kind of call. cost: of a row, in rows of the classifier."""

    def __init__(self, call: str, cost: int) -> None:
        self.cost = cost
        self._seconds = SECONDS.labels(call)
        self._rows = ROWS.labels(call)
        self._run_rows = RUN_ROWS.labels(call)

    def measure(self, rows: int, run: Callable[[], T]) -> T:
        start = time.perf_counter()
        found = run()
        self._seconds.observe(time.perf_counter() - start)
        self._rows.inc(rows)
        self._run_rows.observe(rows)
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
        chunk: int,
        *,
        execution: Execution | None = None,
        precision: str = FP32,
        streams: int = 1,
    ) -> None:
        start = time.perf_counter()
        model = load_model(bundle, threads, execution)
        self.bundle = bundle
        self.chunk = chunk
        self.precision = precision
        self.shapes = _shapes(model, chunk)
        self.model = Measured(model, chunk)
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
        return Measured(found, self.chunk)


def _shapes(model: OnnxModel, chunk: int) -> dict[str, dict[str, list[int]]]:
    """Run both graphs on as many rows as they will be run on: one and a chunk. Warms them up, and
    shows the true shape of every output."""
    for rows in (chunk, 1):
        x = np.zeros((rows, *model.info.input_shape), np.float32)
        outputs = model.forward(x, model.outputs)
        weights = {"logits": np.ones((rows, len(model.info.classes)), np.float32)}
        gradients = {f"grad_{k}": v for k, v in model.gradients(x, weights).items()}
    return {
        "classifier": {name: [-1, *value.shape[1:]] for name, value in outputs.items()},
        "gradients": {name: [-1, *value.shape[1:]] for name, value in gradients.items()},
    }
