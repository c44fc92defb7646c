"""What onnxruntime is told about GPUs, and the refusal where it has none. No GPU is used here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from models.bundle import runtime_sessions
from models.bundle.providers import Execution, configured
from models.bundle.runtime import load_model
from models.errors import InputError

INPUTS = {"x": [3, 8, 8, 8], "w_logits": [6]}


def test_the_cpu_is_asked_for_alone() -> None:
    assert configured(Execution(), INPUTS) == [("CPUExecutionProvider", {})]
    assert Execution().needed == []


def test_cuda_keeps_float32_and_its_arena_within_the_limit() -> None:
    execution = Execution(provider="cuda", device=1, memory_mb=512)
    (name, options), cpu = configured(execution, INPUTS)
    assert (name, cpu[0]) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["device_id"] == "1"
    assert options["gpu_mem_limit"] == str(512 * 1024 * 1024)
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["use_tf32"] == "0"
    assert options["enable_cuda_graph"] == "0"
    assert configured(execution, INPUTS, graph=True)[0][1]["enable_cuda_graph"] == "1"
    assert "gpu_mem_limit" not in configured(Execution(provider="cuda"), INPUTS)[0][1]


def test_tensorrt_has_one_engine_for_all_batches_kept_on_disk(tmp_path: Path) -> None:
    execution = Execution(provider="tensorrt", engines=tmp_path)
    chain = configured(execution, INPUTS)
    assert [name for name, _ in chain] == [*execution.needed, "CPUExecutionProvider"]
    options = chain[0][1]
    assert options["trt_engine_cache_enable"] == "1"
    assert options["trt_engine_cache_path"] == str(tmp_path)
    assert options["trt_profile_min_shapes"] == "x:1x3x8x8x8,w_logits:1x6"
    assert options["trt_profile_max_shapes"] == "x:256x3x8x8x8,w_logits:256x6"
    assert options["trt_fp16_enable"] == "0"
    fixed = configured(execution, INPUTS, graph=True)[0][1]
    assert fixed["trt_profile_max_shapes"] == "x:1x3x8x8x8,w_logits:1x6"


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_installed_is_refused_in_one_line(tiny_bundle, provider) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(InputError) as fault:
        load_model(tiny_bundle, execution=Execution(provider=provider))
    assert "onnxruntime-gpu" in fault.value.line
    assert provider in fault.value.line
    assert "\n" not in fault.value.line


@pytest.mark.parametrize("graphs", [False, True])
def test_sessions_are_opened_with_it(tiny_bundle, monkeypatch, graphs: bool) -> None:
    """At the edge: what would reach onnxruntime on a GPU machine; it then opens on the CPU."""
    asked: list[Any] = []
    real = ort.InferenceSession

    def open_session(data: bytes, options: Any, providers: list[Any]) -> Any:
        asked.append(providers)
        return real(data, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", open_session)
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    execution = Execution(provider="cuda", memory_mb=64, graphs=graphs)
    data = (tiny_bundle / "classifier.onnx").read_bytes()
    runtime_sessions.Session("classifier.onnx", data, execution, fixed=True)
    on_gpu = [dict(p) for p in asked if p != ["CPUExecutionProvider"]]
    flags = [p["CUDAExecutionProvider"]["enable_cuda_graph"] for p in on_gpu]
    assert flags == (["0", "1"] if graphs else ["0"])
    assert {p["CUDAExecutionProvider"]["gpu_mem_limit"] for p in on_gpu} == {str(64 << 20)}
