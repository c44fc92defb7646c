"""The sheets that a person looks at: what is in them, and that each feature shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.cohort.phantom import gallery
from models.cohort.phantom.profiles import FEATURES


@pytest.mark.parametrize("feature", FEATURES)
def test_each_feature_tells_itself_apart_in_its_row(feature: str) -> None:
    """Between the pictures with it and without, more changes than the noise that both share.

    Pixels of one lesion are compared over the same window, so what differs is the feature: by at
    least 20 of 255 grey levels in the most changed fiftieth of the pictures, and by 8 where faint.
    """
    row = gallery.feature_row(feature)
    assert [p.title for p in row.panels] == ["clear", "faint", "off"]
    clear, faint, off = (
        np.stack([np.asarray(t, float) for t in gallery._tiles(p)]) for p in row.panels
    )
    assert np.percentile(np.abs(clear - off), 98) > 20
    assert np.percentile(np.abs(faint - off), 98) > 8


def test_the_class_sheet_has_a_row_a_class_and_the_abscess(tmp_path: Path) -> None:
    gallery.class_sheet(2, tmp_path / "classes.png")
    row = gallery.class_row("abscess", seed=2, each=2)
    assert len(row.panels) == 2
    assert {p.spec.class_id for p in row.panels} == {"abscess"}
    width, height = Image.open(tmp_path / "classes.png").size
    assert width > 1000
    assert height > 7 * 100
