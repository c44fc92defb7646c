"""What was written around a foreign classifier, held against the classifier itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle.parts import ParitySample
from models.errors import BundleError
from models.evaluation.calibration import softmax
from models.graph import wrap
from services.training.foreign.graph import Foreign
from services.training.foreign.running import Runner, session

PARITY_SAMPLES = 4
# Slopes: central differences in single precision, across the kinks of ReLUs. They find a wrong
# rule, which is wrong by tens of percent, not a rounding.
LIMITS = {
    "max_abs": 1e-4,
    "slope_median": 5e-2,
    "slope_q90": 3e-1,
    "scores_against_torch": 1e-3,
    "gradient_median": 1e-3,
    "gradient_q90": 5e-2,
}
# Steps relative to the lesion's norm: the first that are too wide for a curved network, the last
# too small for single precision. A wrong gradient is off at each.
STEPS = (1e-3, 2e-4, 4e-5)

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Compared:
    """figures: see `compare`. sample: travels in the bundle. The rest: what was compared.

    x: [n, P, K, K, K]. weights: [n, D] each. outputs, slopes: as the two files give them.
    """

    figures: dict[str, float]
    sample: ParitySample
    x: NDArray[np.float32]
    weights: Arrays
    outputs: Arrays
    slopes: Arrays


def compare(
    foreign: Foreign,
    classifier: Path,
    gradients: Path,
    taps: Mapping[str, int],
    samples: NDArray[np.float32],
    seed: int,
) -> Compared:
    """What was written, held against the original on samples [n, P, K, K, K].

    'max_abs': largest difference of the probabilities. 'slope_median', 'slope_q90': error of the
    gradient's directional derivatives against central differences, relative to their size. The
    sample is of lesions on which the gradient hardly moves with rounding, so that a difference on
    another processor means a fault.
    """
    forward, backward = session(classifier.read_bytes()), session(gradients.read_bytes())
    names = [o.name for o in forward.get_outputs() if not o.name.endswith("_map")]
    wanted = [o.name for o in backward.get_outputs()]
    rng = np.random.default_rng([seed, 41])
    widths = {wrap.LOGITS: foreign.classes, **taps}
    weights = {k: rng.normal(size=(len(samples), d)).astype(np.float32) for k, d in widths.items()}

    def run(x: NDArray[np.float32]) -> Arrays:
        parts = [forward.run(names, {"x": row[None]}) for row in x]
        return {n: np.concatenate([p[i] for p in parts]) for i, n in enumerate(names)}

    def slopes(x: NDArray[np.float32]) -> Arrays:
        feeds = ({"x": x[i : i + 1], **_row(weights, i)} for i in range(len(x)))
        parts = [backward.run(wanted, feed) for feed in feeds]
        return {n: np.concatenate([p[i] for p in parts]) for i, n in enumerate(wanted)}

    def total(x: NDArray[np.float32]) -> NDArray[np.float64]:
        at = run(x)
        parts = [(weights[k].astype(np.float64) * at[k]).sum(axis=1) for k in widths]
        return np.sum(parts, axis=0)

    outputs, found = run(samples), slopes(samples)
    theirs = _theirs(foreign, samples)
    errors = _against_differences(samples, found["grad_input"], total, rng)
    figures = {
        "max_abs": float(np.abs(outputs[wrap.SCORES] - theirs).max()),
        "slope_median": float(np.median(errors)),
        "slope_q90": float(np.quantile(errors, 0.9)),
    }
    nearby = samples * (1 + 1e-6 * rng.normal(size=samples.shape)).astype(np.float32)
    moved = norm(slopes(nearby)["grad_input"] - found["grad_input"])
    steady = np.argsort(moved / np.maximum(norm(found["grad_input"]), 1e-12), kind="stable")
    best = np.sort(steady[:PARITY_SAMPLES])
    sample = ParitySample(
        x=samples[best],
        outputs={k: outputs[k][best] for k in (wrap.SCORES, *widths)},
        weights={k: w[best] for k, w in weights.items()},
        gradients={k.removeprefix("grad_"): g[best] for k, g in found.items()},
    )
    return Compared(figures, sample, samples, weights, outputs, found)


def check(figures: Mapping[str, float]) -> None:
    """Raises BundleError parity for the first figure beyond its limit."""
    for name, limit in LIMITS.items():
        if name in figures and not figures[name] <= limit:
            raise BundleError(
                "what was written differs from the original classifier",
                code="parity",
                field=name,
                found=f"{figures[name]:.2e}",
                expected=f"at most {limit:.0e}",
            )


def against_autograd(
    scores: NDArray[np.float32], slopes: Arrays, found: Compared
) -> dict[str, float]:
    """Errors against torch: 'scores_against_torch', and the relative L2 of gradients a lesion, the
    worst output's median and 90 % quantile: 'gradient_median', 'gradient_q90'.
    """
    ratios = {k: norm(found.slopes[k] - v) / np.maximum(norm(v), 1e-12) for k, v in slopes.items()}
    return {
        "scores_against_torch": float(np.abs(found.outputs[wrap.SCORES] - scores).max()),
        "gradient_median": max(float(np.median(r)) for r in ratios.values()),
        "gradient_q90": max(float(np.quantile(r, 0.9)) for r in ratios.values()),
    }


def _row(weights: Mapping[str, NDArray[np.float32]], i: int) -> Arrays:
    return {f"w_{k}": w[i : i + 1] for k, w in weights.items()}


def norm(x: NDArray) -> NDArray[np.float64]:
    """Euclidean, a number a row."""
    return np.linalg.norm(x.reshape(len(x), -1).astype(np.float64), axis=1)


def _theirs(foreign: Foreign, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Class probabilities of the original graph, run as it came."""
    turned = np.ascontiguousarray(x.transpose([wrap.PLAIN.index(a) for a in foreign.layout]))
    run = Runner(foreign.model, [foreign.logits])
    parts = [run(row[None])[foreign.logits] for row in turned]
    raw = np.concatenate(parts).astype(np.float64)
    return raw if foreign.probabilities else softmax(raw)


def _against_differences(
    x: NDArray[np.float32],
    gradient: NDArray[np.float32],
    total: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """|numeric - analytic|, a row for each lesion and direction: the gradient, a random half of
    it, the next lesion's gradient, and the way to the next lesion.

    Relative to what is expected along the direction, or a fiftieth of the gradient if that is less.
    """
    errors = []
    half = gradient * (rng.random(gradient.shape) < 0.5)
    directions: list[NDArray] = [gradient, half, np.roll(gradient, 1, axis=0)]
    directions.append(np.roll(x, 1, axis=0) - x)
    for direction in directions:
        size = norm(direction)
        unit = direction / np.maximum(size, 1e-12)[:, None, None, None, None]
        analytic = (gradient * unit).reshape(len(x), -1).sum(axis=1)
        expected = np.maximum(np.maximum(np.abs(analytic), norm(gradient) / 50), 1e-12)
        at = []
        for share in STEPS:
            step = share * norm(x)
            move = step[:, None, None, None, None] * unit
            ends = total((x + move).astype(np.float32)), total((x - move).astype(np.float32))
            at.append(np.abs((ends[0] - ends[1]) / (2 * step) - analytic) / expected)
        errors.append(np.min(at, axis=0))
    return np.concatenate(errors)
