"""DICOM studies with SEG, RTSTRUCT or a table of boxes, as an archive exports them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner

from models.cohort.check import check_files
from models.cohort.dicom_tree import Region
from models.cohort.dicom_write import StudyMeta, write_study
from models.cohort.format import Cohort, read_cohort
from models.cohort.importers import load_importer
from models.cohort.importers.dicom_regions import class_in, sort_regions
from models.cohort.importers.report import Report
from models.cohort.importers.run import run_import
from models.cohort.load import load_lesion, load_mask, load_study
from models.errors import InputError
from models.voi import Preprocessing, extract
from models.volume import Box, Study
from services.cli.main import lesionlens
from tests.support.dicom_drawings import write_rtstruct, write_seg
from tests.support.public_sets import PHASES, lesion

CASES = {"A": (0, "hcc"), "B": (1, "cyst"), "C": (2, "hcc")}


def series_of(source: Path, case: str, phase: str = "arterial") -> Path:
    return next((source / case).glob(f"*_{phase}"))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three studies: a SEG of the lesion (and, in A, of a feature and of the liver) beside each."""
    source = tmp_path_factory.mktemp("dicom") / "export"
    for case, (index, class_id) in CASES.items():
        rendering = lesion(index, class_id)
        meta = StudyMeta(patient_id=f"NAME^{case}", study_id=case, synthetic=True)
        write_study(source / case, rendering.volumes, meta)
        masks = {f"Lesion 1: {class_id.upper()}": rendering.masks["lesion"]}
        if case == "A":
            core = np.zeros_like(rendering.masks["lesion"])
            core[np.nonzero(rendering.masks["lesion"])] = True
            core[: core.shape[0] // 2] = False
            masks |= {"Liver": np.ones_like(core), "Enhancing capsule": core}
        write_seg(source / case / "seg.dcm", series_of(source, case), masks)
    return source


@pytest.fixture
def source(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "export"))


def bring(source: Path, out: Path, **options: Any) -> Report:
    return run_import("dicom", source, out, load_importer("dicom").Options(**options))


