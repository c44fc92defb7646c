"""What training leaves in a bundle to judge its verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.bundle.read import read_bundle
from models.consistency.features import READER_ERROR
from models.consistency.review import SOURCES
from services.training.review import misread


def test_a_reader_errs_at_the_stated_rate_and_by_lesion() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 14)) < 0.3).astype(float)
    labels[5] = np.nan
    ids = [f"L{i:05d}" for i in range(400)]
    told = misread(labels, ids, 0)
    assert np.isnan(told[5]).all()
    assert abs(np.nanmean(told != np.where(np.isnan(labels), told, labels)) - READER_ERROR) < 0.02
    order = rng.permutation(400)
    np.testing.assert_array_equal(misread(labels[order], [ids[i] for i in order], 0), told[order])
    np.testing.assert_array_equal(misread(labels, ids, 0, share=0.0), labels)


def test_a_trained_bundle_can_judge_itself(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    judges = bundle.judges
    assert judges is not None
    assert list(judges.features.classes) == bundle.manifest.classes
    assert list(judges.features.features) == bundle.manifest.features
    assert set(judges.review.joined) == set(SOURCES) == set(judges.quality)
    for joined in judges.review.joined.values():
        assert min(joined.weights) >= 0
        assert 0 < joined.threshold < 1
    assert judges.quality["probes"].split == "validation"
    assert len(judges.review.strangeness.known) == judges.quality["probes"].n
