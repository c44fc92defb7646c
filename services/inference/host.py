"""The one place of a deployment that holds model weights: a bundle, its sessions, a bounded pool.

    request --admit (else 503)--> pool of `sessions` threads --> onnxruntime

The graphs' sessions are shared by the pool's threads: onnxruntime allows it, and several calls side
by side beat one call on several threads. The event loop only waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram

from models.bundle.read import Bundle
from models.bundle.runtime import OnnxModel, load_model
from models.errors import Unavailable
from models.model import ModelInfo
from services.common.settings import Settings

T = TypeVar("T")

SECONDS = Histogram(
    "lesionlens_inference_seconds",
    "Time in the graph, by kind of call.",
    ["call"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ROWS = Counter("lesionlens_inference_rows", "Tensors classified or differentiated.", ["call"])
WAITING = Gauge(
    "lesionlens_inference_queue_depth",
    "Admitted requests that are not answered yet.",
    multiprocess_mode="livesum",
)
REFUSED = Counter("lesionlens_inference_refused", "Requests refused because the queue was full.")


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
        self, x: NDArray[np.float32], weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        with SECONDS.labels("gradients").time():
            found = self._model.gradients(x, weights)
        ROWS.labels("gradients").inc(len(x))
        return found


class ModelHost:
    """Loads a bundle's graphs and runs calls on them, no more than `sessions` at a time.

    Not ready before `load`. At most `settings.queue` requests are admitted beyond those that run.
    """

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle = bundle
        self.settings = settings
        self.load_seconds = 0.0
        self.shapes: dict[str, dict[str, list[int]]] = {}
        self._model: Measured | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._admitted = 0

    @property
    def ready(self) -> bool:
        return self._model is not None

    @property
    def model(self) -> Measured:
        """The loaded model. Raises Unavailable while it is loading or after `close`."""
        if self._model is None:
            raise Unavailable("the model is loading", code="not_ready", retry_after=2)
        return self._model

    def load(self) -> None:
        """Build the sessions, check parity, run both graphs once. Raises BundleError."""
        start = time.perf_counter()
        model = load_model(self.bundle, self.settings.threads)
        self.shapes = _shapes(model)
        self._pool = ThreadPoolExecutor(self.settings.sessions, thread_name_prefix="inference")
        self._model = Measured(model)
        self.load_seconds = time.perf_counter() - start

    def close(self) -> None:
        self._model = None
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place in the queue, to be taken before a body is read. Raises Unavailable when full.

        Belongs to the event loop's thread.
        """
        limit = self.settings.sessions + self.settings.queue
        if self._admitted >= limit:
            REFUSED.inc()
            raise Unavailable(
                f"the inference queue is full ({limit} requests)", code="queue_full", retry_after=1
            )
        self._admitted += 1
        WAITING.inc()
        try:
            yield
        finally:
            self._admitted -= 1
            WAITING.dec()

    async def run(self, call: Callable[..., T], *arguments: object, **named: object) -> T:
        """Run in the pool. The caller holds a place from `admit`."""
        if self._pool is None:
            raise Unavailable("the model is loading", code="not_ready", retry_after=2)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(call, *arguments, **named))


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
