"""Network -> classifier.onnx and gradients.onnx; models.cnn.parity proves them right.

classifier.onnx   x -> scores (softmax, uncalibrated), logits, each tap, each '<tap>_map'
gradients.onnx    x, w_logits, w_<tap>... -> grad_input, grad_<tap>...
All float32; the first axis is dynamic and checked to be so in the written file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.cnn.classifier import Classifier
from models.errors import BundleError
from models.graph.reverse import gradient_graph

OPSET = 18
# Traced with a batch that equals no other dimension: equal ones are silently unified (FACTS).
TRACE_BATCH = 11


class _Classifier(nn.Module):
    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.net = network.folded()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out = self.net.outputs(x)
        return (
            torch.softmax(out.logits, dim=1),
            out.logits,
            *out.taps.values(),
            *out.maps.values(),
        )


def classifier_outputs(network: Classifier) -> list[str]:
    """Names of classifier.onnx's outputs, in order."""
    return ["scores", "logits", *network.taps, *(f"{t}_map" for t in network.map_taps)]


def export_classifier(network: Classifier, path: Path, edge: int) -> None:
    """Write classifier.onnx for inputs [batch, phases, edge, edge, edge]."""
    x = torch.zeros(TRACE_BATCH, network.phases, edge, edge, edge)
    _export(_Classifier(network), (x,), ["x"], classifier_outputs(network), path)


def export_gradients(classifier: Path, path: Path) -> None:
    """Write gradients.onnx for a written classifier.onnx, whatever network it holds.

    Raises BundleError no_derivative naming the node that has no derivative rule.
    """
    import onnx

    model = gradient_graph(classifier)
    onnx.save(model, str(path))
    taps = [o.name.removeprefix("grad_") for o in model.graph.output][1:]
    check_names(
        model,
        ["x", "w_logits", *(f"w_{t}" for t in taps)],
        ["grad_input", *(f"grad_{t}" for t in taps)],
    )


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
) -> None:
    import onnx

    module.eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes = tuple({0: batch} for _ in inputs)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    check_names(model, input_names, output_names)


def check_names(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raises BundleError unless the file has these names and a dynamic first axis everywhere."""
    graph = model.graph
    for found, expected in ((graph.input, inputs), (graph.output, outputs)):
        names = [value.name for value in found]
        if names != list(expected):
            raise BundleError(
                "the exported graph has other names",
                code="export_names",
                found=", ".join(names),
                expected=", ".join(expected),
            )
        for value in found:
            if not value.type.tensor_type.shape.dim[0].dim_param:
                raise BundleError(
                    "the batch axis was frozen by the export",
                    code="export_batch",
                    field=value.name,
                    expected="a dynamic first axis",
                )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter chats on stdout and through warnings; errors still come through."""
    names = ("torch.onnx", "onnxscript", "torch.export", "torch._dynamo")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def open_session(path: Path) -> Any:
    """An onnxruntime session on one thread, for what training itself reads from its exports.

    Serving has its own loader, models.bundle.runtime.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
