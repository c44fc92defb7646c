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

from models.bundle.tensors import asked, checked
from models.errors import BundleError
from models.model import ModelInfo


class OpenVinoClassifier:
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
        self.info = info
        self._openvino = _package()
        self._hint, self._file = hint, file
        self._threads, self._streams = threads, streams
        self._lock = threading.Lock()
        self._maps: _Compiled | None = None
        try:
            self._model = self._openvino.Core().read_model(data, b"")
        except Exception:  # RuntimeError with a report of many lines
            raise BundleError(
                "OpenVINO cannot open the graph", code="bundle_manifest", field=file
            ) from None
        self._known = [output.get_any_name() for output in self._model.outputs]
        vectors = ["scores", "logits", *info.taps]
        absent = [name for name in vectors if name not in self._known]
        if absent:
            raise BundleError(f"the graph has no {absent[0]!r}", code="bundle_manifest", field=file)
        self._vectors = self._compiled(vectors)

    @property
    def runtime(self) -> str:
        """For the provenance, e.g. 'openvino 2026.4.1 cpu bf16'."""
        return f"openvino {openvino_version()} cpu {self._hint}"

    @property
    def outputs(self) -> list[str]:
        """All names that `forward` can be asked for."""
        return list(self._known)

    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """x [B, P, X, Y, Z] -> the asked outputs, nothing else is copied. Raises InputError."""
        x = checked(x, "x", (None, *self.info.input_shape))
        names = asked(outputs, self._known)
        if not names:
            return {}
        return self._of(names).run(names, x)

    def _of(self, names: Sequence[str]) -> _Compiled:
        if all(name in self._vectors.outputs for name in names):
            return self._vectors
        with self._lock:
            if self._maps is None:
                self._maps = self._compiled(self._known)
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
        except Exception:
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
