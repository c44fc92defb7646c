"""Lesions through one network as an experiment reads them: models.trial.data.Sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models.cnn.data import SplitArrays
from models.errors import InputError
from models.passes import PassRecipe
from models.trial.data import Sample
from models.voi import Preprocessing
from services.training.activations import Activations, read_activations


def sample_of(split: SplitArrays, patients: Sequence[str], at: Activations) -> Sample:
    """Activations that were read already. patients: [n].

    Raises InputError where lesions have different numbers of passes: they would not compare.
    """
    counts = {len(p) for p in at.passes["logits"]}
    if len(counts) > 1:
        raise InputError(
            "lesions with different numbers of passes", code="wrong_shape", field="passes",
            found=", ".join(str(c) for c in sorted(counts)), expected="one number for all",
        )  # fmt: skip
    passes = {name: np.stack(rows) for name, rows in at.passes.items()}
    return Sample(
        ids=split.ids,
        patients=tuple(patients),
        classes=split.classes,
        labels=np.asarray(split.features, dtype=np.float64),
        sizes_mm=split.sizes_mm,
        bases=split.bases,
        logits=at.logits,
        pass_logits=passes.pop("logits"),
        plain=at.plain,
        averaged=at.averaged,
        passes=passes,
    )


def read_sample(
    classifier: Path,
    split: SplitArrays,
    patients: Sequence[str],
    taps: Sequence[str],
    spec: Preprocessing,
    recipe: PassRecipe,
    passes: int,
    progress: Callable[[int, int], None] | None = None,
) -> Sample:
    """Run every lesion through the exported graph, `passes` stochastic passes each."""
    at = read_activations(classifier, split, taps, spec, recipe, passes, progress=progress)
    return sample_of(split, patients, at)
