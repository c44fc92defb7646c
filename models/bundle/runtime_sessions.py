"""Sessions of onnxruntime, on the CPU or on a GPU. With runtime.py the only file that imports it.

On a GPU inputs and outputs are bound to device memory (IO binding), so one copy goes in and one
comes out; a batch of one may replay a captured CUDA graph, whose buffers never move. On the CPU
convolutions over volumes run over slices (models.graph.flat).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.bundle.providers import Execution, configured
from models.errors import BundleError, InputError
from models.graph.flat import flat_file

Feed = Mapping[str, NDArray[Any]]


def version() -> str:
    """Of the installed onnxruntime."""
    return str(ort.__version__)


class Session:
    """One ONNX graph, open. `run` may be called from many threads.

    fixed: also capture a CUDA graph for batches of one, where the execution asks for graphs.
    Raises InputError where the provider is not in the installed onnxruntime, BundleError for a
    graph that cannot be opened.
    """

    def __init__(
        self, name: str, data: bytes, execution: Execution, *, fixed: bool = False
    ) -> None:
        check_provider(execution)
        self._execution = execution
        self._session = _open(name, data, execution, graph=False)
        self._captured = None
        if fixed and execution.on_gpu and execution.graphs:
            self._captured = _Captured(_open(name, data, execution, graph=True), execution.device)

    def get_inputs(self) -> list[Any]:
        """Each with a name and a shape, as onnxruntime gives them."""
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        """As get_inputs."""
        return list(self._session.get_outputs())

    def run(self, names: Sequence[str], feed: Feed) -> list[NDArray[np.float32]]:
        """The named outputs, in host memory."""
        if not self._execution.on_gpu:
            return self._session.run(list(names), dict(feed))
        if self._captured is not None and all(len(value) == 1 for value in feed.values()):
            return self._captured.run(names, feed)
        binding = self._session.io_binding()
        for name, value in feed.items():
            binding.bind_ortvalue_input(name, _on_device(value, self._execution.device))
        for name in names:
            binding.bind_output(name, "cuda", self._execution.device)
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()


class _Captured:
    """A session whose first run is captured as a CUDA graph; later runs replay it.

    A replay reads and writes the same addresses, so all outputs are bound once and calls take
    turns. Source: onnxruntime.ai/docs/execution-providers, 'Using CUDA Graphs'.
    """

    def __init__(self, session: Any, device: int) -> None:
        self._session, self._device = session, device
        self._lock = threading.Lock()
        self._binding: Any = None
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}

    def run(self, names: Sequence[str], feed: Feed) -> list[NDArray[np.float32]]:
        with self._lock:
            if self._binding is None:
                self._bind(feed)
            for name, value in feed.items():
                self._inputs[name].update_inplace(value)
            self._session.run_with_iobinding(self._binding)
            return [self._outputs[name].numpy() for name in names]

    def _bind(self, feed: Feed) -> None:
        binding = self._session.io_binding()
        self._inputs = {name: _on_device(value, self._device) for name, value in feed.items()}
        for name, value in self._inputs.items():
            binding.bind_ortvalue_input(name, value)
        for output in self._session.get_outputs():
            shape = [1, *output.shape[1:]]
            empty = ort.OrtValue.ortvalue_from_shape_and_type(
                shape, np.float32, "cuda", self._device
            )
            self._outputs[output.name] = empty
            binding.bind_ortvalue_output(output.name, empty)
        self._binding = binding


def check_provider(execution: Execution) -> None:
    """Raises InputError, one line, where the installed onnxruntime has no such provider."""
    there = ort.get_available_providers()
    absent = [name for name in execution.needed if name not in there]
    if absent:
        raise InputError(
            f"the installed onnxruntime has no {absent[0]}; "
            "'pip uninstall onnxruntime' and 'pip install onnxruntime-gpu'",
            code="provider_missing",
            field="LESIONLENS_PROVIDERS",
            found=execution.provider,
            expected="cpu" if "CUDAExecutionProvider" not in there else "cpu or cuda",
        )


def _on_device(value: NDArray[np.float32], device: int) -> Any:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), "cuda", device)


def _open(name: str, data: bytes, execution: Execution, *, graph: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = execution.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Idle threads must sleep: other sessions and processes share the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        providers = configured(
            execution, _shapes(data, options) if execution.on_gpu else {}, graph=graph
        )
        if execution.engines is not None and execution.on_gpu:
            execution.engines.mkdir(parents=True, exist_ok=True)
        turned = data if execution.on_gpu else flat_file(data)
        return ort.InferenceSession(turned, options, providers=providers)
    except Exception:  # onnxruntime raises many types of its own; none is fit for a user
        raise BundleError(
            "onnxruntime cannot open the graph", code="bundle_manifest", field=name
        ) from None


def _shapes(data: bytes, options: Any) -> dict[str, Sequence[int]]:
    """Inputs and their shapes without the batch axis, as the CPU session declares them."""
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return {i.name: i.shape[1:] for i in session.get_inputs()}
