from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.cohort.format import Cohort
from models.cohort.load import load_study
from models.cohort.nifti import read_nifti, write_nifti
from models.cohort.sheet import TILE, contact_sheet
from models.errors import NotFound
from models.volume import Volume
from wire.cohort import CohortFile


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_row_a_lesion_in_the_order_asked(
    make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    made = make_cohort()
    assert contact_sheet(made, None, tmp_path / "all.png") == ["L0", "L1"]  # two of every class
    assert contact_sheet(made, ["L2", "L0", "L1"], tmp_path / "s.png") == ["L2", "L0", "L1"]
    two, three = pixels(tmp_path / "all.png"), pixels(tmp_path / "s.png")
    assert three.shape[0] - two.shape[0] == TILE + 8
    assert three.shape[1] > 3 * TILE
    with pytest.raises(NotFound):
        contact_sheet(made, ["L9"], tmp_path / "no.png")


def test_the_synthetic_label_is_there_only_where_it_is_true(
    make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    contact_sheet(make_cohort(), ["L0"], tmp_path / "yes.png")
    real = make_cohort(lambda f: setattr(f, "synthetic", False))
    contact_sheet(real, ["L0"], tmp_path / "no.png")
    yes, no = pixels(tmp_path / "yes.png")[:34], pixels(tmp_path / "no.png")[:34]
    assert (yes != no).any()


def test_the_patients_right_front_is_top_left(
    make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    """A bright block at the right front of the box must be drawn at the top left."""

    def unmask(file: CohortFile) -> None:
        file.training[0].masks = {}

    made = make_cohort(unmask)
    lesion = made.find("L0")
    study = load_study(made, lesion)
    volume = study.volumes["arterial"]
    data = np.full(volume.shape, 100.0)
    right, front = 9, 9  # RAS: x grows to the right, y to the front; the box is 4-11 and 5-12
    data[right:13, front:14] = 300
    write_nifti(made.root / lesion.image["arterial"], Volume.make(data, volume.affine))
    contact_sheet(made, ["L0"], tmp_path / "s.png")
    tile = pixels(tmp_path / "s.png")[58 : 58 + TILE, 8 : 8 + TILE].sum(axis=2)
    half = TILE // 2
    quarters = {
        "top left": tile[20:half, 20:half].mean(),
        "top right": tile[20:half, half:-20].mean(),
        "bottom left": tile[half:-20, 20:half].mean(),
        "bottom right": tile[half:-20, half:-20].mean(),
    }
    assert max(quarters, key=quarters.__getitem__) == "top left", quarters


def test_the_outline_is_drawn_at_the_masks_edge(
    make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    made = make_cohort()
    contact_sheet(made, ["L0"], tmp_path / "with.png")
    contact_sheet(make_cohort(lambda f: f.training[0].masks.clear()), ["L0"], tmp_path / "no.png")
    changed = (pixels(tmp_path / "with.png") != pixels(tmp_path / "no.png")).any(axis=2)
    tile = changed[58 : 58 + TILE, 8 : 8 + TILE]
    rows, columns = np.nonzero(tile)
    mask = read_nifti(made.root / made.find("L0").masks["lesion"])
    study = load_study(made, made.find("L0"))
    step = float(study.size_mm().max()) * 1.9 / TILE
    edges = np.ptp(np.argwhere(mask.data > 0), axis=0) + 1
    # Half-intensity contour of a linearly sampled mask: the block's own size, within a voxel.
    assert np.ptp(columns) * step == pytest.approx(edges[0] * 1.5, abs=1.5)
    assert np.ptp(rows) * step == pytest.approx(edges[1] * 1.5, abs=1.5)


def test_a_phase_that_was_not_acquired_is_blank_and_outside_lesions_come_last(
    make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    def edit(file: CohortFile) -> None:
        del file.training[0].image["delayed"], file.training[0].voi["delayed"]
        file.test[0].class_id = "abscess"
        file.outside, file.test = file.test, []

    made = make_cohort(edit)
    assert contact_sheet(made, None, tmp_path / "s.png") == ["L0", "L1", "L2"]
    image = pixels(tmp_path / "s.png")
    first = 8 + 2 * (TILE + 8)
    missing = image[58 : 58 + TILE, first : first + TILE].reshape(-1, 3)
    there = image[58 + TILE + 8 :, first : first + TILE].reshape(-1, 3)
    plain = (missing == missing[0]).all(axis=1).mean()
    assert 0.9 < plain < 1  # nothing but two words
    assert (there == missing[0]).all(axis=1).mean() < 0.5
