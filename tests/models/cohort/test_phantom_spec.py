"""Drawing lesions: determinism, how features hang on classes, patients."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cohort.phantom import draw, profiles
from models.cohort.phantom.definitions import DEFINITIONS
from models.cohort.phantom.profiles import CLASSES, FEATURES
from models.errors import InputError
from models.vocabulary import liver_mri

COHORT = [draw(3, i) for i in range(1200)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 100_000))
def test_the_same_seed_and_index_draw_the_same_lesion(seed: int, index: int) -> None:
    assert draw(seed, index) == draw(seed, index)
    assert draw(seed, index).form != draw(seed + 1, index).form


def test_ids_are_those_of_the_vocabulary() -> None:
    assert list(FEATURES) == liver_mri().feature_ids
    assert list(CLASSES) == liver_mri().class_ids
    assert set(DEFINITIONS) == set(FEATURES)


def test_a_lesion_has_one_to_four_features_without_contradictions() -> None:
    counts = Counter(len(s.features) for s in COHORT)
    assert set(counts) == {1, 2, 3, 4}
    for spec in COHORT:
        present = list(spec.features)
        assert not [
            (a, b) for a in present for b in present if a != b and profiles.conflict(a, b)
        ], spec.lesion_id
        assert all(0.3 <= s <= 1 for s in spec.features.values())


def test_classes_are_balanced_and_every_feature_appears() -> None:
    assert set(Counter(s.class_id for s in COHORT).values()) == {200}
    seen = Counter(f for s in COHORT for f in s.features)
    assert set(seen) == set(FEATURES)
    assert min(seen.values()) > 0.05 * len(COHORT)


def test_typical_features_are_common_and_no_feature_determines_its_class() -> None:
    for feature in liver_mri().features:
        share = {
            c: sum(feature.id in s.features for s in COHORT if s.class_id == c) / 200
            for c in CLASSES
        }
        for c in feature.typical_of:
            assert 0.4 < share[c] < 0.95, (feature.id, c)
        assert sum(v > 0 for c, v in share.items() if c not in feature.typical_of) >= 2, feature.id


def test_no_label_is_true_of_featureless_tissue() -> None:
    for spec in COHORT:
        arterial, late = spec.base
        assert abs(late - 1) > 0.059  # neither isointense
        if "arterial_hyperenhancement" not in spec.features:
            assert arterial <= 0.91  # nor bright
            assert abs(late - arterial) <= 0.0301  # nor rising or washing out


def test_lesions_of_a_patient_share_the_scanner_and_differ_in_the_rest() -> None:
    patients: dict[str, list] = {}
    for spec in COHORT:
        patients.setdefault(spec.patient_id, []).append(spec)
    assert {len(p) for p in patients.values()} == {1, 2, 3}
    for lesions in patients.values():
        assert all(s.scanner == lesions[0].scanner for s in lesions)
    mixed = sum(len({s.class_id for s in p}) > 1 for p in patients.values())
    assert 0 < mixed < len(patients)


def test_without_switches_off_and_leaves_all_else() -> None:
    spec = next(s for s in COHORT if len(s.features) == 3)
    feature = next(iter(spec.features))
    less = spec.without(feature)
    assert set(less.features) == set(spec.features) - {feature}
    assert less.drawn == spec.drawn
    assert spec.without() == spec
    assert less.without(feature) == less


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: draw(-1, 0), "seed"),
        (lambda: draw(1, -5), "seed"),
        (lambda: draw(1, 0, "adenoma"), "class"),
        (lambda: draw(1, 0).without("spikes"), "feature"),
        (lambda: draw(1, 0).with_strength(next(iter(draw(1, 0).features)), 1.5), None),
    ],
)
def test_bad_arguments_are_named(call, field) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert field is None or error.value.field == field
    assert error.value.expected


def test_an_abscess_has_no_feature_and_no_chance_of_one() -> None:
    for index in range(60):
        spec = draw(3, index, "abscess")
        assert spec.class_id == "abscess"
        assert spec.features == spec.drawn == {}
        assert 24 <= spec.form.diameter_mm <= 56
    assert not any(profiles.chance(f, "abscess") for f in FEATURES)
    assert "abscess" not in {s.class_id for s in COHORT}


def test_neighbours_are_other_lesions_of_the_same_patient() -> None:
    with_one = [s for s in COHORT if s.neighbour]
    assert 0.1 < len(with_one) / len(COHORT) < 0.35
    for spec in with_one:
        other = COHORT[spec.neighbour.index]
        assert other.patient_id == spec.patient_id
        assert other.index != spec.index
        assert other.class_id == spec.neighbour.class_id
        # Both lie apart, whatever grows on them.
        away = sum(v * v for v in spec.neighbour.offset_mm) ** 0.5
        assert away > spec.extent().reach + other.extent().reach
