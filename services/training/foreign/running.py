"""Running a foreign graph's values, in whatever shape it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from models.errors import InputError

# Relative to the largest number: rows computed alone and together.
SAME = 1e-4


def read_onnx(path: Path) -> onnx.ModelProto:
    """Raises InputError for a file that is no ONNX model."""
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(str(path))
    except Exception as error:  # protobuf's, the checker's and the file system's own
        raise InputError(
            "not a valid ONNX model: " + first_line(error), code="adopt_model", field=path.name
        ) from None
    return model


def session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many types of its own
        raise InputError(
            "onnxruntime cannot open the graph: " + first_line(error), code="adopt_model",
            field="model",
        ) from None  # fmt: skip


class Runner:
    """A graph with some of its values as outputs."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str]) -> None:
        opened = onnx.ModelProto()
        opened.CopyFrom(model)
        del opened.graph.output[:]
        self.names = list(dict.fromkeys(names))
        opened.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in self.names)
        self.input = opened.graph.input[0].name
        self.session = session(opened.SerializeToString())

    def __call__(self, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Raises InputError where the graph cannot take x."""
        try:
            found = self.session.run(self.names, {self.input: x})
        except Exception as error:  # as above
            raise InputError(
                "the graph cannot run: " + first_line(error), code="adopt_model", field="model"
            ) from None
        return dict(zip(self.names, found, strict=True))


def noise(batch: int, lengths: Sequence[int]) -> NDArray[np.float32]:
    """Standard normal, the first rows the same for every batch size."""
    return np.random.default_rng(0).normal(size=(batch, *lengths)).astype(np.float32)


def close(a: NDArray, b: NDArray) -> bool:
    scale = max(1.0, float(np.abs(b).max(initial=0)))
    return bool(np.abs(a.astype(np.float64) - b).max(initial=0) <= SAME * scale)


def first_line(error: Exception) -> str:
    """What an exception says, in at most 160 characters of one line."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160]
