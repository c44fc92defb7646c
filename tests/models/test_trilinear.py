"""Trilinear reading: what scipy gives, inside, beyond the edge and far away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from models.trilinear import trilinear


def _by_scipy(
    planes: np.ndarray, matrix: np.ndarray, offsets: list[np.ndarray], edge: int
) -> np.ndarray:
    return np.stack(
        [
            ndimage.affine_transform(
                plane, matrix, offset=offset, output_shape=(edge,) * 3, order=1, mode="nearest"
            )
            for plane, offset in zip(planes, offsets, strict=True)
        ]
    )


def _one(seed: int, size: int, shift: float) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    planes = rng.normal(size=(3, size, size, size)).astype(np.float32)
    turn = Rotation.from_rotvec(rng.uniform(-3, 3, 3)).as_matrix()
    matrix = turn * rng.uniform(0.5, 1.5) * np.where(rng.random(3) < 0.5, -1.0, 1.0)
    return planes, matrix, [rng.uniform(-shift, shift + size, 3) for _ in planes]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.integers(2, 33),
    st.integers(1, 26),
    st.sampled_from([0.0, 5.0]),
)
def test_it_is_scipys_to_rounding(seed: int, size: int, edge: int, shift: float) -> None:
    planes, matrix, offsets = _one(seed, size, shift)
    found = np.stack(list(trilinear(planes, matrix, offsets, edge)))
    expected = _by_scipy(planes, matrix, offsets, edge)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(planes).max(), rtol=0)


@pytest.mark.parametrize("shift", [100.0, 3000.0, 1e6])
def test_far_away_is_the_edges_value(shift: float) -> None:
    planes, matrix, _ = _one(0, 12, 0.0)
    offsets = [np.array([shift, -shift, shift])] * 3
    found = np.stack(list(trilinear(planes, matrix, offsets, 8)))
    np.testing.assert_allclose(found, _by_scipy(planes, matrix, offsets, 8), atol=1e-6)


def test_whole_voxels_are_read_as_they_are() -> None:
    planes = np.random.default_rng(1).normal(size=(2, 8, 8, 8)).astype(np.float32)
    found = list(trilinear(planes, np.eye(3), [np.zeros(3), np.ones(3)], 6))
    np.testing.assert_array_equal(found[0], planes[0, :6, :6, :6])
    np.testing.assert_array_equal(found[1], planes[1, 1:7, 1:7, 1:7])
