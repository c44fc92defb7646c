"""Pairs at training time: rendered for a phantom, edited for any other cohort."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.bundle.manifest import CLASSIFIER, GRADIENTS
from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import load_model
from models.cnn.data import SplitArrays, load_split
from models.cohort.format import read_cohort
from models.imaging.edits import remove
from models.relevance.removal import class_slopes, from_activations
from models.voi import centre
from services.training.activations import Activations, read_activations
from services.training.pairs import Phantom, choose_pairs, fit_directions
from services.training.splits import take
from services.training.weights import weigh_classes


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def split(tiny_cohort: Path, bundle: Bundle) -> SplitArrays:
    whole = load_split(
        read_cohort(tiny_cohort), "training", bundle.vocabulary, bundle.preprocessing
    )
    return take(whole, np.arange(12))


@pytest.fixture(scope="module")
def at(bundle: Bundle, split: SplitArrays) -> Activations:
    return read_activations(
        bundle.path / CLASSIFIER, split, list(bundle.manifest.taps), bundle.preprocessing,
        bundle.recipe, 0,
    )  # fmt: skip


def fit(bundle, split, at, phantom, rows, per_feature):  # type: ignore[no-untyped-def]
    return fit_directions(
        bundle.path / CLASSIFIER, split, at, rows, bundle.vocabulary, bundle.preprocessing,
        phantom=phantom, per_feature=per_feature, seed=3,
    )  # fmt: skip


def test_choice_is_bounded_seeded_and_independent_of_order() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 3)) < 0.3).astype(float)
    labels[:5, 2] = np.nan
    ids = [f"L{i:03d}" for i in range(40)]
    chosen = choose_pairs(ids, labels, np.arange(40), [0, 2], 4, 1)
    assert np.bincount(chosen[:, 1]).tolist() == [4, 0, 4]
    assert (labels[chosen[:, 0], chosen[:, 1]] == 1).all()
    mixed = rng.permutation(40)
    again = choose_pairs([ids[i] for i in mixed], labels[mixed], np.arange(40), [0, 2], 4, 1)
    assert [ids[r] for r in chosen[:, 0]] == [ids[mixed[r]] for r in again[:, 0]]
    assert choose_pairs(ids, labels, np.arange(40), [0, 2], 4, 2).tolist() != chosen.tolist()
    assert choose_pairs(ids, labels, np.arange(0), [0], 4, 1).shape == (0, 2)


def test_a_phantom_is_known_by_its_truth(tiny_cohort: Path, tmp_path: Path) -> None:
    phantom = Phantom.of(read_cohort(tiny_cohort))
    assert phantom is not None
    assert phantom.seed == 7
    assert set(phantom.index) >= {e.lesion_id for e in read_cohort(tiny_cohort).lesions("test")}
    shutil.copy(tiny_cohort / "cohort.json", tmp_path)
    bare = replace(read_cohort(tiny_cohort), root=tmp_path)
    assert Phantom.of(bare) is None


def test_rendered_pairs_switch_the_feature_off(
    bundle: Bundle, split: SplitArrays, at: Activations, tiny_cohort: Path
) -> None:
    phantom = Phantom.of(read_cohort(tiny_cohort))
    directions = fit(bundle, split, at, phantom, np.arange(0), per_feature=1)
    assert directions is not None
    assert directions.origin == "rendering"
    present = (split.features == 1).sum(axis=0)
    assert directions.counts.tolist() == np.minimum(present, 1).tolist()
    moved = np.abs(directions.moves).sum(axis=1)
    assert (moved[present > 0] > 0).all()
    assert not moved[present == 0].any()
    again = fit(bundle, split, at, phantom, np.arange(0), per_feature=1)
    assert again is not None
    assert again.coefficients.tobytes() == directions.coefficients.tobytes()


def test_edited_pairs_use_labelled_lesions_alone(
    bundle: Bundle, split: SplitArrays, at: Activations
) -> None:
    rows = np.array([1, 4, 7])
    directions = fit(bundle, split, at, None, rows, per_feature=9)
    assert directions is not None
    assert directions.origin == "edit"
    features, phases = bundle.vocabulary.feature_ids, bundle.vocabulary.phase_ids
    expected = [0] * len(features)
    for r in rows:
        for f in np.flatnonzero(split.features[r] == 1):
            base, size = split.bases[r], split.sizes_mm[r]
            gone = remove(features[f], base, size, bundle.preprocessing, phases)
            expected[f] += int(not np.array_equal(gone, base))
    assert sum(expected) > 3
    assert directions.counts.tolist() == expected
    assert fit(bundle, split, at, None, np.arange(0), per_feature=9) is None
    assert fit(bundle, split, at, None, rows, per_feature=0) is None


def test_weights_by_class_are_means_of_what_single_lesions_give(
    bundle: Bundle, split: SplitArrays, at: Activations
) -> None:
    directions = fit(bundle, split, at, None, np.arange(12), per_feature=9)
    assert directions is not None
    found = np.ones((12, len(bundle.vocabulary.features)), dtype=bool)
    table = weigh_classes(
        bundle.path / GRADIENTS, split, at, directions, found, bundle.vocabulary,
        bundle.preprocessing, draws=50, seed=0,
    )  # fmt: skip
    model, predicted = load_model(bundle), at.logits.argmax(axis=1)
    c = int(np.bincount(predicted).argmax())
    changes = []
    for i in np.flatnonzero(predicted == c):
        x = centre(split.bases[i], bundle.preprocessing)
        slopes = class_slopes(model, x, directions.target, [c])
        seen = {tap: values[i : i + 1] for tap, values in at.plain.items()}
        changes.append(from_activations(directions, seen, slopes, []).change[:, 0])
    row = table[bundle.manifest.classes[c]]
    assert len(row) == (directions.counts > 0).sum()
    for f, name in enumerate(directions.features):
        if directions.counts[f]:
            assert row[name]["value"] == pytest.approx(np.mean(changes, axis=0)[f], abs=2e-4)
            assert row[name]["n"] == len(changes)
    sizes = [abs(entry["value"]) for entry in row.values()]
    assert sizes == sorted(sizes, reverse=True)
