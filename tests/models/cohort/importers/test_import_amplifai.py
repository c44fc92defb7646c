from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
from click.testing import CliRunner

from models.cohort.check import check_files
from models.cohort.format import Cohort, read_cohort
from models.cohort.importers import load_importer
from models.cohort.importers.amplifai import category
from models.cohort.importers.mask_files import place_mask, read_mask
from models.cohort.importers.run import run_import
from models.cohort.load import load_mask, load_study
from models.cohort.nifti import read_nifti, write_nifti
from models.errors import InputError
from models.volume import Volume
from services.cli.main import lesionlens
from tests.support.public_sets import AMPLIFAI_FEATURE, lesion, write_amplifai, write_seg

LABELS = ["LR-5", "LR-3", "LR-M", "LR-4"]


@pytest.fixture(scope="module", params=["distributed", "tool"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp(request.param) / "AMPLIFAI"
    write_amplifai(source, LABELS, tool=request.param == "tool")
    return source


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("amplifai") / "AMPLIFAI"
    write_amplifai(source, LABELS)
    return source


@pytest.fixture
def source(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "AMPLIFAI")


def bring(source: Path, out: Path, **options: Any) -> Cohort:
    run_import("amplifai", source, out, load_importer("amplifai").Options(**options))
    return read_cohort(out)


def skipped(out: Path) -> dict[str, str]:
    return {row["case"]: row["code"] for row in json.loads((out / "skipped.json").read_text())}


def test_a_ct_cohort_in_either_layout(both: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["cohort", "import", "amplifai", str(both), str(out)]
    made = CliRunner().invoke(lesionlens, args, catch_exceptions=False)
    assert made.exit_code == 0, made.output
    cohort = read_cohort(out)
    assert check_files(cohort) == []
    assert cohort.file.modality == "CT"
    assert cohort.file.classes == ["lr_1", "lr_2", "lr_3", "lr_4", "lr_5", "lr_m", "lr_tiv"]
    assert cohort.find("CASE00001").class_id == "lr_5"
    for index in range(len(LABELS)):
        entry, rendering = cohort.find(f"CASE{index + 1:05d}"), lesion(index, "hcc")
        study = load_study(cohort, entry)
        drawn = {f for f in AMPLIFAI_FEATURE if f in rendering.masks}
        assert {f for f, s in entry.features.items() if s == "present"} == drawn
        assert set(entry.features) == drawn  # the others were not assessed
        for name in ("lesion", *drawn):
            mask = load_mask(cohort, entry, name, study)
            volume = rendering.volumes["arterial"]
            true = volume.world(np.argwhere(rendering.masks[name]))
            got = study.volumes[mask.phase].world(np.argwhere(mask.voxels))
            assert len(got) == len(true)
            np.testing.assert_allclose(np.sort(got, 0), np.sort(true, 0), atol=1e-3)
        low = min(float(v.data.min()) for v in study.volumes.values())
        assert low < 0  # CT numbers keep their sign


def test_missing_phases(source: Path, tmp_path: Path) -> None:
    def drop(case: int, *codes: str) -> None:
        for code in codes:
            (source / f"CASE{case:05d}" / "ct" / f"CASE{case:05d}_{code}.nii.gz").unlink()

    drop(1, "DEL")
    drop(2, "VEN")
    drop(3, "VEN", "DEL")
    drop(4, "ART")
    cohort = bring(source, tmp_path / "out")
    assert list(cohort.find("CASE00001").image) == ["arterial", "portal_venous"]
    assert list(cohort.find("CASE00002").image) == ["arterial", "delayed"]
    assert skipped(tmp_path / "out") == {
        "CASE00003": "missing_phase",
        "CASE00004": "missing_phase",
    }
    assert check_files(cohort) == []


def test_classes_of_ones_own_choice(source: Path, tmp_path: Path) -> None:
    ordinal = bring(source, tmp_path / "ordinal", classes="ordinal")
    assert ordinal.file.classes == ["lr_1", "lr_2", "lr_3", "lr_4", "lr_5"]
    assert [x.class_id for x in ordinal.lesions("outside")] == ["lr_m"]
    group = bring(source, tmp_path / "group", classes="group", no_mask="absent")
    assert [group.find(f"CASE0000{i}").class_id for i in (1, 2, 3, 4)] == [
        "hcc", "indeterminate", "malignant_not_hcc", "hcc",
    ]  # fmt: skip
    for entry in group.lesions():
        assert set(entry.features) == set(AMPLIFAI_FEATURE)


def test_damaged_cases(source: Path, tmp_path: Path) -> None:
    notes = source / "CASE00001" / "annotations" / "lesion.nii.gz"
    mask = read_nifti(notes)
    write_nifti(notes, Volume.make(mask.data * 0, mask.affine), np.uint8)
    (source / "CASE00002" / "annotations" / "lesion.nii.gz").unlink()
    far = Volume.make(mask.data, mask.affine + np.array([[0, 0, 0, 900]] * 3 + [[0] * 4]))
    write_nifti(source / "CASE00003" / "annotations" / "lesion.nii.gz", far, np.uint8)
    shutil.copytree(source / "CASE00004", source / "CASE00009")
    for path in list((source / "CASE00009" / "ct").iterdir()):
        path.rename(path.with_name(path.name.replace("CASE00004", "CASE00009")))
    with (source / "labels.csv").open("a") as stream:
        stream.write("CASE00007,LR-5\n../CASE00001,LR-5\nCASE00004,\n")
    (source / "labels.csv").write_text(
        (source / "labels.csv").read_text().replace("CASE00004,LR-4", "CASE00008,LR-9")
    )
    (source / "CASE00008").mkdir()
    with pytest.raises(InputError) as caught:
        bring(source, tmp_path / "out")
    assert caught.value.code == "nothing_imported"
    assert skipped(tmp_path / "out") == {
        "CASE00001": "empty_mask",
        "CASE00002": "missing_mask",
        "CASE00003": "wrong_grid",
        "CASE00004": "unknown_class",
        "CASE00007": "not_found",
        "CASE00008": "unknown_class",
        "CASE00009": "no_label",
        "../CASE00001": "not_found",
    }


def test_a_case_with_two_labels_keeps_the_first_and_says_so(source: Path, tmp_path: Path) -> None:
    with (source / "labels.csv").open("a") as stream:
        stream.write("CASE00001,LR-3\n")
    cohort = bring(source, tmp_path / "out")
    assert cohort.find("CASE00001").class_id == "lr_5"
    assert skipped(tmp_path / "out") == {"CASE00001": "duplicate"}


def test_no_labels(source: Path, tmp_path: Path) -> None:
    (source / "labels.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no table of labels"):
        bring(source, tmp_path / "out")


def test_the_largest_part_is_the_lesion(source: Path, tmp_path: Path) -> None:
    path = source / "CASE00001" / "annotations" / "lesion.nii.gz"
    mask = read_nifti(path)
    whole = mask.data.copy()
    whole[:2, :2, :2] = 1
    write_nifti(path, Volume.make(whole, mask.affine), np.uint8)
    cohort = bring(source, tmp_path / "out")
    entry = cohort.find("CASE00001")
    study = load_study(cohort, entry)
    assert load_mask(cohort, entry, "lesion", study).voxels.sum() == mask.data.sum()
    report = json.loads((tmp_path / "out" / "import.json").read_text())
    assert "the largest of 2 parts" in report["lesions"]["CASE00001"]["notes"][0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("LR-5", "LR-5"), ("5", "LR-5"), ("lr5", "LR-5"), (" LR_TIV", "LR-TIV"), ("M", "LR-M"),
     ("LI-RADS 3", "LR-3"), ("LR-m", "LR-M"), ("4.0", "LR-4")],
)  # fmt: skip
def test_spellings_of_a_category(text: str, wanted: str) -> None:
    assert category(text) == wanted


@pytest.mark.parametrize("text", ["", "6", "LR", "LR-0", "hcc", "LR-5?"])
def test_what_is_no_category(text: str) -> None:
    with pytest.raises(InputError, match="no LI-RADS category"):
        category(text)


def test_a_segmentation_in_layers(tmp_path: Path) -> None:
    """Slicer keeps overlapping segments along a fourth axis that has no direction."""
    voxels = np.zeros((2, 9, 8, 7), dtype=np.uint8)
    voxels[0, 2:4, 2:4, 2:4] = 1
    voxels[1, 5:7, 5:7, 5:6] = 3
    header = {
        "space": "left-posterior-superior",
        "space directions": np.array([[np.nan] * 3, [2, 0, 0], [0, 2, 0], [0, 0, 3.0]]),
        "space origin": [5.0, 6.0, 7.0],
        "kinds": ["list", "domain", "domain", "domain"],
    }
    nrrd.write(str(tmp_path / "m.seg.nrrd"), voxels, header)
    mask = read_mask(tmp_path / "m.seg.nrrd", field="masks.lesion")
    assert mask.shape == (9, 8, 7)
    assert int(mask.data.sum()) == 8 + 4
    np.testing.assert_array_equal(mask.affine[:3, 3], [-5, -6, 7])
    np.testing.assert_array_equal(np.diag(mask.affine), [-2, -2, 3, 1])


def test_placing_is_exact_on_a_part_of_the_grid(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    affine = np.array([[-1.5, 0.1, 0, 30], [0.1, -1.5, 0, 9], [0, 0, 3, -40], [0, 0, 0, 1.0]])
    onto = Volume.make(rng.normal(size=(20, 18, 12)), affine)
    voxels = np.zeros(onto.shape, dtype=bool)
    voxels[3:9, 5:14, 2:9] = rng.random((6, 9, 7)) > 0.8
    write_seg(tmp_path / "m.seg.nrrd", voxels, affine)
    mask = read_mask(tmp_path / "m.seg.nrrd", field="masks.lesion")
    assert mask.shape != onto.shape
    np.testing.assert_array_equal(place_mask(mask, onto), voxels)


@pytest.mark.parametrize(
    "text",
    [b"", b"NRRD0004\n", b"not one", b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\n\n1",
     b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
     b"data file: /etc/passwd\n\n",
     b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n12345678"],
)  # fmt: skip
def test_an_nrrd_that_is_damaged(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "lesion.seg.nrrd"
    path.write_bytes(text)
    with pytest.raises(InputError) as caught:
        read_mask(path, field="masks.lesion")
    assert caught.value.code in ("not_nrrd", "wrong_affine")
    assert "\n" not in caught.value.line


def test_nrrd_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nrrd", None)
    with pytest.raises(ModuleNotFoundError):
        read_mask(tmp_path / "a.nrrd", field="masks.lesion")
