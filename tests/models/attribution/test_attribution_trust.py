"""The trust card's parts: likeness of maps, variations that can be undone, the gate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attribution.trust import judged, similarity, variation
from models.voi import centre
from tests.models.reasons.small_network import SPEC
from wire.explanation import TrustCard

GOOD = {
    "method": "m", "kind": "feature", "n": 9, "split": "validation", "passed": False,
    "pointing": 0.9, "auprc": 0.8, "control_auprc": 0.7, "randomisation": 0.1,
    "repeatability": 0.7, "reproducibility": 0.6, "completeness_error": 0.01, "rises": 0.9,
}  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), number=st.integers(0, 1000))
def test_a_variation_is_undone_to_the_voxel(seed: int, number: int) -> None:
    """A map that marks places of the view goes back to where those places lie in the plain view."""
    m = SPEC.base_voxels
    base = np.zeros((2, m, m, m), np.float32)
    base[:] = 1 + np.arange(m**3).reshape(m, m, m)
    varied = variation(SPEC, 2, seed, number)
    seen = varied.view(base).astype(np.float64)
    # Gain and offset are the same for a whole phase: undone by its smallest and largest voxel.
    plain = centre(base, SPEC)
    back = varied.back(seen)
    inside = back != 0
    assert inside.mean() > 0.7
    for p in range(2):
        a, b = back[p][inside[p]], plain[p][inside[p]]
        assert np.corrcoef(a, b)[0, 1] > 1 - 1e-6


def test_a_variation_follows_from_its_numbers() -> None:
    base = np.random.default_rng(0).normal(size=(3, *(SPEC.base_voxels,) * 3)).astype(np.float32)
    one, two, other = (variation(SPEC, 3, 1, n).view(base) for n in (4, 4, 5))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_a_missing_phase_stays_missing_in_a_variation() -> None:
    base = np.ones((3, *(SPEC.base_voxels,) * 3), np.float32)
    base[1] = 0
    assert not variation(SPEC, 3, 0, 0).view(base)[1].any()


def test_likeness_knows_the_sign() -> None:
    a = np.random.default_rng(1).normal(size=(3, 8, 8, 8)).astype(np.float32)
    assert similarity(a, 3 * a) == pytest.approx(1)
    assert similarity(a, -a) == pytest.approx(-1)
    assert np.isnan(similarity(a, np.zeros_like(a)))


def test_a_good_card_passes() -> None:
    assert judged(TrustCard(**GOOD)).passed


@pytest.mark.parametrize(
    ("field", "value", "criterion"),
    [
        ("auprc", 0.6, "localisation"),
        ("randomisation", 0.8, "randomisation"),
        ("repeatability", 0.2, "repeatability"),
        ("reproducibility", 0.1, "reproducibility"),
        ("completeness_error", 0.5, "completeness"),
        ("rises", 0.5, "rises"),
    ],
)
def test_each_criterion_can_fail_the_card(field: str, value: float, criterion: str) -> None:
    card = judged(TrustCard(**(GOOD | {field: value})))
    assert not card.passed
    assert card.failed == [criterion]


def test_a_class_map_must_peak_in_the_lesion_but_need_not_fill_it() -> None:
    assert judged(TrustCard(**(GOOD | {"kind": "class", "auprc": 0.2}))).passed
    assert judged(TrustCard(**(GOOD | {"kind": "class", "pointing": 0.5}))).failed == [
        "localisation"
    ]


def test_without_masks_the_rest_decides() -> None:
    blind = {"auprc": None, "pointing": None, "control_auprc": None, "reproducibility": None}
    assert judged(TrustCard(**(GOOD | blind))).passed


def test_a_card_of_which_nothing_is_known_does_not_pass() -> None:
    card = judged(TrustCard(method="m", kind="class", n=0, split="validation", passed=False))
    assert not card.passed
    assert card.failed
