"""classifier.onnx in 8-bit integers: static, QDQ, weights a scale per output channel.

Activations are unsigned with a zero point, weights signed, ranges the extremes over calibration
lesions. Source: onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)


class _Rows(CalibrationDataReader):
    """Tensors [P, K, K, K], a batch of one each."""

    def __init__(self, rows: Iterable[NDArray[np.float32]]) -> None:
        self._rows: Iterator[NDArray[np.float32]] = iter(rows)

    def get_next(self) -> Any:
        row = next(self._rows, None)
        return None if row is None else {"x": row[None]}


def quantise(
    classifier: bytes, rows: Iterable[NDArray[np.float32]], *, first_in_float: bool
) -> bytes:
    """The graph with the same inputs and outputs, in QDQ form.

    rows: calibration tensors [P, K, K, K]. first_in_float: leaves the first convolution as it is,
    for onnxruntime, whose integer convolution is slow on an image of three channels.
    """
    model = onnx.load_from_string(classifier)
    first = next((node for node in model.graph.node if node.op_type == "Conv"), None)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"  # nodes are left out by name
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx.save(model, str(source))
        with _quiet():
            quantize_static(
                str(source),
                str(target),
                _Rows(rows),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=[first.name] if first is not None and first_in_float else [],
            )
        return target.read_bytes()


class _quiet:  # noqa: N801 - reads as a word: with _quiet()
    """The quantiser asks for a preprocessing that exported graphs do not need."""

    def __enter__(self) -> None:
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self._level)
