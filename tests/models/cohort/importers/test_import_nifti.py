"""NIfTI files that a table lists: boxes, masks, splits, features, and each way to get it wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from click.testing import CliRunner

from models.cohort.check import check_files
from models.cohort.format import Cohort, read_cohort
from models.cohort.importers import load_importer
from models.cohort.importers.report import Report
from models.cohort.importers.run import run_import
from models.cohort.load import load_lesion, load_mask, load_study
from models.cohort.nifti import write_nifti
from models.errors import InputError
from models.voi import Preprocessing, extract
from models.volume import Study, Volume
from services.cli.main import lesionlens
from tests.support.public_sets import PHASES, lesion

CLASSES = ["hcc", "cyst", "fnh"]
Row = dict[str, object]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three lesions, named as somebody's scripts named them; masks of several labels."""
    root = tmp_path_factory.mktemp("nifti") / "data"
    for index, class_id in enumerate(CLASSES):
        rendering = lesion(index, class_id)
        folder = root / f"sub-{index}"
        folder.mkdir(parents=True)
        for phase, volume in rendering.volumes.items():
            write_nifti(folder / f"{phase[:3]}.nii.gz", volume, np.int16)
        affine = rendering.volumes["arterial"].affine
        drawn = rendering.masks["lesion"].astype(np.float32) * 2
        drawn[:3, :3, :3] = 1  # another structure of the same file
        write_nifti(folder / "seg.nii.gz", Volume.make(drawn, affine), np.uint8)
        write_nifti(folder / "none.nii.gz", Volume.make(drawn * 0, affine), np.uint8)
    return root


def boxed(index: int, **more: object) -> Row:
    """A row with a box; the columns of images are named by phase."""
    box = lesion(index, CLASSES[index]).boxes["arterial"].as_list()
    return {
        "lesion_id": f"L{index}",
        "patient_id": f"P{index}",
        "class": CLASSES[index],
        **{phase: f"sub-{index}/{phase[:3]}.nii.gz" for phase in PHASES},
        "box": ",".join(str(v) for half in box for v in half),
        **more,
    }


def masked(index: int, **more: object) -> Row:
    row = boxed(index) | {"box": "", "mask": f"sub-{index}/seg.nii.gz", "mask_label": 2}
    return row | more


