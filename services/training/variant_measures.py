"""What a variant costs and gains beside fp32, on the same validation lesions.

accuracy    of the plain view, which is what predictions serve
probes      macro AUROC of what the bundle's probes find in activations averaged over passes
maps        Pearson's correlation of the class map that a person gets with the one of fp32:
            gradients stay on the fp32 graph, so only where the variant names another class can a
            map differ
speed       CPU time a row, batch 1, one thread, in rounds that alternate with fp32

The rule: a point estimate beyond its budget refuses. With few lesions an interval is wide; it is
kept and printed beside the estimate, and does not decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.attribution.goal import Settings
from models.attribution.integrated import integrated_gradients
from models.bundle.precision import Classifying
from models.bundle.read import Bundle
from models.bundle.runtime import OnnxModel
from models.cnn.data import SplitArrays
from models.evaluation.drawn import macro_auroc
from models.evaluation.paired import paired_accuracy
from models.evaluation.resampling import difference, multiplicities
from models.passes import views
from models.reasons.distribution import outside
from models.reasons.maps import class_goal
from models.voi import centre
from services.training.activations import PASS_SEED
from wire.variant import Budget, Estimate, MapAgreement, Measured, Speed

WARM = 5
Step = Callable[[int, int], None]


class _Seen:
    """One classifier's view of all lesions: what predictions, probes and the OOD score read."""

    def __init__(self, n: int) -> None:
        self.logits: list[NDArray[np.float32]] = []
        self.pass_logits: list[NDArray[np.float64]] = []
        self.evidence: list[NDArray[np.float32]] = []
        self.outside: list[bool] = []
        self.n = n


def measure(
    bundle: Bundle,
    fp32: OnnxModel,
    variant: Classifying,
    split: SplitArrays,
    cohort: str,
    *,
    passes: int,
    draws: int = 1000,
    seed: int = 0,
    steps: int = 16,
    step: Step | None = None,
) -> Measured:
    """Both classifiers on every lesion of the validation split.

    passes: stochastic passes a lesion, as explanations average them. draws: of the bootstrap.
    steps: of a class map. step(done, of all) tells progress.
    """
    pair: tuple[Classifying, Classifying] = (fp32, variant)
    a, b = (_Seen(len(split)) for _ in pair)
    spec = bundle.preprocessing
    for i, base in enumerate(split.bases):
        plain = centre(base, spec)[None]
        several = views(base, spec, bundle.recipe, passes, PASS_SEED)
        measured = bundle.measure(base, split.sizes_mm[i])
        for classifier, seen in zip(pair, (a, b), strict=True):
            _see(bundle, classifier, seen, plain, several, measured)
        if step:
            step(i + 1, len(split))
    first, second = np.stack(a.logits), np.stack(b.logits)
    return Measured(
        cohort=cohort,
        n=len(split),
        passes=passes,
        accuracy=_accuracy(first, second, split.classes, draws, seed),
        probe_auroc=_probes(bundle, a, b, split, draws, seed),
        maps=_maps(bundle, fp32, a, b, split, steps),
        same_class=_short(float((first.argmax(1) == second.argmax(1)).mean())),
        largest_difference=_short(
            float(np.abs(bundle.probabilities(first) - bundle.probabilities(second)).max())
        ),
        outside=(sum(a.outside), sum(b.outside)),
    )


def _see(
    bundle: Bundle,
    classifier: Classifying,
    seen: _Seen,
    plain: NDArray[np.float32],
    several: NDArray[np.float32],
    measured: NDArray[np.float64],
) -> None:
    manifest = bundle.manifest
    once = classifier.forward(plain, list(dict.fromkeys(["logits", *bundle.ood.taps])))
    many = classifier.forward(several, list(dict.fromkeys(["logits", *manifest.probe_taps])))
    mean = {tap: many[tap].mean(axis=0, dtype=np.float64) for tap in manifest.probe_taps}
    seen.logits.append(once["logits"][0])
    seen.pass_logits.append(many["logits"].astype(np.float64))
    seen.evidence.append(bundle.probe_vector(mean, measured))
    missing = [p for p, plane in zip(manifest.phases, plain[0], strict=True) if not plane.any()]
    seen.outside.append(outside(once, plain, bundle, missing).flagged)


