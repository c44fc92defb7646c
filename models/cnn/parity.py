"""The proof that exported graphs compute what the network computes, and the sample that travels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle.parts import ParitySample
from models.cnn.classifier import Classifier
from models.cnn.export import open_session
from models.errors import BundleError

BATCHES = (1, 2, 7, 16)
PARITY_SAMPLES = 4
TRACE = 0.02  # of noise, in units of the network's input

# Classifier: largest absolute difference. Gradients: relative L2 a sample, in quantiles: the median
# must be tight, while single samples may hold a flipped near-tie of a ReLU or a pooling.
CLASSIFIER_TOLERANCE = 1e-3
GRADIENT_MEDIAN_TOLERANCE = 1e-4
GRADIENT_Q90_TOLERANCE = 1e-2
GRADIENT_MAX_TOLERANCE = 0.25
GRADIENT_QUANTILES = {"median": 0.5, "q90": 0.9, "max": 1.0}


def reference_outputs(network: Classifier, x: Tensor) -> dict[str, NDArray[np.float32]]:
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


def autograd_gradients(
    network: Classifier, x: Tensor, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Gradients of sum(w_logits * logits) + sum over taps of sum(w_tap * tap), by autograd.

    'input' -> [B, P, K, K, K] and each tap -> [B, D]: for a tap with a map, the map's gradient
    summed over space. On the unfolded network in evaluation mode: the reference for parity.
    """
    network.eval()
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_(True)
        out = network.outputs(leaf)
        total = (weights["logits"] * out.logits).sum()
        for name, tap in out.taps.items():
            total = total + (weights[name] * tap).sum()
        held = {name: out.maps.get(name, tap) for name, tap in out.taps.items()}
        found = torch.autograd.grad(total, [leaf, *held.values()])
    result = {"input": found[0]}
    for name, gradient in zip(held, found[1:], strict=True):
        result[name] = gradient.sum(dim=(2, 3, 4)) if name in out.maps else gradient
    return result


def draw_weights(network: Classifier, batch: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Standard normal weights for logits and every tap, [batch, D] each."""
    rng = np.random.default_rng([seed, batch])
    widths = {"logits": network.classes, **network.taps}
    return {k: rng.normal(size=(batch, d)).astype(np.float32) for k, d in widths.items()}


def parity(
    network: Classifier,
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
    samples = _untied(samples, seed)
    forward, backward = open_session(classifier), open_session(gradients)
    worst: dict[str, float] = {}
    ratios: dict[str, list[float]] = {}
    start = 0
    for size in batches:
        # Every batch takes other samples: a near-tie must count once, or quantiles lie.
        x = samples[np.arange(start, start + size) % len(samples)]
        start += size
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


def _untied(x: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """With a trace of noise: where an image is flat (a missing phase, air, a repeated border), the
    voxels of a pooling window are exactly equal, and any of them may rightly get the gradient.
    """
    noise = np.random.default_rng([seed, len(x)]).normal(0, TRACE, x.shape)
    return (x + noise).astype(np.float32)


def _relative(found: NDArray, reference: NDArray) -> list[float]:
    n = len(reference)
    gap = np.linalg.norm((found - reference).reshape(n, -1), axis=1)
    size = np.linalg.norm(reference.reshape(n, -1), axis=1)
    return list(gap / np.maximum(size, 1e-12))


def parity_sample(
    network: Classifier,
    gradients: Path,
    x: NDArray[np.float32],
    seed: int,
    count: int = PARITY_SAMPLES,
) -> ParitySample:
    """The stored sample that every server compares itself with, computed by torch.

    Of the candidates x [n, P, K, K, K] those are taken on which gradients.onnx agrees best with
    autograd: no near-tie of a ReLU or pooling, so a difference elsewhere means a fault.
    """
    x = _untied(x, seed)
    weights = draw_weights(network, len(x), seed)
    truth = autograd_gradients(
        network, torch.from_numpy(x), {k: torch.from_numpy(v) for k, v in weights.items()}
    )
    feed = {"x": x, **{f"w_{k}": v for k, v in weights.items()}}
    mine = open_session(gradients).run(["grad_input"], feed)[0]
    gap = np.array(_relative(mine, truth["input"].numpy()))
    best = np.sort(np.argsort(gap, kind="stable")[:count])
    outputs = reference_outputs(network, torch.from_numpy(x[best]))
    return ParitySample(
        x=x[best],
        outputs={k: outputs[k] for k in ("scores", "logits", *network.taps)},
        weights={k: v[best] for k, v in weights.items()},
        gradients={k: v.numpy()[best] for k, v in truth.items()},
    )
