"""Loading, balanced batches and batched augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import (
    NormalizeIntensity,
    ScaleIntensity,
    ScaleIntensityRangePercentiles,
    Transform,
)
from scipy import ndimage

from models.cnn.augment import augment, centre
from models.cnn.data import BalancedBatches, feature_matrix, load_split
from models.cohort.format import Cohort, read_cohort
from models.cohort.load import load_lesion
from models.errors import CohortError, InputError
from models.passes import PassRecipe
from models.vocabulary import liver_mri
from models.voi import Lesion, Preprocessing, normalise, without
from models.voi import centre as plain_centre

SPEC = Preprocessing()
STILL = PassRecipe(degrees=0, shift=0, scale=0, phase_shift=0, gain=0, offset=0, flip=False)


def bases(n: int = 4, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(n, 3, 32, 32, 32))
    return ndimage.gaussian_filter(noise, (0, 0, 2, 2, 2)).astype(np.float32) * 10


def test_without_variation_augmentation_is_the_plain_view() -> None:
    b = bases()
    x = augment(torch.from_numpy(b), SPEC, STILL, np.random.default_rng(0))
    expected = np.stack([plain_centre(one, SPEC) for one in b])
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-3)
    np.testing.assert_array_equal(centre(torch.from_numpy(b), SPEC).numpy(), expected)


def test_augmentation_samples_as_the_passes_do() -> None:
    """A pure shift by whole voxels must give the neighbouring crop, along the right axis."""
    b = torch.from_numpy(bases(1))
    recipe = STILL.model_copy(update={"shift": 1.0})

    class Fixed(np.random.Generator):
        def uniform(self, low=0.0, high=1.0, size=None):  # type: ignore[no-untyped-def]
            value = np.zeros(size)
            if high == 1.0 and size == (1, 1, 3):
                value[..., 0] = 2.0  # two voxels along the first axis
            return value

    x = augment(b, SPEC, recipe, Fixed(np.random.PCG64(0)))
    np.testing.assert_allclose(x[0], b[0, :, 6:30, 4:28, 4:28], atol=1e-3)


def test_augmentation_is_deterministic_and_keeps_its_range() -> None:
    b = torch.from_numpy(bases())
    one = augment(b, SPEC, PassRecipe(), np.random.default_rng(3))
    again = augment(b, SPEC, PassRecipe(), np.random.default_rng(3))
    other = augment(b, SPEC, PassRecipe(), np.random.default_rng(4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    still = PassRecipe(gain=0, offset=0)
    moved = augment(b, SPEC, still, np.random.default_rng(5))
    assert moved.min() >= b.min() - 1e-4
    assert moved.max() <= b.max() + 1e-4


def test_a_missing_phase_stays_zero_and_changes_no_other() -> None:
    b = bases()
    lacking = b.copy()
    lacking[1, 2] = lacking[3, 0] = 0
    full, x = (
        augment(torch.from_numpy(a), SPEC, PassRecipe(), np.random.default_rng(3))
        for a in (b, lacking)
    )
    absent = torch.zeros(4, 3, dtype=torch.bool)
    absent[1, 2] = absent[3, 0] = True
    assert not x[absent].any()
    assert torch.equal(x[~absent], full[~absent])


def test_phase_dropout_drops_late_phases_of_its_share_of_views() -> None:
    spec = Preprocessing(lesion_voxels=8, base_voxels=4, tensor_voxels=2)
    b = torch.from_numpy(np.random.default_rng(0).normal(size=(600, 3, 4, 4, 4)).astype("f"))
    plain = augment(b, spec, PassRecipe(), np.random.default_rng(3))
    x, again = (
        augment(b, spec, PassRecipe(), np.random.default_rng(3), phase_dropout=0.3)
        for _ in range(2)
    )
    assert torch.equal(x, again)
    absent = ~x.flatten(2).any(dim=2)
    whole = ~absent.any(dim=1)
    assert torch.equal(x[whole], plain[whole])
    assert not absent[:, 0].any()
    combinations = np.bincount(absent[:, 1].int() + 2 * absent[:, 2].int(), minlength=4) / 600
    # 3 standard deviations of a share of 600: 0.056 for 0.7, 0.037 for 0.1.
    np.testing.assert_allclose(combinations[0], 0.7, atol=0.06)
    np.testing.assert_allclose(combinations[1:], 0.1, atol=0.04)
    # A view that lost phases is a view of what serving would make of such a lesion.
    lacking = np.stack(
        [
            without(one, np.flatnonzero(gone), spec)
            for one, gone in zip(b.numpy(), absent.numpy(), strict=True)
        ]
    )
    same = augment(torch.from_numpy(lacking), spec, PassRecipe(), np.random.default_rng(3))
    assert torch.equal(x, same)


def test_phase_dropout_never_leaves_a_view_without_a_phase() -> None:
    b = torch.from_numpy(bases(8))
    b[:4, 0] = 0  # these lesions lack their first phase already
    x = augment(b, SPEC, STILL, np.random.default_rng(0), phase_dropout=1.0)
    assert x.flatten(2).any(dim=2).any(dim=1).all()
    assert x[:4, 1:].flatten(2).any(dim=2).all()
    one = augment(b[4:, :1], SPEC, STILL, np.random.default_rng(0), phase_dropout=1.0)
    assert one.flatten(2).any(dim=2).all()


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    batch=st.integers(2, 16),
    epoch=st.integers(0, 3),
)
def test_batches_are_balanced_and_repeatable(counts: list[int], batch: int, epoch: int) -> None:
    classes = np.repeat(np.arange(len(counts)), counts)
    batches = BalancedBatches(classes, batch, seed=1, epoch=epoch)
    rows = list(batches)
    assert rows == list(BalancedBatches(classes, batch, seed=1, epoch=epoch))
    assert len(rows) == len(batches)
    assert all(len(row) == batch for row in rows)
    shown = np.bincount(classes[np.concatenate(rows)], minlength=len(counts))
    assert shown.max() - shown.min() <= 1
    for row in rows:
        each = np.bincount(classes[row], minlength=len(counts))
        assert each.max() - each.min() <= 2


def test_epochs_differ() -> None:
    classes = np.arange(60) % 6
    assert list(BalancedBatches(classes, 12, 0, 0)) != list(BalancedBatches(classes, 12, 0, 1))


def test_load_split_is_the_one_preprocessing(tiny_cohort: Path) -> None:
    cohort, vocabulary = read_cohort(tiny_cohort), liver_mri()
    ticks: list[tuple[int, int]] = []
    split = load_split(
        cohort, "validation", vocabulary, SPEC, progress=lambda i, n: ticks.append((i, n))
    )
    entries = cohort.lesions("validation")
    assert split.ids == tuple(e.lesion_id for e in entries)
    assert [vocabulary.class_ids[c] for c in split.classes] == [e.class_id for e in entries]
    assert ticks[-1] == (len(entries), len(entries))
    lesion = load_lesion(cohort, entries[3], vocabulary.phase_ids, SPEC)
    np.testing.assert_array_equal(split.bases[3], normalise(lesion, SPEC))
    np.testing.assert_array_equal(split.sizes_mm[3], lesion.size_mm)


def test_feature_status_becomes_numbers(tiny_cohort: Path) -> None:
    entry = read_cohort(tiny_cohort).lesions("training")[0]
    status = {"washout": "present", "central_scar": "absent", "thin_walled": "ignore"}
    row = feature_matrix([entry.model_copy(update={"features": status})], liver_mri())[0]
    names = liver_mri().feature_ids
    assert row[names.index("washout")] == 1
    assert row[names.index("central_scar")] == 0
    assert np.isnan(row[names.index("thin_walled")])
    assert np.isnan(row).sum() == len(names) - 2


def test_faults_are_named(tiny_cohort: Path) -> None:
    cohort, vocabulary = read_cohort(tiny_cohort), liver_mri()
    few = vocabulary.model_copy(update={"classes": vocabulary.classes[:3]})
    with pytest.raises(CohortError, match=r"lesion .*: class: found"):
        load_split(cohort, "test", few, SPEC)
    empty = Cohort(cohort.root, cohort.file.model_copy(update={"test": []}))
    with pytest.raises(CohortError, match="test: no lesions"):
        load_split(empty, "test", vocabulary, SPEC)


def test_a_lesion_without_a_late_phase_loads_where_it_may(tiny_cohort: Path) -> None:
    whole, vocabulary = read_cohort(tiny_cohort), liver_mri()
    first, *rest = whole.lesions("test")[:4]
    keep = {"image", "voi"}
    lacking = first.model_copy(
        update={k: {p: v for p, v in getattr(first, k).items() if p != "delayed"} for k in keep}
    )
    cohort = Cohort(whole.root, whole.file.model_copy(update={"test": [lacking, *rest]}))
    with pytest.raises(InputError, match="missing phase: delayed") as refused:
        load_split(cohort, "test", vocabulary, SPEC)
    assert first.lesion_id in refused.value.line
    split = load_split(cohort, "test", vocabulary, SPEC, optional_phases=["delayed"])
    assert not split.bases[0, 2].any()
    assert split.bases[0, :2].any()
    complete = load_split(whole, "test", vocabulary, SPEC)
    np.testing.assert_array_equal(split.bases[1:], complete.bases[1:4])


@pytest.mark.parametrize(
    ("intensity", "transform"),
    [
        ("zscore", NormalizeIntensity(channel_wise=True)),
        ("minmax", ScaleIntensity(channel_wise=True)),
        ("percentile", ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True, channel_wise=True)),
    ],
)
def test_intensity_modes_are_those_of_monai(intensity: str, transform: Transform) -> None:
    """A classifier that was trained with MONAI's transform is fed what it knows."""
    voxels = np.random.default_rng(0).gamma(4, 50, (3, 32, 32, 32)).astype(np.float32)
    voxels[1] *= 3
    spec = Preprocessing(
        lesion_voxels=32, base_voxels=32, tensor_voxels=32, intensity=intensity, clip=99
    )
    lesion = Lesion(voxels, ("a", "b", "c"), 1.0, (16.0, 16.0, 16.0), 32)
    np.testing.assert_allclose(
        normalise(lesion, spec), np.asarray(transform(voxels)), atol=2e-4, rtol=1e-4
    )
