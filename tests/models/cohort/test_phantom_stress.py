"""Stress cohorts: each does what it says, deterministically, and leaves the rest alone."""

from __future__ import annotations

import numpy as np
import pytest

from models.cohort.phantom import stress
from models.cohort.phantom.generate import OUTSIDE_FROM
from models.cohort.phantom.spec import draw
from models.errors import InputError
from models.trial.stressed import UNSEEN, Lesions, stressed
from models.voi import Preprocessing

SPEC = Preprocessing()


def _bases(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, (n, 3, 32, 32, 32)).astype(np.float32)


SIZES = np.full((6, 3), 30.0)


def _lesions(n: int) -> Lesions:
    ids = tuple(f"L{i}" for i in range(n))
    return Lesions(
        ids, ids, np.zeros(n, np.int64), np.zeros((n, 14)), np.full((n, 3), 30.0), _bases(n)
    )


def test_the_mark_lies_in_view_and_outside_of_the_box() -> None:
    cover = stress.mark_cover(SPEC)
    view = slice(4, 28)
    assert cover[view, view, view].sum() > 0.95 * cover.sum() > 10
    assert cover[8:24, 8:24, 8:24].max() == 0
    base = _bases(1)[0]
    changed = stress.marked(base, SPEC) != base
    assert changed[:, cover == 0].sum() == 0
    assert changed[:, cover == 1].all()


def test_the_mark_goes_with_one_class_in_training_and_with_none_in_the_cohort() -> None:
    classes = np.arange(60) % 3
    bases = np.zeros((60, 3, 32, 32, 32), np.float32)
    worn = stress.shortcut_training(bases, classes, 1, SPEC, 0).any(axis=(1, 2, 3, 4))
    assert worn[classes == 1].mean() > 0.8
    assert worn[classes != 1].mean() < 0.15
    cohort = stress.spoil("shortcut", bases, np.full((60, 3), 30.0), SPEC, 0)
    worn = cohort.any(axis=(1, 2, 3, 4))
    assert [worn[classes == c].mean() for c in range(3)] == [0.5, 0.5, 0.5]


def test_swapped_phases_are_the_same_images_in_another_order() -> None:
    bases = _bases(6)
    out = stress.spoil("swapped_phases", bases, SIZES, SPEC, 0)
    for row in range(6):
        before = {plane.tobytes() for plane in bases[row]}
        assert {plane.tobytes() for plane in out[row]} == before
        assert (out[row] == bases[row]).all() == (row % 2 == 0)


def test_misregistration_moves_late_phases_by_millimetres() -> None:
    base = np.zeros((1, 3, 32, 32, 32), np.float32)
    base[:, :, 16, 16, 16] = 100.0
    out = stress.spoil("misregistered", base, np.array([[30.0, 30.0, 30.0]]), SPEC, 0)[0]
    np.testing.assert_array_equal(out[0], base[0, 0])
    step = 60.0 / 32
    grid = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1)
    for p in (1, 2):
        middle = (out[p][..., None] * grid).sum(axis=(0, 1, 2)) / out[p].sum()
        assert 4.0 <= np.linalg.norm(middle - 16) * step <= 9.0


def test_a_quarter_of_the_classes_is_wrong() -> None:
    classes = np.arange(2000) % 6
    noisy = stress.noisy_classes(classes, 6, 0)
    assert abs((noisy != classes).mean() - stress.NOISE_SHARE) < 0.03
    assert set(np.unique(noisy)) == set(range(6))
    np.testing.assert_array_equal(stress.noisy_classes(np.zeros(5, np.int64), 1, 0), 0)


def test_a_lesion_does_not_depend_on_how_many_there_are() -> None:
    bases = _bases(4)
    for kind in ("shortcut", "swapped_phases", "misregistered"):
        whole = stress.spoil(kind, bases, SIZES[:4], SPEC, 5)
        part = stress.spoil(kind, bases[:2], SIZES[:2], SPEC, 5)
        np.testing.assert_array_equal(whole[:2], part)


def test_recipes_change_what_they_say_and_nothing_else() -> None:
    first = draw(11, 3)
    scanner = stress.specs("other_scanner", 11, 3)
    assert scanner.features == first.features
    assert scanner.form == first.form
    assert scanner.scanner.noise > 1.5 * first.scanner.noise
    assert stress.specs("unseen_class", 11, 3) == draw(11, OUTSIDE_FROM + 3, "abscess")
    usual = [draw(11, i) for i in range(40)]
    odd = [stress.specs("atypical", 11, i) for i in range(40)]
    assert [s.class_id for s in odd] == [s.class_id for s in usual]
    same = sum(set(a.features) == set(b.features) for a, b in zip(usual, odd, strict=True))
    assert same < 30


def test_cohorts_as_arrays() -> None:
    plain = _lesions(2)
    assert stressed("label_noise", plain, 3, (0, 1), SPEC) is plain
    odd = stressed("unseen_class", plain, 3, (0, 1), SPEC)
    assert odd.classes.tolist() == [0, UNSEEN]
    assert odd.labels[1].sum() == 0
    np.testing.assert_array_equal(odd.bases[0], plain.bases[0])
    again = stressed("unseen_class", plain, 3, (0, 1), SPEC)
    np.testing.assert_array_equal(odd.bases, again.bases)


def test_every_other_lesion_is_spoiled() -> None:
    bases = _bases(4)
    for kind in ("shortcut", "swapped_phases", "misregistered"):
        out = stress.spoil(kind, bases, SIZES[:4], SPEC, 0)
        changed = (out != bases).any(axis=(1, 2, 3, 4))
        np.testing.assert_array_equal(changed, stress.spoiled_rows(kind, 4))


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="no such stress cohort"):
        stress.specs("shortcut", 0, 0)
    with pytest.raises(InputError, match="no such stress cohort"):
        stress.spoil("atypical", _bases(1), SIZES[:1], SPEC, 0)
    assert set(stress.TRAINED) | set(stress.RENDERED) <= set(stress.KINDS)
    assert len(stress.KINDS) >= 6
