"""The layout of what probes read: taps in order, then image measurements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.probes.evidence import MEASUREMENTS, Evidence

LENGTHS = {"conv1": 3, "conv2": 2, "fc": 4}


@given(
    taps=st.lists(st.sampled_from(sorted(LENGTHS)), unique=True, min_size=1),
    measured=st.integers(0, 5),
    n=st.integers(1, 4),
)
def test_every_group_is_where_the_slices_say(taps: list[str], measured: int, n: int) -> None:
    evidence = Evidence.of(taps, LENGTHS, [f"m{i}" for i in range(measured)])
    rng = np.random.default_rng(0)
    values = {tap: rng.normal(size=(n, width)) for tap, width in LENGTHS.items()}
    image = rng.normal(size=(n, measured))
    vector = evidence.join(values, image)
    assert vector.shape == (n, evidence.length)
    assert len(evidence.names) == evidence.length == len(set(evidence.names))
    for tap in taps:
        np.testing.assert_array_equal(vector[:, evidence.slices[tap]], values[tap])
    np.testing.assert_array_equal(vector[:, : evidence.tap_length], evidence.tap_vector(values))
    if measured:
        np.testing.assert_array_equal(vector[:, evidence.slices[MEASUREMENTS]], image)
    else:
        assert MEASUREMENTS not in evidence.slices
        np.testing.assert_array_equal(evidence.join(values), vector)


def test_one_measurement_serves_all_passes_of_a_lesion() -> None:
    evidence = Evidence.of(["fc"], LENGTHS, ["a", "b"])
    vector = evidence.join({"fc": np.zeros((5, 4))}, np.array([1.0, 2.0]))
    np.testing.assert_array_equal(vector[:, 4:], np.tile([1.0, 2.0], (5, 1)))


@pytest.mark.parametrize("given", [None, np.zeros(3), np.float64(1.0)])
def test_other_measurements_are_refused(given: object) -> None:
    evidence = Evidence.of(["fc"], LENGTHS, ["a", "b"])
    with pytest.raises(InputError) as refusal:
        evidence.join({"fc": np.zeros((1, 4))}, given)  # type: ignore[arg-type]
    assert (refusal.value.code, refusal.value.field) == ("wrong_measurements", MEASUREMENTS)
