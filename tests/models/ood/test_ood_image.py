"""The description of an image: what it measures, and what it sees that activations may miss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from models.ood.image import SHELLS, describe, length


def lesion(seed: int, k: int = 24, phases: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(k, k, k)), 2) for _ in range(phases)]
    noise = rng.normal(scale=0.02, size=(phases, k, k, k))
    return (np.stack(smooth) * 5 + noise).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 9, 24]), st.integers(1, 4), st.floats(0, 100))
def test_any_image_gives_finite_numbers(seed: int, k: int, phases: int, size: float) -> None:
    x = np.random.default_rng(seed).normal(scale=size, size=(phases, k, k, k)).astype(np.float32)
    h = describe(x)
    assert h.shape == (length(phases),)
    assert np.isfinite(h).all()


def test_an_empty_image_is_finite_too() -> None:
    assert np.isfinite(describe(np.zeros((3, 8, 8, 8), np.float32))).all()


def test_the_profile_is_the_mean_of_each_shell() -> None:
    k = 24
    place = (np.arange(k) - (k - 1) / 2) / (k / 2)
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(place, place, place, indexing="ij")))
    x = np.stack([np.where(radius < 0.17, 3.0, 1.0), np.full_like(radius, -2.0)])
    means = describe(x.astype(np.float32))[: 2 * SHELLS].reshape(2, SHELLS)
    np.testing.assert_allclose(means[0], [3, *[1] * (SHELLS - 1)], atol=1e-6)
    np.testing.assert_allclose(means[1], -2, atol=1e-6)


def test_a_copied_phase_shares_its_finest_detail() -> None:
    x = lesion(1)
    copied = x.copy()
    copied[2] = 1.05 * x[1]
    pairs = slice(-3, None)  # the last numbers: detail of (0, 1), (0, 2), (1, 2)
    assert np.abs(describe(x)[pairs]).max() < 0.5
    assert describe(copied)[pairs][2] > 3


def test_mirroring_and_turning_change_nothing_but_the_axes() -> None:
    x = lesion(2)
    np.testing.assert_allclose(describe(x[..., ::-1]), describe(x), rtol=1e-4, atol=1e-5)
    turned = describe(np.swapaxes(x, 1, 2))
    steps = slice(2 * 3 * SHELLS, 2 * 3 * SHELLS + 9)
    np.testing.assert_allclose(
        turned[steps].reshape(3, 3), describe(x)[steps].reshape(3, 3)[:, [1, 0, 2]], rtol=1e-4
    )


def test_one_slice_repeated_has_no_roughness_along_it() -> None:
    x = lesion(3)
    flat = np.repeat(x[..., 12:13], 24, axis=-1)
    steps = slice(2 * 3 * SHELLS, 2 * 3 * SHELLS + 9)
    along = describe(flat)[steps].reshape(3, 3)[:, 2]
    assert along == pytest.approx(np.log(0.02), abs=1e-3)
