from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.cohort.check import check_files
from models.cohort.format import read_cohort
from models.cohort.importers import load_importer
from models.cohort.importers.lld_crops import crop_box
from models.cohort.importers.run import run_import
from models.cohort.load import load_study
from models.errors import InputError
from tests.support.public_sets import PHASES, lesion, write_crops, write_lld

NAMES = ["MR7", "MR7_1", "MR8", "MR9", "MR10"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("crops") / "LLD"
    write_crops(source, NAMES)
    return source


@pytest.fixture
def source(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "LLD")


def bring(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    run_import("lld-mmri", source, out, load_importer("lld-mmri").Options(**options))
    return json.loads((out / "import.json").read_text())


def test_crops_become_lesions_with_an_assumed_size(source: Path, tmp_path: Path) -> None:
    report = bring(source, tmp_path / "out", crop_spacing=(1.1, 1.1, 4))
    cohort = read_cohort(tmp_path / "out")
    assert check_files(cohort) == []
    assert {x.lesion_id: x.patient_id for x in cohort.lesions()} == {
        n: n.removesuffix("_1") for n in NAMES
    }
    for index, name in enumerate(NAMES):
        study = load_study(cohort, cohort.find(name))
        for phase in PHASES:
            # The box is known again from the crop's size alone.
            true = lesion(index).boxes[phase].edges
            near = np.abs(study.boxes[phase].edges - true)
            assert near.max() <= (0 if phase == PHASES[0] else 1)
            np.testing.assert_allclose(study.volumes[phase].spacing, [1.1, 1.1, 4], atol=1e-4)
    assert "not known" in report["notes"][0]
    assert "voxel size assumed, 1.1 x 1.1 x 4 mm" in report["lesions"]["MR8"]["notes"][0]


def test_the_annotation_tells_the_size(source: Path, tmp_path: Path) -> None:
    table = write_lld(tmp_path / "full", [None])["Annotation_info"]
    annotation = tmp_path / "Annotation.json"
    annotation.write_text(json.dumps({"Annotation_info": {"MR8": table["MR100"]}}))
    report = bring(source, tmp_path / "out", layout="crops", annotation=annotation)
    study = load_study(read := read_cohort(tmp_path / "out"), read.find("MR8"))
    spacing = lesion(0).volumes[PHASES[0]].spacing
    np.testing.assert_allclose(study.volumes[PHASES[0]].spacing, spacing, atol=1e-3)
    assert report["lesions"]["MR8"]["notes"] == []
    assert "assumed" in report["lesions"]["MR9"]["notes"][0]


def test_a_fold_is_held_out_for_the_test(source: Path, tmp_path: Path) -> None:
    """val_fold is never tuned on: it is the test split; validation is cut from the rest."""
    labels = source / "classification_dataset" / "labels"
    lines = (labels / "labels.txt").read_text().splitlines()
    (labels / "val_fold2.txt").write_text(lines[4])
    (labels / "train_fold2.txt").write_text("\n".join([*lines[:4], "MR10_3 6"]))
    images = labels.parent / "images"
    shutil.copytree(images / "MR10", images / "MR10_3")
    bring(source, tmp_path / "out", fold=2, splits=(1, 1, 1))
    cohort = read_cohort(tmp_path / "out")
    # A second lesion of the held-out patient follows it, whatever the lists say.
    assert [x.lesion_id for x in cohort.lesions("test")] == ["MR10_3", "MR10"]
    assert sorted(len(cohort.lesions(s)) for s in ("training", "validation")) == [2, 2]


def test_odd_lines_are_skipped(source: Path, tmp_path: Path) -> None:
    root = source / "classification_dataset"
    with (root / "labels" / "labels.txt").open("a") as stream:
        stream.write("\nMR11 -1\nMR12 7\nMR13\n../MR7 6\nMR7 6\nMR14 6\nMR8_2 two\n")
    (root / "images" / "MR9" / "C+V.nii.gz").write_bytes(b"")
    shutil.copytree(root / "images" / "MR8", root / "images" / "MR15")
    with (root / "labels" / "labels.txt").open("a") as stream:
        stream.write("MR15 2\n")
    bring(source, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "skipped.json").read_text())
    assert {row["case"]: row["code"] for row in rows} == {
        "MR11": "hidden_class",
        "MR12": "unknown_class",
        "labels.txt line 9": "wrong_table",
        "../MR7": "wrong_table",
        "MR7": "duplicate",
        "MR14": "missing_phase",
        "MR8_2": "unknown_class",
        "MR9": "not_nifti",
    }
    cohort = read_cohort(tmp_path / "out")
    assert [x.class_id for x in cohort.lesions("outside")] == ["abscess"]


def test_label_files_that_are_missing(source: Path, tmp_path: Path) -> None:
    for path in (source / "classification_dataset" / "labels").glob("*fold4*"):
        path.unlink()
    with pytest.raises(InputError) as caught:
        bring(source, tmp_path / "out", fold=4)
    assert caught.value.code == "wrong_layout"
    with pytest.raises(InputError):
        bring(tmp_path, tmp_path / "out", layout="crops")


def test_the_box_of_a_crop() -> None:
    assert crop_box((52, 42, 9), "a")[0].as_list() == [[16, 16, 2], [37, 27, 7]]
    assert crop_box((32, 32, 5), "a")[0].as_list() == [[16, 16, 2], [17, 17, 3]]
    for depth in (1, 2, 3, 4):  # at the top or bottom of the image, slices are missing
        box, notes = crop_box((40, 40, depth), "a")
        box.check_inside((40, 40, depth))
        assert notes
    with pytest.raises(InputError, match="margin"):
        crop_box((31, 40, 9), "a")
