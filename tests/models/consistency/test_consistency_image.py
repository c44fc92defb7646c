"""The opinion of the image: learned, independent of the order of lesions, sane on odd input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from models.consistency import image
from models.consistency.image import FARTHEST, ImageExpert
from models.errors import InputError
from models.imaging.measurements import names
from models.voi import Preprocessing

CLASSES, NAMES = ("a", "b", "c"), tuple(f"m{i}" for i in range(6))


def _lesions(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 3
    m = rng.normal(size=(n, 6)) + 2.0 * np.eye(3, 6)[classes]
    m[:, 5] = 7.0  # never varies
    return 10 * m, classes


def test_it_learns_and_does_not_care_for_order() -> None:
    m, c = _lesions(90, 0)
    first = ImageExpert.fit(m, c, CLASSES, NAMES)
    order = np.random.default_rng(1).permutation(len(m))
    second = ImageExpert.fit(m[order], c[order], CLASSES, NAMES)
    np.testing.assert_array_equal(first.weights, second.weights)
    new, truth = _lesions(300, 2)
    shares = first.posterior(new)
    assert (shares.argmax(axis=1) == truth).mean() > 0.75
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_shuffled_classes_teach_nothing() -> None:
    m, c = _lesions(120, 0)
    c = np.random.default_rng(3).permutation(c)
    new, truth = _lesions(600, 4)
    shares = ImageExpert.fit(m, c, CLASSES, NAMES).posterior(new)
    assert abs((shares.argmax(axis=1) == truth).mean() - 1 / 3) < 0.15


def test_no_measurement_decides_alone_and_constants_say_nothing() -> None:
    m, c = _lesions(90, 0)
    expert = ImageExpert.fit(m, c, CLASSES, NAMES)
    far, farther = m[0].copy(), m[0].copy()
    far[0] = expert.mean[0] + 1.01 * FARTHEST * expert.scale[0]
    farther[0] = 1e9
    np.testing.assert_allclose(expert.posterior(far), expert.posterior(farther))
    odd = m[0].copy()
    odd[5] = -400.0
    np.testing.assert_allclose(expert.posterior(odd), expert.posterior(m[0]))


def test_a_class_without_lesions_is_unlikely_and_one_lesion_is_enough_to_run() -> None:
    m, c = _lesions(60, 0)
    expert = ImageExpert.fit(m[c < 2], c[c < 2], CLASSES, NAMES)
    assert expert.posterior(m[c < 2])[:, 2].max() < 0.2
    lone = ImageExpert.fit(m[:1], c[:1], CLASSES, NAMES)
    assert np.isfinite(lone.posterior(m)).all()


def test_the_slope_of_the_loss_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    m, c = _lesions(30, 0)
    seen = {}

    def catch(fun, start, **options):  # type: ignore[no-untyped-def]
        at = np.random.default_rng(0).normal(size=start.size) * 0.3
        seen["gap"] = check_grad(lambda t: fun(t)[0], lambda t: fun(t)[1], at)
        return type("Found", (), {"x": start})

    monkeypatch.setattr("scipy.optimize.minimize", catch)
    image._fit((m - m.mean(axis=0)) / (m.std(axis=0) + 1), c, 3, 2.0)
    assert seen["gap"] < 1e-3


def test_it_measures_what_it_was_fitted_to() -> None:
    spec, phases = Preprocessing(), ("arterial", "portal_venous", "delayed")
    every = names(phases)
    chosen = (every[3], every[1])
    expert = ImageExpert.fit(*_short(2), ("a", "b"), chosen)
    base = np.random.default_rng(0).normal(size=(3, 32, 32, 32)).astype(np.float32)
    assert expert.measure(base, (30.0, 25.0, 20.0), spec, phases).shape == (2,)


def _short(width: int) -> tuple[np.ndarray, np.ndarray]:
    m, c = _lesions(30, 0)
    return m[:, :width], c % 2


def test_parts_and_refusals() -> None:
    m, c = _lesions(60, 0)
    expert = ImageExpert.fit(m, c, CLASSES, NAMES)
    tensors, meta = expert.to_parts()
    back = ImageExpert.from_parts(tensors, meta)
    np.testing.assert_array_equal(back.posterior(m), expert.posterior(m))
    with pytest.raises(ValueError, match="shapes"):
        ImageExpert.from_parts({**tensors, "bias": np.zeros(2, np.float32)}, meta)
    with pytest.raises(InputError, match="measurements"):
        ImageExpert.fit(m, c[:5], CLASSES, NAMES)
    m[0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        ImageExpert.fit(m, c, CLASSES, NAMES)
