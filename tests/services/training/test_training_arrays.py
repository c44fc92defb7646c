"""Arrays on disk: what an evaluation reads again is what the cohort holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.cnn.data import load_split
from models.cohort.format import read_cohort
from models.vocabulary import liver_mri
from models.voi import Preprocessing
from services.training.splits import take
from services.training.trial import open_arrays, save_arrays


def test_saved_arrays_open_as_they_were(tiny_cohort: Path, tmp_path: Path) -> None:
    cohort, spec = read_cohort(tiny_cohort), Preprocessing()
    save_arrays(cohort, spec, tmp_path, lambda done, total: None)
    opened = open_arrays(tmp_path).validation
    read = load_split(cohort, "validation", liver_mri(), spec)
    assert opened.ids == read.ids
    for field in ("bases", "sizes_mm", "classes", "features"):
        np.testing.assert_array_equal(getattr(opened, field), getattr(read, field))
    assert (opened.sizes_mm > 0).all()
    some = take(opened, np.array([2, 0]))
    np.testing.assert_array_equal(some.sizes_mm, opened.sizes_mm[[2, 0]])
