"""The classifier in OpenVINO: the sibling of runtime.py, and the only file that imports openvino.

Two compilations of one file: `vectors` has scores, logits and pooled taps, which is what serving
asks for all the time; a map of a tap must leave the layout in which convolutions are fast, so maps
come from a second one that is made when one is first asked for.

Threads, as measured: each call runs on one thread, and calls run side by side in as many streams as
there are infer requests; one call on several threads gains less than it takes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.forward import Forward
from models.errors import BundleError
from models.model import ModelInfo


class OpenVinoClassifier(Forward):
    """classifier.onnx, or a quantised form of it, on OpenVINO's CPU plugin. Thread-safe.

    hint: 'f32' or 'bf16', what is computed in where the graph does not say integers. threads: of
    one call. streams: calls that run side by side; more wait for their turn. Raises BundleError:
    variant_runtime without the package, bundle_manifest for a graph that it cannot open.
    """

    def __init__(
        self,
        info: ModelInfo,
        data: bytes,
        hint: str,
        file: str,
        *,
        threads: int = 1,
        streams: int = 1,
    ) -> None:
        self._openvino = _package()
        self._hint, self._file = hint, file
        self._threads, self._streams = threads, streams
        self._lock = threading.Lock()
        self._maps: _Compiled | None = None
        try:
            self._model = self._openvino.Core().read_model(data, b"")
        except RuntimeError:  # with a report of many lines
            raise BundleError(
                "OpenVINO cannot open the graph", code="bundle_manifest", field=file
            ) from None
        super().__init__(info, [output.get_any_name() for output in self._model.outputs], file)
        self._vectors = self._compiled(["scores", "logits", *info.taps])

    @property
    def runtime(self) -> str:
        """E.g. 'openvino 2026.4.1 cpu bf16'."""
        return f"openvino {openvino_version()} cpu {self._hint}"

    def _run(self, names: Sequence[str], x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return self._of(names).run(names, x)

    def _of(self, names: Sequence[str]) -> _Compiled:
        if all(name in self._vectors.outputs for name in names):
            return self._vectors
        with self._lock:
            if self._maps is None:
                self._maps = self._compiled(self._outputs)
            return self._maps

    def _compiled(self, names: Sequence[str]) -> _Compiled:
        model = self._model.clone()
        wanted = [o for o in model.outputs if o.get_any_name() in names]
        part = self._openvino.Model([o.node for o in wanted], model.get_parameters())
        options = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": self._streams,
            "INFERENCE_NUM_THREADS": self._threads * self._streams,
            # Other processes share the cores: the scheduler may move our threads.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = self._openvino.Core().compile_model(part, "CPU", options)
        except RuntimeError:
            raise BundleError(
                "OpenVINO cannot compile the graph", code="bundle_manifest", field=self._file
            ) from None
        return _Compiled(compiled, self._streams)


class _Compiled:
    """A compiled model and its infer requests; a call takes a free one, or waits."""

    def __init__(self, compiled: Any, requests: int) -> None:
        self.outputs = {o.get_any_name(): o for o in compiled.outputs}
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(requests):
            self._free.put(compiled.create_infer_request())

    def run(self, names: Sequence[str], x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        request = self._free.get()
        try:
            # The input is read in place, and is not changed meanwhile: `x` is ours to the end.
            request.infer({0: x}, share_inputs=True)
            # A request's own memory is written anew by the next call.
            return {n: np.array(request.get_tensor(self.outputs[n]).data) for n in names}
        finally:
            self._free.put(request)


def openvino_version() -> str:
    """Of the installed package; 'absent' without one."""
    try:
        return package_version("openvino")
    except PackageNotFoundError:
        return "absent"


def _package() -> Any:
    try:
        import openvino
    except ImportError:
        raise BundleError(
            "the package openvino is not installed",
            code="variant_runtime",
            field="precision",
            expected="pip install 'lesionlens[openvino]'",
        ) from None
    return openvino
