"""Lesions rendered without their features, and the gallery's pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.cohort.phantom.rendering import render
from models.cohort.phantom.spec import LesionSpec, draw
from models.report.plates import ENLARGED, OUTLINE, plate_picture
from models.trial.data import Pairs
from models.trial.switched import all_off, switched_off
from models.vocabulary import liver_mri
from models.voi import centre, extract, normalise
from models.volume import Study
from tests.models.reasons.small_network import SPEC, SmallNetwork

FEATURES = liver_mri().feature_ids


@pytest.fixture(scope="module")
def specs() -> list[LesionSpec]:
    return [draw(11, i) for i in range(3)]


@pytest.fixture(scope="module")
def pairs(specs: list[LesionSpec]) -> Pairs:
    return switched_off(specs, FEATURES, SmallNetwork(), SPEC)


def test_each_lesion_comes_once_without_each_of_its_features(
    specs: list[LesionSpec], pairs: Pairs
) -> None:
    expected = [
        (i, FEATURES.index(f)) for i, s in enumerate(specs) for f in FEATURES if f in s.features
    ]
    assert list(zip(pairs.lesion.tolist(), pairs.feature.tolist(), strict=True)) == expected
    assert pairs.origin == "rendering"
    assert pairs.logits.shape == (len(expected), 6)
    assert all(len(v) == len(expected) for v in pairs.plain.values())


def test_a_pair_is_the_network_on_the_rendering_without(
    specs: list[LesionSpec], pairs: Pairs
) -> None:
    i, f = int(pairs.lesion[0]), int(pairs.feature[0])
    made = render(specs[i].without(FEATURES[f]))
    phases = list(liver_mri().phase_ids)
    lesion = extract(Study.make(made.volumes, made.boxes, phases), SPEC)
    x = centre(normalise(lesion, SPEC), SPEC)
    out = SmallNetwork().forward(x[None], ["logits"])["logits"][0]
    np.testing.assert_allclose(pairs.logits[0], out, rtol=1e-6)
    np.testing.assert_array_equal(pairs.x[0], x.astype(np.float16))


def test_all_off_is_the_one_pair_of_a_lesion_with_one_feature() -> None:
    lone = next(s for s in (draw(11, i) for i in range(60)) if len(s.features) == 1)
    single = switched_off([lone], FEATURES, SmallNetwork(), SPEC)
    np.testing.assert_array_equal(all_off([lone], FEATURES, SmallNetwork(), SPEC), single.logits)


def test_features_outside_of_the_vocabulary_are_left_alone(tmp_path: Path) -> None:
    lesion = draw(11, 0)
    none = switched_off([lesion], [], SmallNetwork(), SPEC)
    assert len(none) == 0
    none.save(tmp_path)
    assert len(Pairs.open(tmp_path)) == 0


def test_a_plate_shows_orange_for_blue_against_and_the_mask_in_outline() -> None:
    k = 8
    heat = np.zeros((k, k), np.float32)
    heat[1, 4], heat[6, 4] = 1.0, -1.0  # patient's right, patient's left
    mask = np.zeros((k, k), bool)
    mask[3:6, 3:6] = True
    flat = np.linspace(0, 1, k * k, dtype=np.float32).reshape(k, k)
    shown = np.asarray(plate_picture(flat, heat, mask, end=1.0)).astype(int)
    half = k * ENLARGED
    assert shown.shape == (half, 2 * half + ENLARGED, 3)
    left, right = shown[:, :half], shown[:, -half:]
    assert (left.std(axis=2)[~(left == OUTLINE).all(axis=2)] == 0).all()  # grey beside the outline
    assert (left == OUTLINE).all(axis=2).any()
    middle = right[half // 2 - ENLARGED // 2]
    warm = middle[:, 0] - middle[:, 2]
    # R runs from the patient's right to the left and is mirrored twice on the way to a screen.
    assert np.abs(warm).max() > 50
    assert warm.max() > 50 > -50 > warm.min()


def test_a_map_of_nothing_colours_nothing() -> None:
    k = 6
    image = np.random.default_rng(0).normal(size=(k, k)).astype(np.float32)
    nothing = np.zeros((k, k), np.float32)
    shown = np.asarray(plate_picture(image, nothing, nothing.astype(bool), end=1.0))
    half = k * ENLARGED
    np.testing.assert_array_equal(shown[:, :half], shown[:, -half:])
