"""Outliers are what they are called, each made from its seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import InputError
from models.trial.distribution import inlier_row, outlier_row
from models.trial.outliers import KINDS, spoiled, voi_of_series
from models.voi import Lesion, Preprocessing, tensor
from models.volume import Volume

PHASES = ("arterial", "portal_venous", "delayed")
SPEC = Preprocessing(lesion_voxels=32, base_voxels=16, tensor_voxels=12)


def lesion(seed: int = 0) -> Lesion:
    rng = np.random.default_rng(seed)
    voxels = (100 + 10 * rng.normal(size=(3, 32, 32, 32))).astype(np.float32)
    voxels += np.arange(3, dtype=np.float32)[:, None, None, None] * 20
    return Lesion(voxels, PHASES, 1.0, (16.0, 16.0, 16.0), 32)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_keeps_shape_and_depends_on_its_seed_alone(kind: str) -> None:
    a, b = (spoiled(lesion(), kind, np.random.default_rng(5)).voxels for _ in range(2))
    assert a.shape == lesion().voxels.shape
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, lesion().voxels)
    assert np.isfinite(tensor(spoiled(lesion(), kind, np.random.default_rng(5)), SPEC)).all()


def test_kinds_are_what_they_say() -> None:
    rng, x = np.random.default_rng(1), lesion()
    copied = spoiled(x, "copied_phase", rng)
    assert len(copied.identical_phases) == 3
    shuffled = spoiled(x, "shuffled_voxels", rng)
    np.testing.assert_array_equal(
        np.sort(shuffled.voxels.reshape(3, -1)), np.sort(x.voxels.reshape(3, -1))
    )
    np.testing.assert_array_equal(spoiled(x, "upside_down", rng).voxels, x.voxels[..., ::-1])
    np.testing.assert_array_equal(spoiled(x, "reversed_phases", rng).voxels, x.voxels[::-1])
    assert np.ptp(spoiled(x, "zeros", rng).voxels) == 0
    assert np.ptp(spoiled(x, "repeated_slice", rng).voxels, axis=-1).max() == 0
    noise = spoiled(x, "noise", rng).voxels
    np.testing.assert_allclose(noise.mean(axis=(1, 2, 3)), x.voxels.mean(axis=(1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), x.voxels.std(axis=(1, 2, 3)), rtol=1e-3)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="no such kind"):
        spoiled(lesion(), "sideways", np.random.default_rng(0))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_voi_of_real_images_has_phases_that_are_no_copies(count: int) -> None:
    rng = np.random.default_rng(2)
    body = np.zeros((40, 40, 12), np.float32)
    body[8:32, 8:32, 2:10] = 200
    series = [
        Volume.make(body + rng.normal(0, 5, body.shape).astype(np.float32), np.diag([2, 2, 4, 1]))
        for _ in range(count)
    ]
    found = voi_of_series(series, PHASES, SPEC, np.random.default_rng(3))
    assert found.phases == PHASES
    assert not found.identical_phases
    assert min(found.size_mm) >= 8
    assert max(found.size_mm) <= 52
    again = voi_of_series(series, PHASES, SPEC, np.random.default_rng(3))
    np.testing.assert_array_equal(found.voxels, again.voxels)


def test_a_single_slice_serves_too() -> None:
    data = np.random.default_rng(4).uniform(50, 100, (64, 64, 1)).astype(np.float32)
    series = [Volume.make(data, np.diag([0.5, 0.5, 6, 1]))]
    assert voi_of_series(series, PHASES, SPEC, np.random.default_rng(0)).slices == 1


def test_rows_count_what_lies_above_its_limit() -> None:
    inside, outside = np.array([0.5, 0.6, 0.45, 1.3]), np.array([1.5, 1.1, 0.55])
    row = outlier_row(inside, outside, seed=0)
    assert row["auroc"] == pytest.approx((4 + 3 + 2) / 12)
    assert (row["n"], row["flagged"]) == (3, pytest.approx(2 / 3, abs=1e-6))
    assert inlier_row(inside)["flagged"] == pytest.approx(0.25)
