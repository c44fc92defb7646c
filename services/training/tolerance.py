"""What a network trained with phase dropout is worth without a phase, and what is strange to it.

Each set of phases that may be missing gets its own out-of-distribution score: a lesion without its
delayed phase is compared with training lesions without theirs. The same lesions, with those phases
taken away, say what a missing phase costs (test split, looked at once, chooses nothing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cnn.data import SplitArrays
from models.evaluation.calibration import softmax
from models.evaluation.classification import evaluate_classifier
from models.ood import OutOfDistributionScore
from models.passes import PassRecipe
from models.vocabulary import Vocabulary
from models.voi import Preprocessing, centre, without
from services.training.activations import read_activations
from services.training.profiles import Profile
from services.training.splits import Splits, take

_CHUNK = 64  # lesions whose bases are copied at a time


def patterns(optional: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every set of phases that may be missing together, in phase order, small sets first."""
    for size in range(1, len(optional) + 1):
        yield from combinations(optional, size)


def tolerate(
    classifier: Path,
    splits: Splits,
    vocabulary: Vocabulary,
    config: Profile,
    ood: OutOfDistributionScore,
    temperature: float,
    seed: int,
    step: Callable[[int, int], None],
) -> tuple[OutOfDistributionScore, dict[str, Any]]:
    """-> (`ood` with a score for each pattern, 'portal_venous+delayed' -> test figures).

    `ood` and no figures where no phase may be missing. step(lesions done, of all) tells progress.
    """
    optional = config.optional_phases(vocabulary.phase_ids)
    each = len(splits.training) + len(splits.validation) + len(splits.test)
    sets, figures, partial, done = list(patterns(optional)), {}, {}, 0
    for missing in sets:
        lost = [vocabulary.phase_ids.index(p) for p in missing]
        parts = {}
        for name in ("training", "validation", "test"):
            split: SplitArrays = getattr(splits, name)
            parts[name] = _read(classifier, split, lost, config.preprocessing, ood)
            done += len(split)
            step(done, each * len(sets))
        name = "+".join(missing)
        partial[name] = OutOfDistributionScore.fit(
            ood.taps,
            parts["training"][1],
            parts["validation"][1],
            ood.quantile,
            splits.training.class_ids,
        )
        measured = evaluate_classifier(
            softmax(parts["test"][0] / temperature),
            splits.test.classes,
            vocabulary.class_ids,
            split="test",
            draws=config.bootstraps,
            seed=seed,
        )
        keys = ("split", "n", "accuracy", "ci", "ece", "macro_auroc", "macro_auroc_ci")
        figures[name] = {key: measured[key] for key in keys}
    return replace(ood, partial=partial), figures


def _read(
    classifier: Path,
    split: SplitArrays,
    lost: Sequence[int],
    spec: Preprocessing,
    ood: OutOfDistributionScore,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(logits [n, C], readout [n, D]) of the plain view without the phases at `lost`."""
    logits, rows = [], []
    for start in range(0, len(split), _CHUNK):
        some = take(split, np.arange(start, min(start + _CHUNK, len(split))))
        for i, base in enumerate(some.bases):
            some.bases[i] = without(base, lost, spec)
        at = read_activations(classifier, some, ood.taps, spec, PassRecipe(), 0)
        logits.append(at.logits)
        x = np.stack([centre(base, spec) for base in some.bases])
        rows.append(ood.read(at.plain, x))
    return np.concatenate(logits), np.concatenate(rows)