def table(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def skipped(out: Path) -> dict[str, str]:
    return {row["case"]: row["reason"] for row in json.loads((out / "skipped.json").read_text())}


def only(cohort: Cohort, class_id: str) -> Any:
    return next(item for item in cohort.everything if item.class_id == class_id)


def test_segmentations_become_a_cohort_on_the_command_line(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(lesionlens, ["cohort", "import", "dicom", str(source), str(out)])
    assert done.exit_code == 0, done.output
    assert "imported 3" in done.output
    cohort = read_cohort(out)
    assert check_files(cohort) == []
    assert (cohort.file.classes, cohort.file.features) == (["hcc", "cyst"], ["enhancing_capsule"])
    assert "NAME" not in (out / "cohort.json").read_text()
    with_feature = [item for item in cohort.everything if item.features]
    assert [item.features for item in with_feature] == [{"enhancing_capsule": "present"}]


def test_the_lesion_is_the_one_that_was_rendered(source: Path, tmp_path: Path) -> None:
    """Through DICOM, SEG, the import and a crop, the canonical lesion stays the same."""
    bring(source, tmp_path / "out")
    cohort = read_cohort(tmp_path / "out")
    rendering = lesion(*CASES["B"])
    entry = only(cohort, "cyst")
    mask = load_mask(cohort, entry, "lesion", load_study(cohort, entry))
    assert mask.voxels.sum() == rendering.masks["lesion"].sum()
    spec = Preprocessing()
    imported = load_lesion(cohort, entry, None, spec)
    box = next(iter(load_study(cohort, entry).boxes.values()))
    filled = np.argwhere(rendering.masks["lesion"])
    drawn = Box.make([filled.min(axis=0).tolist(), (filled.max(axis=0) + 1).tolist()])
    np.testing.assert_array_equal(box.edges, drawn.edges)
    direct = extract(Study.make(rendering.volumes, dict.fromkeys(PHASES, drawn), PHASES), spec)
    np.testing.assert_allclose(imported.voxels, direct.voxels, atol=1)


def test_boxes_of_a_table_in_voxels_and_in_millimetres_are_one(
    source: Path, tmp_path: Path
) -> None:
    rendering = lesion(*CASES["A"])
    box = rendering.boxes["arterial"]
    volume = rendering.volumes["arterial"]
    corners = volume.world(np.array([box.lower, np.array(box.upper) - 1])) * [-1, -1, 1]
    rows = [
        {"case": "A", "lesion_id": "voxels", "class": "HCC", "patient_id": "p",
         "box": ",".join(str(v) for half in box.as_list() for v in half)},
        {"case": "NAME^A", "lesion_id": "mm", "class": "hcc", "patient_id": "p",
         "box_mm": " ".join(f"{v:.3f}" for v in corners.ravel())},
    ]  # fmt: skip
    bring(source, tmp_path / "out", boxes=table(tmp_path / "boxes.csv", rows))
    cohort = read_cohort(tmp_path / "out")
    a, b = cohort.find("voxels"), cohort.find("mm")
    assert a.voi == b.voi
    assert list(a.image) == list(PHASES)
    assert skipped(tmp_path / "out") == {
        "B": "no row in the table", "C": "no row in the table",
    }  # fmt: skip


def test_with_a_box_a_phase_and_the_scanner_s_place_nothing_is_changed(
    source: Path, tmp_path: Path
) -> None:
    rows = [
        {"case": case, "lesion_id": case, "class": class_id, "patient_id": case}
        | {
            f"box_{phase}": " ".join(str(v) for half in box.as_list() for v in half)
            for phase, box in lesion(index, class_id).boxes.items()
        }
        for case, (index, class_id) in CASES.items()
    ]
    boxes = table(tmp_path / "boxes.csv", rows)
    bring(source, tmp_path / "out", boxes=boxes, align="scanner")
    cohort = read_cohort(tmp_path / "out")
    for case, (index, class_id) in CASES.items():
        rendering = lesion(index, class_id)
        direct = extract(Study.make(rendering.volumes, rendering.boxes, PHASES), Preprocessing())
        imported = load_lesion(cohort, cohort.find(case), None, Preprocessing())
        np.testing.assert_allclose(imported.voxels, direct.voxels, atol=1e-3)


def test_a_row_may_name_a_segment(source: Path, tmp_path: Path) -> None:
    rows = [
        {"case": "A", "lesion_id": "one", "class": "fnh", "segment": "lesion 1: hcc",
         "split": "test", "feature_washout": "yes"},
        {"case": "B", "lesion_id": "two", "class": "cyst", "segment": "1"},
        {"case": "C", "lesion_id": "three", "class": "cyst", "segment": "no such"},
        {"case": "Z", "lesion_id": "four", "class": "cyst", "segment": "1"},
        {"case": "C", "lesion_id": "five", "class": "cyst"},
    ]  # fmt: skip
    out = tmp_path / "out"
    bring(source, out, boxes=table(tmp_path / "boxes.csv", rows))
    cohort = read_cohort(out)
    assert {item.lesion_id: item.class_id for item in cohort.everything} == {
        "one": "fnh", "two": "cyst",
    }  # fmt: skip
    assert cohort.split_of("one") == "test"
    assert cohort.find("one").features == {"washout": "present", "enhancing_capsule": "present"}
    reasons = skipped(out)
    assert "boxes.csv line 4: segment: no such segment" in reasons["three"]
    assert "boxes.csv line 5: case: no such study" in reasons["four"]
    assert "boxes.csv line 6: box: nothing says where" in reasons["five"]


def test_a_structure_set_does_as_well(source: Path, tmp_path: Path) -> None:
    (source / "B" / "seg.dcm").unlink()
    rendering = lesion(*CASES["B"])
    volume = rendering.volumes["arterial"]
    planes = np.nonzero(rendering.masks["lesion"].any(axis=(0, 1)))[0]
    corners = [[9.5, 10.5], [20.5, 10.5], [20.5, 19.5], [9.5, 19.5]]
    contours = [
        volume.world(np.array([[x, y, z] for x, y in corners])) * [-1, -1, 1] for z in planes
    ]
    write_rtstruct(source / "B" / "rt.dcm", series_of(source, "B"), {"GTV cyst": contours})
    bring(source, tmp_path / "out")
    entry = only(read_cohort(tmp_path / "out"), "cyst")
    (x0, y0, z0), (x1, y1, z1) = entry.voi["arterial"]
    assert (x1 - x0, y1 - y0, z1 - z0) == (11, 9, len(planes))


def test_a_lesion_drawn_on_two_phases_is_one_lesion_with_two_boxes(
    source: Path, tmp_path: Path
) -> None:
    moved = np.roll(lesion(*CASES["C"]).masks["lesion"], 2, axis=0)
    write_seg(
        source / "C" / "later.dcm", series_of(source, "C", "delayed"), {"Lesion 1: HCC": moved}
    )
    bring(source, tmp_path / "out")
    cohort = read_cohort(tmp_path / "out")
    assert len(cohort.everything) == 3
    shifts = json.loads((tmp_path / "out" / "import.json").read_text())
    text = json.dumps(shifts)
    spacing = lesion(*CASES["C"]).volumes["arterial"].spacing[0]
    assert f"{2 * spacing:.2f}".rstrip("0") in text


def test_what_cannot_be_used_is_told_case_by_case(source: Path, tmp_path: Path) -> None:
    (source / "A" / "seg.dcm").unlink()
    shutil.rmtree(series_of(source, "B", "delayed"))
    path = source / "C" / "seg.dcm"
    ds = pydicom.dcmread(path)
    ds.SegmentSequence[0].SegmentLabel = "Lesion 1"
    ds.save_as(path)
    with pytest.raises(InputError, match="no lesion could be imported"):
        bring(source, tmp_path / "out")
    reasons = skipped(tmp_path / "out")
    assert reasons["A"].startswith("segmentation: no lesion was drawn on the study")
    assert "missing phase" in reasons["B"]
    assert "the label names no class" in reasons["C: Lesion 1"]


def test_a_missing_phase_is_kept_on_request(source: Path, tmp_path: Path) -> None:
    shutil.rmtree(series_of(source, "B", "delayed"))
    bring(source, tmp_path / "out", missing="keep")
    cohort = read_cohort(tmp_path / "out")
    assert list(only(cohort, "cyst").image) == ["arterial", "portal_venous"]
    assert check_files(cohort) == []


def test_ct_is_another_modality(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        bring(source, tmp_path / "out", modality="CT")
    assert "another modality; found MR; expected CT" in skipped(tmp_path / "out")["A"]
    for path in (source / "A").rglob("IM*.dcm"):
        ds = pydicom.dcmread(path)
        ds.Modality = "CT"
        ds.save_as(path)
    bring(source, tmp_path / "ct", modality="CT")
    assert read_cohort(tmp_path / "ct").file.modality == "CT"


def test_a_damaged_slice_skips_its_study_alone_and_a_second_run_finds_the_rest(
    source: Path, tmp_path: Path
) -> None:
    path = next(series_of(source, "B").glob("IM*.dcm"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    report = bring(source, tmp_path / "out")
    assert (report.imported, report.fresh) == (2, 2)
    assert path.name in next(iter(skipped(tmp_path / "out").values()))
    path.write_bytes(whole)
    again = bring(source, tmp_path / "out")
    assert (again.imported, again.fresh) == (3, 1)


def test_ids_are_kept_on_request(source: Path, tmp_path: Path) -> None:
    bring(source, tmp_path / "out", keep_ids=True)
    assert {item.patient_id for item in read_cohort(tmp_path / "out").everything} == {
        "NAME^A", "NAME^B", "NAME^C",
    }  # fmt: skip


# --- Labels ---------------------------------------------------------------------------------------


def region(label: str, series: str = "s", number: int = 1, tracking: str = "") -> Region:
    return Region(Path("seg.dcm"), number, label, (label,), tracking, series)


def test_labels_are_sorted_as_people_mean_them() -> None:
    found = sort_regions(
        [region(t) for t in ("Liver", "Lesion 1 washout", "Wash-out", "HCC 2", "Tumor", "lesion")]
    )
    assert {f: len(r) for f, r in found.features.items()} == {"washout": 2}
    assert [g[0].label for g in found.lesions] == ["HCC 2", "Tumor", "lesion"]


def test_one_name_on_one_series_is_two_lesions_on_two_series_one() -> None:
    same = sort_regions([region("HCC"), region("HCC", number=2)])
    assert [len(g) for g in same.lesions] == [1, 1]
    two = sort_regions([region("HCC"), region("hcc", series="t")])
    assert [len(g) for g in two.lesions] == [2]
    apart = sort_regions([region("HCC", tracking="1"), region("HCC", series="t", tracking="2")])
    assert [len(g) for g in apart.lesions] == [1, 1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["HCC 2"], "hcc"),
        (["lesion 1", "Focal nodular hyperplasia"], "fnh"),
        (["hcc or cyst"], None),
        (["tumour"], None),
        (["cystic"], None),
        (["Haemangioma, segment VII"], "hemangioma"),
    ],
)
def test_a_class_is_one_that_is_named_alone(words: list[str], expected: str | None) -> None:
    assert class_in(words) == expected


def test_a_class_of_the_user_s_own_is_found_too() -> None:
    assert class_in(["LR-5 lesion"], ["LR-4", "LR-5"]) == "LR-5"
    assert class_in(["hcc"], ["LR-4", "LR-5"]) is None