def write(path: Path, rows: Sequence[Row]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    book = openpyxl.Workbook()
    book.active.append(columns)
    for row in rows:
        book.active.append([row.get(c) for c in columns])
    book.save(path)
    return path


def bring(source: Path, folder: Path, rows: Sequence[Row], **options: Any) -> tuple[Report, Cohort]:
    table = write(folder / "lesions.xlsx", rows)
    chosen = load_importer("nifti").Options(table=table, **options)
    return run_import("nifti", source, folder / "out", chosen), read_cohort(folder / "out")


def skipped(folder: Path) -> dict[str, str]:
    text = (folder / "out" / "skipped.json").read_text()
    return {row["case"]: row["reason"] for row in json.loads(text)}


def test_boxes_and_masks_make_a_cohort_on_the_command_line(source: Path, tmp_path: Path) -> None:
    rows = [boxed(0), masked(1), masked(2)]
    table, out = write(tmp_path / "t.xlsx", rows), tmp_path / "out"
    arguments = ["cohort", "import", "nifti", str(source), str(table), str(out)]
    done = CliRunner().invoke(lesionlens, [*arguments, "--licence", "CC0-1.0", "--name", "mine"])
    assert done.exit_code == 0, done.output
    cohort = read_cohort(out)
    assert check_files(cohort) == []
    assert (cohort.file.name, cohort.file.licence) == ("mine", "CC0-1.0")
    assert cohort.file.phases == list(PHASES)
    assert sorted(cohort.file.classes) == sorted(CLASSES)


def test_an_imported_lesion_is_the_lesion(source: Path, tmp_path: Path) -> None:
    _, cohort = bring(source, tmp_path, [boxed(0)])
    rendering = lesion(0, "hcc")
    spec = Preprocessing()
    direct = extract(Study.make(rendering.volumes, rendering.boxes["arterial"], PHASES), spec)
    imported = load_lesion(cohort, cohort.find("L0"), None, spec)
    np.testing.assert_allclose(imported.voxels, direct.voxels, atol=1e-3)


def test_a_mask_gives_the_box_by_its_label(source: Path, tmp_path: Path) -> None:
    _, cohort = bring(source, tmp_path, [masked(1)])
    rendering = lesion(1, "cyst")
    entry = cohort.find("L1")
    mask = load_mask(cohort, entry, "lesion", load_study(cohort, entry))
    assert mask.voxels.sum() == rendering.masks["lesion"].sum()
    filled = np.argwhere(rendering.masks["lesion"])
    (x0, y0, z0), (x1, y1, z1) = entry.voi["arterial"]
    assert [x1 - x0, y1 - y0, z1 - z0] == (np.ptp(filled, axis=0) + 1).tolist()


def test_features_come_from_columns_and_from_masks(source: Path, tmp_path: Path) -> None:
    seg, none = "sub-0/seg.nii.gz", "sub-0/none.nii.gz"
    row = boxed(0, feature_washout="no", mask_capsule=seg, mask_central_scar=none)
    _, cohort = bring(source, tmp_path, [row])
    assert cohort.file.features == ["washout", "enhancing_capsule", "central_scar"]
    assert cohort.find("L0").features == {
        "washout": "absent", "enhancing_capsule": "present", "central_scar": "absent",
    }  # fmt: skip
    assert check_files(cohort) == []


def test_splits_of_the_table_stand(source: Path, tmp_path: Path) -> None:
    rows = [boxed(0, split="train"), boxed(1, split="test"), boxed(2, split="outside")]
    _, cohort = bring(source, tmp_path, rows)
    assert {i: cohort.split_of(f"L{i}") for i in range(3)} == {
        0: "training", 1: "test", 2: "outside",
    }  # fmt: skip
    assert cohort.file.classes == ["hcc", "cyst"]


def test_a_missing_phase_is_skipped_or_kept(source: Path, tmp_path: Path) -> None:
    rows = [boxed(0), boxed(1, delayed="")]
    _, cohort = bring(source, tmp_path, rows)
    assert [item.lesion_id for item in cohort.everything] == ["L0"]
    assert "missing phase: delayed" in skipped(tmp_path)["L1"]
    (tmp_path / "kept").mkdir()
    _, cohort = bring(source, tmp_path / "kept", rows, missing="keep")
    assert list(cohort.find("L1").image) == ["arterial", "portal_venous"]
    (tmp_path / "required").mkdir()
    _, cohort = bring(
        source, tmp_path / "required", rows, missing="keep", require=("arterial", "delayed")
    )
    assert [item.lesion_id for item in cohort.everything] == ["L0"]


def test_phases_and_classes_of_one_s_own(source: Path, tmp_path: Path) -> None:
    row = {
        "lesion_id": "x", "patient_id": "p", "class": "LR-5", "image_early": "sub-0/art.nii.gz",
        "image_late": "sub-0/del.nii.gz", "mask_early": "sub-0/seg.nii.gz", "mask_label": 2,
    }  # fmt: skip
    _, cohort = bring(source, tmp_path, [row], modality="CT", class_name=("LR-4", "LR-5"))
    assert (cohort.file.phases, cohort.file.modality) == (["early", "late"], "CT")
    assert cohort.file.classes == ["LR-4", "LR-5"]
    assert list(cohort.find("x").masks) == ["lesion"]


def test_each_bad_row_is_skipped_with_its_line(source: Path, tmp_path: Path) -> None:
    rows = [
        boxed(0),  # line 2
        boxed(0),  # the same id again
        boxed(1, lesion_id="nowhere", arterial="sub-9/art.nii.gz"),
        boxed(1, lesion_id="box", box="1,2,3"),
        boxed(1, lesion_id="outside", box="0,0,0,999,2,2"),
        boxed(1, lesion_id="split", split="holdout"),
        boxed(1, lesion_id="status", feature_washout="maybe so"),
        masked(1, lesion_id="label", mask_label=7),
        masked(1, lesion_id="grid", mask="sub-0/seg.nii.gz"),
        boxed(1, lesion_id="place", box=""),
        boxed(1, lesion_id="", patient_id="P"),
        boxed(1, lesion_id="class", **{"class": ""}),
        boxed(1, lesion_id="belied", mask_washout="sub-1/seg.nii.gz", feature_washout="absent"),
    ]
    report, cohort = bring(source, tmp_path, rows)
    assert [item.lesion_id for item in cohort.everything] == ["L0"]
    reasons = skipped(tmp_path)
    assert len(report.skipped) == len(rows) - 1
    for case, text in {
        "L0": "the lesion stands twice",
        "nowhere": "image.arterial: no such file",
        "box": "lesions.xlsx line 5: box: not a box",
        "outside": "the box reaches outside of the volume",
        "split": "line 7: split: no such split; found 'holdout'",
        "status": "line 8: feature_washout: no status",
        "label": "masks.lesion: the mask is empty; found no voxel of value 7",
        "grid": "the mask does not lie on the grid of any phase",
        "place": "line 11: box: neither a box nor a mask",
        "line 12": "line 12: lesion_id: empty",
        "class": "line 13: class: empty",
        "belied": "the feature is absent, but its mask is not empty",
    }.items():
        assert text in reasons[case]


@pytest.mark.parametrize(
    ("drop", "code"),
    [
        (("patient_id",), "missing_column"),
        (PHASES, "missing_column"),
        (("box",), "missing_column"),
    ],
)
def test_a_table_of_another_kind_is_refused(
    source: Path, tmp_path: Path, drop: Sequence[str], code: str
) -> None:
    rows = [{k: v for k, v in boxed(0).items() if k not in drop}]
    with pytest.raises(InputError) as caught:
        bring(source, tmp_path, rows)
    assert caught.value.code == code


def test_a_second_run_redoes_only_what_changed(source: Path, tmp_path: Path) -> None:
    first, _ = bring(source, tmp_path, [boxed(0), boxed(1)])
    second, _ = bring(source, tmp_path, [boxed(0), boxed(1), masked(2)])
    third, _ = bring(source, tmp_path, [boxed(0, feature_washout="yes"), boxed(1), masked(2)])
    assert (first.fresh, second.fresh, third.fresh) == (2, 1, 1)
