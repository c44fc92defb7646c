"""A cohort without feature labels (LLD-MMRI as it comes) still makes a bundle."""

from __future__ import annotations

import numpy as np

from models.probes.probeset import ProbeSet


def test_no_features_is_a_legal_vocabulary() -> None:
    rng = np.random.default_rng(0)
    h = rng.normal(size=(9, 5)).astype(np.float32)
    none = np.empty((9, 0))
    probes = ProbeSet.fit(h, none, h, [], 0, validation=(h[:4], none[:4]))
    assert probes.probabilities(h).shape == (9, 0)
    assert probes.probabilities(h[0]).shape == (0,)
    assert probes.found(h[None]).shape == (1, 9, 0)
    assert probes.measured(h, none, "test").quality == []
    again = ProbeSet.from_parts(*probes.to_parts())
    assert again.features == []
    assert again.probabilities(h).shape == (9, 0)
