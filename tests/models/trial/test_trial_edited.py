"""Pairs from image edits: which there are, and that each row is that edit through the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.errors import InputError
from models.imaging.edits import remove
from models.trial.data import Pairs, Sample
from models.trial.edited import editable, edited_pairs
from models.vocabulary import liver_mri
from models.voi import centre

WORDS = liver_mri()


def sample(n: int = 3) -> Sample:
    rng = np.random.default_rng(0)
    labels = np.zeros((n, len(WORDS.features)))
    labels[0, [0, 1]] = 1
    labels[1, 3] = np.nan
    labels[n - 1, 5] = 1
    return Sample(
        ids=tuple(map(str, range(n))),
        patients=tuple(map(str, range(n))),
        classes=np.zeros(n, np.int64),
        labels=labels,
        sizes_mm=np.full((n, 3), 25.0),
        bases=rng.normal(scale=0.3, size=(n, 3, 32, 32, 32)).astype(np.float32),
        logits=np.zeros((n, 6), np.float32),
        pass_logits=np.zeros((n, 1, 6), np.float32),
        plain={},
        averaged={},
    )


def test_what_is_labelled_present_and_has_an_edit() -> None:
    lesion, feature = editable(sample().labels, WORDS)
    assert list(zip(lesion.tolist(), feature.tolist(), strict=True)) == [(0, 0), (0, 1), (2, 5)]
    taught = WORDS.features[0].model_copy(update={"id": "fat_in_mass"})
    other = WORDS.model_copy(update={"features": [taught, *WORDS.features[1:]]})
    lesion, feature = editable(sample().labels, other)
    assert feature.tolist() == [1, 5]


def test_each_row_is_the_edit_seen_by_the_network(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    model, spec = load_model(bundle), bundle.preprocessing
    lesions, taps = sample(), list(bundle.manifest.taps)[-2:]
    ticks: list[tuple[int, int]] = []
    pairs = edited_pairs(
        lesions, model, taps, WORDS, spec, progress=lambda i, n: ticks.append((i, n))
    )
    assert pairs.origin == "edit"
    assert len(pairs) == 3
    assert ticks[-1] == (3, 3)
    for k, (row, f) in enumerate(zip(pairs.lesion, pairs.feature, strict=True)):
        edited = remove(WORDS.feature_ids[f], lesions.bases[row], lesions.sizes_mm[row], spec)
        x = centre(edited, spec)
        np.testing.assert_array_equal(pairs.x[k], x.astype(np.float16))
        alone = model.forward(x[None], ["logits", *taps])
        np.testing.assert_allclose(pairs.logits[k], alone["logits"][0], atol=1e-4)
        np.testing.assert_allclose(pairs.plain[taps[0]][k], alone[taps[0]][0], atol=1e-4)
    pairs.save(tmp_path / "pairs")
    np.testing.assert_array_equal(Pairs.open(tmp_path / "pairs").logits, pairs.logits)


def test_nothing_to_edit_gives_no_pairs(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    model, taps = load_model(bundle), list(bundle.manifest.taps)
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    pairs = edited_pairs(sample(), model, taps, WORDS, bundle.preprocessing, none)
    assert len(pairs) == 0
    assert pairs.logits.shape == (0, len(model.info.classes))
    assert pairs.joined(taps).shape == (0, sum(model.info.taps[t] for t in taps))


def test_a_feature_without_an_edit_is_refused(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    taught = WORDS.features[0].model_copy(update={"id": "fat_in_mass"})
    other = WORDS.model_copy(update={"features": [taught, *WORDS.features[1:]]})
    first = (np.zeros(1, np.int64), np.zeros(1, np.int64))
    with pytest.raises(InputError, match="no image edit"):
        edited_pairs(sample(), load_model(bundle), [], other, bundle.preprocessing, first)
