"""Where onnxruntime runs a bundle's graphs, as the options that it is given. Imports nothing of it.

    cpu        the default: threads of one session, no spinning
    cuda       CUDAExecutionProvider, then the CPU for what it lacks
    tensorrt   TensorrtExecutionProvider, then CUDA, then the CPU; built engines are kept on disk

float32 stays float32 on a GPU (no TF32, no half precision): the stored sample must agree to 1e-3.
Options: onnxruntime.ai/docs/execution-providers, pages CUDA and TensorRT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Provider = Literal["cpu", "cuda", "tensorrt"]
Options = dict[str, str]

NAMES: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
LARGEST_BATCH = 256  # of a TensorRT engine; a larger one is built anew


@dataclass(frozen=True)
class Execution:
    """threads: of one session on the CPU. device: number of the GPU. memory_mb: most that a
    session's arena takes of it; 0: no limit. graphs: capture a CUDA graph for batches of one.
    engines: folder of built TensorRT engines; None: they are built at every start."""

    threads: int = 1
    provider: Provider = "cpu"
    device: int = 0
    memory_mb: int = 0
    graphs: bool = False
    engines: Path | None = None

    @property
    def on_gpu(self) -> bool:
        return self.provider != "cpu"

    @property
    def needed(self) -> list[str]:
        """The providers that the installed onnxruntime must have, the preferred one first."""
        chain: list[Provider] = ["tensorrt", "cuda"] if self.provider == "tensorrt" else ["cuda"]
        return [NAMES[name] for name in (chain if self.on_gpu else [])]


def configured(
    execution: Execution, inputs: dict[str, Sequence[int]], *, graph: bool = False
) -> list[tuple[str, Options]]:
    """What `InferenceSession(providers=...)` is given.

    inputs: name -> shape without the batch axis; TensorRT builds one engine for all batches of
    these. graph: a session that captures a CUDA graph; its shapes must then never change.
    """
    chain: list[tuple[str, Options]] = []
    if execution.provider == "tensorrt":
        chain.append((NAMES["tensorrt"], _tensorrt(execution, inputs, graph)))
    if execution.on_gpu:
        chain.append((NAMES["cuda"], _cuda(execution, graph)))
    return [*chain, (NAMES["cpu"], {})]


def _cuda(execution: Execution, graph: bool) -> Options:
    options = {
        "device_id": str(execution.device),
        # The arena grows by what is asked for, not to the next power of two: several sessions
        # share the device.
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "do_copy_in_default_stream": "1",
        "use_tf32": "0",
        "enable_cuda_graph": str(int(graph)),
    }
    if execution.memory_mb:
        options["gpu_mem_limit"] = str(execution.memory_mb << 20)
    return options


def _tensorrt(execution: Execution, inputs: dict[str, Sequence[int]], graph: bool) -> Options:
    options = {
        "device_id": str(execution.device),
        "trt_fp16_enable": "0",
        "trt_int8_enable": "0",
        "trt_cuda_graph_enable": str(int(graph)),
        "trt_profile_min_shapes": _shapes(inputs, 1),
        "trt_profile_opt_shapes": _shapes(inputs, 1 if graph else 8),
        "trt_profile_max_shapes": _shapes(inputs, 1 if graph else LARGEST_BATCH),
    }
    if execution.memory_mb:
        options["trt_max_workspace_size"] = str(execution.memory_mb << 20)
    if execution.engines is not None:
        folder = str(execution.engines)
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": folder,
        }
    return options


def _shapes(inputs: dict[str, Sequence[int]], batch: int) -> str:
    """'x:8x3x24x24x24,w_logits:8x6'"""
    return ",".join(
        f"{name}:" + "x".join(str(n) for n in (batch, *shape)) for name, shape in inputs.items()
    )
