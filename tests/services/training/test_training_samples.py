"""Activations become a sample only where its lesions can be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.cnn.data import SplitArrays
from models.errors import InputError
from models.trial.data import Sample
from services.training.activations import Activations
from services.training.samples import sample_of

N, CLASSES, UNITS = 3, 2, 4


def split() -> SplitArrays:
    rng = np.random.default_rng(0)
    return SplitArrays(
        ids=("a", "b", "c"),
        class_ids=("x", "y", "x"),
        bases=rng.normal(size=(N, 1, 6, 6, 6)).astype(np.float32),
        sizes_mm=np.full((N, 3), 20.0),
        classes=np.array([0, 1, 0]),
        features=np.array([[1, 0], [0, np.nan], [1, 1]], np.float32),
    )


def activations(passes: tuple[int, ...]) -> Activations:
    rng = np.random.default_rng(1)

    def each(width: int) -> list[np.ndarray]:
        return [rng.normal(size=(t, width)).astype(np.float32) for t in passes]

    single = {"logits": each(CLASSES), "fc": each(UNITS)}
    return Activations(
        logits=rng.normal(size=(N, CLASSES)).astype(np.float32),
        plain={"fc": rng.normal(size=(N, UNITS)).astype(np.float32)},
        averaged={"fc": np.stack([rows.mean(axis=0) for rows in single["fc"]])},
        passes=single,
    )


def test_a_sample_is_what_was_read_and_survives_the_disk(tmp_path: Path) -> None:
    at = activations((5, 5, 5))
    sample = sample_of(split(), ["p", "p", "q"], at)
    assert sample.pass_logits.shape == (N, 5, CLASSES)
    assert sample.passes["fc"].shape == (N, 5, UNITS)
    assert "logits" not in sample.passes
    assert "logits" in at.passes  # what was read stays as it was
    np.testing.assert_allclose(sample.averaged["fc"], sample.passes["fc"].mean(axis=1), rtol=1e-6)
    sample.save(tmp_path)
    again = Sample.open(tmp_path)
    assert again.patients == ("p", "p", "q")
    np.testing.assert_array_equal(again.pass_logits, sample.pass_logits)
    np.testing.assert_array_equal(again.labels, split().features.astype(float))


def test_lesions_with_different_numbers_of_passes_do_not_compare() -> None:
    with pytest.raises(InputError, match="different numbers of passes"):
        sample_of(split(), ["p", "q", "r"], activations((5, 1, 5)))