def _accuracy(
    first: NDArray, second: NDArray, truth: NDArray[np.int64], draws: int, seed: int
) -> Estimate:
    right = [logits.argmax(axis=1) == truth for logits in (first, second)]
    gap = paired_accuracy(right[0], right[1], draws=draws, seed=seed)
    return Estimate(
        fp32=_short(float(right[0].mean())),
        variant=_short(float(right[1].mean())),
        loss=gap["difference"],
        ci=gap["ci"] and tuple(gap["ci"]),
    )


def _probes(
    bundle: Bundle, a: _Seen, b: _Seen, split: SplitArrays, draws: int, seed: int
) -> Estimate | None:
    w = multiplicities(len(split), draws=draws, seed=seed)
    first, second = (
        macro_auroc(bundle.probes.probabilities(np.stack(s.evidence)), split.features, w)
        for s in (a, b)
    )
    gap = difference(first, second)
    if gap["difference"] is None:
        return None
    return Estimate(
        fp32=_short(float(first[0])),
        variant=_short(float(second[0])),
        loss=gap["difference"],
        ci=gap["ci"] and tuple(gap["ci"]),
    )


def _maps(
    bundle: Bundle, fp32: OnnxModel, a: _Seen, b: _Seen, split: SplitArrays, steps: int
) -> MapAgreement:
    """Of the class that an explanation names: the one of the mean over passes."""
    classes = bundle.manifest.classes
    found, drawn = np.ones(len(split)), 0
    for i, base in enumerate(split.bases):
        named = [_named(bundle, seen.pass_logits[i]) for seen in (a, b)]
        if named[0] == named[1]:
            continue
        goals = [class_goal(classes[c], bundle) for c in named]
        x = centre(base, bundle.preprocessing)
        maps = integrated_gradients(fp32, x, goals, Settings(steps=steps))
        found[i], drawn = pearson(maps[0].map, maps[1].map), drawn + 1
    return MapAgreement(
        mean=_short(float(found.mean())), least=_short(float(found.min())), drawn=drawn
    )


def _named(bundle: Bundle, logits: NDArray[np.float64]) -> int:
    return int(bundle.probabilities(logits).mean(axis=0).argmax())


def pearson(a: NDArray, b: NDArray) -> float:
    """Correlation of two maps voxel by voxel; 0 where one of them is flat."""
    x, y = (np.ravel(m).astype(np.float64) for m in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / scale if scale > 0 else 0.0


def time_rows(
    ways: Sequence[Classifying], rows: NDArray[np.float32], *, rounds: int, each: int
) -> NDArray[np.float64]:
    """CPU seconds a row of this process, [way, round]; the ways alternate within a round.

    rows: [n, P, K, K, K], gone through one at a time. each: rows a way and round.
    """
    seconds = np.zeros((len(ways), rounds))
    for way in ways:
        for i in range(WARM):
            way.forward(rows[i % len(rows)][None], ["scores"])
    for number in range(rounds):
        for w, way in enumerate(ways):
            start = time.process_time()
            for i in range(each):
                way.forward(rows[(number * each + i) % len(rows)][None], ["scores"])
            seconds[w, number] = (time.process_time() - start) / each
    return seconds


def speed(
    fp32: Classifying, variant: Classifying, rows: NDArray[np.float32], *, rounds: int, each: int
) -> Speed:
    """See `time_rows`."""
    slow, fast = time_rows([fp32, variant], rows, rounds=rounds, each=each)
    ratios = slow / fast
    return Speed(
        fp32_ms=_short(1e3 * float(np.median(slow))),
        variant_ms=_short(1e3 * float(np.median(fast))),
        speedup=(
            _short(float(ratios.min())),
            _short(float(np.median(ratios))),
            _short(float(ratios.max())),
        ),
        rounds=rounds,
    )


def judged(measured: Measured, budget: Budget) -> list[str]:
    """Why the variant is refused, a line each; none where every estimate is inside the budget."""
    found = []
    for what, estimate, limit in (
        ("class accuracy", measured.accuracy, budget.accuracy_loss),
        ("probe macro AUROC", measured.probe_auroc, budget.probe_auroc_loss),
    ):
        if estimate is not None and not estimate.loss <= limit:
            found.append(f"{what} falls by {estimate.loss:.4g}, at most {limit:g} is allowed")
    if not measured.maps.mean >= budget.map_correlation:
        found.append(
            f"class maps correlate with {measured.maps.mean:.4g}, "
            f"at least {budget.map_correlation:g} is needed"
        )
    return found


def _short(value: float) -> float:
    return round(value, 6)
