"""Network -> classifier.onnx and gradients.onnx, and the proof that both compute the same numbers.

classifier.onnx   x -> scores (softmax, uncalibrated), logits, each tap, each '<tap>_map'
gradients.onnx    x, w_logits, w_<tap>... -> grad_input, grad_<tap>...
All float32; the first axis is dynamic and checked to be so in the written file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.cnn.network import LesionNet
from models.cnn.reverse import ReverseNet, autograd_gradients
from models.errors import BundleError

OPSET = 18
# Traced with a batch that equals no other dimension: equal ones are silently unified (FACTS).
TRACE_BATCH = 11
BATCHES = (1, 2, 7, 16)

# Classifier: largest absolute difference. Gradients: relative L2 a sample, in quantiles: the median
# must be tight, while single samples may hold a flipped near-tie of a ReLU or a pooling.
CLASSIFIER_TOLERANCE = 1e-3
GRADIENT_MEDIAN_TOLERANCE = 1e-4
GRADIENT_Q90_TOLERANCE = 1e-2
GRADIENT_MAX_TOLERANCE = 0.25
GRADIENT_QUANTILES = {"median": 0.5, "q90": 0.9, "max": 1.0}


class _Classifier(nn.Module):
    def __init__(self, network: LesionNet) -> None:
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


def classifier_outputs(network: LesionNet) -> list[str]:
    """Names of classifier.onnx's outputs, in order."""
    taps = list(network.architecture.taps)
    return ["scores", "logits", *taps, *(f"{t}_map" for t in network.architecture.conv_taps)]


def export_classifier(network: LesionNet, path: Path, edge: int) -> None:
    """Write classifier.onnx for inputs [batch, phases, edge, edge, edge]."""
    x = torch.zeros(TRACE_BATCH, network.phases, edge, edge, edge)
    _export(_Classifier(network), (x,), ["x"], classifier_outputs(network), path)


def export_gradients(network: LesionNet, path: Path, edge: int) -> None:
    """Write gradients.onnx for inputs [batch, phases, edge, edge, edge] and weights per output."""
    taps = network.architecture.taps
    inputs = (
        torch.zeros(TRACE_BATCH, network.phases, edge, edge, edge),
        torch.zeros(TRACE_BATCH, network.classes),
        *(torch.zeros(TRACE_BATCH, d) for d in taps.values()),
    )
    names = ["x", "w_logits", *(f"w_{t}" for t in taps)]
    outputs = ["grad_input", *(f"grad_{t}" for t in taps)]
    _export(ReverseNet(network).eval(), inputs, names, outputs, path)


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
    # A module with *args takes its trailing shapes as one tuple.
    rows: list[dict[int, torch.export.Dim]] = [{0: batch} for _ in inputs]
    shapes = tuple(rows) if len(rows) == 1 else (rows[0], rows[1], tuple(rows[2:]))
    with _quiet(), torch.no_grad():
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
def _quiet() -> Iterator[None]:
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


def reference_outputs(network: LesionNet, x: Tensor) -> dict[str, NDArray[np.float32]]:
    """What torch says, unfolded, in evaluation mode: name -> array, names of classifier.onnx."""
    network.eval()
    with torch.no_grad():
        out = network.outputs(x)
        named = {
            "scores": torch.softmax(out.logits, dim=1),
            "logits": out.logits,
            **out.taps,
            **{f"{k}_map": v for k, v in out.maps.items()},
        }
    return {k: v.numpy() for k, v in named.items()}


def draw_weights(network: LesionNet, batch: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Standard normal weights for logits and every tap, [batch, D] each."""
    rng = np.random.default_rng([seed, batch])
    widths = {"logits": network.classes, **network.architecture.taps}
    return {k: rng.normal(size=(batch, d)).astype(np.float32) for k, d in widths.items()}


def parity(
    network: LesionNet,
    classifier: Path,
    gradients: Path,
    samples: NDArray[np.float32],
    *,
    batches: Sequence[int] = BATCHES,
    seed: int = 0,
) -> dict[str, float]:
    """Compare both files with torch on samples [n, P, K, K, K] at several batch sizes.

    Returns, per classifier output, the largest absolute difference ('classifier.<name>'); per
    gradient output quantiles of the relative L2 over samples ('gradients.<name>.median', '.q90',
    '.max'); and the worst of each: 'max_abs', 'gradient_median', 'gradient_q90', 'gradient_max'.
    """
    forward, backward = open_session(classifier), open_session(gradients)
    worst: dict[str, float] = {}
    ratios: dict[str, list[float]] = {}
    for size in batches:
        x = samples[np.arange(size) % len(samples)]
        expected = reference_outputs(network, torch.from_numpy(x))
        names = [o.name for o in forward.get_outputs()]
        for name, found in zip(names, forward.run(names, {"x": x}), strict=True):
            gap = float(np.abs(found - expected[name]).max())
            worst[name] = max(worst.get(name, 0.0), gap)
        weights = draw_weights(network, size, seed)
        truth = autograd_gradients(
            network,
            torch.from_numpy(x),
            {k: torch.from_numpy(v) for k, v in weights.items()},
        )
        feed = {"x": x, **{f"w_{k}": v for k, v in weights.items()}}
        names = [o.name for o in backward.get_outputs()]
        for name, found in zip(names, backward.run(names, feed), strict=True):
            reference = truth[name.removeprefix("grad_")].numpy()
            ratios.setdefault(name, []).extend(_relative(found, reference))
    result = {f"classifier.{k}": v for k, v in worst.items()}
    for kind, quantile in GRADIENT_QUANTILES.items():
        found_q = {k: float(np.quantile(v, quantile)) for k, v in ratios.items()}
        result |= {f"gradients.{k}.{kind}": v for k, v in found_q.items()}
        result[f"gradient_{kind}"] = max(found_q.values())
    result["max_abs"] = max(worst.values())
    return result


def check_parity(figures: Mapping[str, float]) -> None:
    """Raises BundleError naming the worst output when an export is off."""
    limits = {
        "max_abs": CLASSIFIER_TOLERANCE,
        "gradient_median": GRADIENT_MEDIAN_TOLERANCE,
        "gradient_q90": GRADIENT_Q90_TOLERANCE,
        "gradient_max": GRADIENT_MAX_TOLERANCE,
    }
    for key, limit in limits.items():
        if figures[key] <= limit:
            continue
        prefix = "classifier." if key == "max_abs" else "gradients."
        suffix = "" if key == "max_abs" else "." + key.removeprefix("gradient_")
        own = {k: v for k, v in figures.items() if k.startswith(prefix) and k.endswith(suffix)}
        raise BundleError(
            "the exported graph differs from the network",
            code="parity",
            field=max(own, key=lambda k: own[k]),
            found=f"{figures[key]:.2e}",
            expected=f"at most {limit:.0e}",
        )


def _relative(found: NDArray, reference: NDArray) -> list[float]:
    n = len(reference)
    gap = np.linalg.norm((found - reference).reshape(n, -1), axis=1)
    size = np.linalg.norm(reference.reshape(n, -1), axis=1)
    return list(gap / np.maximum(size, 1e-12))


def open_session(path: Path) -> Any:
    """An onnxruntime session on one thread, for what training itself reads from its exports.

    Serving has its own loader, models.bundle.runtime.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
