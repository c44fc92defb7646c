from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.cohort.check import check_files
from models.cohort.format import read_cohort
from models.cohort.importers import load_importer
from models.cohort.importers.base import Skip
from models.cohort.importers.report import Report
from models.cohort.importers.run import folder_name, run_import
from models.cohort.load import load_lesion, load_study
from models.errors import InputError
from models.voi import Preprocessing, extract
from models.volume import Study
from services.cli.main import lesionlens
from tests.support.public_sets import PHASES, lesion, save_annotation, write_lld

CLASSES = [None, None, "abscess", "cyst", "hcc"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("lld") / "LLD"
    write_lld(source, CLASSES)
    return source


@pytest.fixture
def source(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "LLD")


def bring(source: Path, out: Path, **options: Any) -> Report:
    return run_import("lld-mmri", source, out, load_importer("lld-mmri").Options(**options))


def edit(source: Path, change: Callable[[dict[str, Any]], object]) -> None:
    annotation = json.loads((source / "labels" / "Annotation.json").read_text())
    change(annotation["Annotation_info"])
    save_annotation(source, annotation)


def skipped(out: Path) -> dict[str, str]:
    return {row["case"]: row["code"] for row in json.loads((out / "skipped.json").read_text())}


def test_end_to_end_on_the_command_line(source: Path, tmp_path: Path) -> None:
    def hide(table: dict[str, Any]) -> None:
        for series in table["MR104"][:3]:
            series["annotation"]["lesion"]["0"]["category"] = -1

    edit(source, hide)
    out = tmp_path / "lld"
    args = ["cohort", "import", "lld-mmri", str(source), str(out), "--splits", "1", "1", "1"]
    made = CliRunner().invoke(lesionlens, args, catch_exceptions=False)
    assert made.exit_code == 0, made.output
    assert f"imported 4, skipped 1: see {out / 'skipped.json'}" in made.output
    assert skipped(out) == {"MR104": "hidden_class"}
    checked = CliRunner().invoke(lesionlens, ["cohort", "check", str(out)], catch_exceptions=False)
    assert checked.exit_code == 0, checked.output

    cohort = read_cohort(out)
    assert [x.lesion_id for x in cohort.lesions("outside")] == ["MR102"]
    assert cohort.find("MR102").class_id == "abscess"
    assert "abscess" not in cohort.file.classes
    assert len(cohort.file.classes) == 6
    assert len(cohort.lesions()) == 3
    assert (cohort.file.modality, cohort.file.synthetic) == ("MR", False)
    report = json.loads((out / "import.json").read_text())
    assert report["licence"] == cohort.file.licence == "CC BY-NC 4.0"
    assert "replaced by the annotation's" in report["lesions"]["MR100"]["notes"][0]


def test_the_network_sees_what_the_source_shows(source: Path, tmp_path: Path) -> None:
    """Resampled on one grid and cropped, the canonical lesion is that of the untouched phases."""
    bring(source, tmp_path / "lld")
    cohort = read_cohort(tmp_path / "lld")
    for index in (0, 1, 3):
        rendering = lesion(index, CLASSES[index])
        boxes = {p: rendering.boxes[p] for p in PHASES}
        wanted = extract(Study.make(rendering.volumes, boxes, PHASES), Preprocessing())
        got = load_lesion(cohort, cohort.find(f"MR{100 + index}"), None, Preprocessing())
        assert got.mm_per_voxel == pytest.approx(wanted.mm_per_voxel, rel=0.02)
        # Phases whose boxes differ by a voxel are shifted by half a one, hence not quite 1.
        for plane, true in zip(got.voxels, wanted.voxels, strict=True):
            assert np.corrcoef(plane.ravel(), true.ravel())[0, 1] > 0.99


def test_every_phase_lies_on_one_grid(source: Path, tmp_path: Path) -> None:
    bring(source, tmp_path / "lld")
    cohort = read_cohort(tmp_path / "lld")
    assert check_files(cohort) == []
    for entry in cohort.everything:
        study = load_study(cohort, entry)
        shapes = {v.shape for v in study.volumes.values()}
        assert len(shapes) == 1
        assert len({v.affine.tobytes() for v in study.volumes.values()}) == 1
        centres = [study.centre_mm(p) for p in PHASES]
        assert np.ptp(centres, axis=0).max() < 1e-6
    shifts = json.loads((tmp_path / "lld" / "import.json").read_text())["lesions"]["MR100"]
    assert np.linalg.norm(shifts["shifts_mm"]["delayed"]) > 100  # the frames are 80 mm apart
    assert any("moved by" in note for note in shifts["notes"])


def box(series: list[dict[str, Any]]) -> dict[str, Any]:
    return series[0]["annotation"]["lesion"]["0"]["bbox"]["3D_box"]


FAULTS: list[tuple[Callable[[list[dict[str, Any]]], object], str]] = [
    (lambda s: box(s).update(x_max=4000), "box_outside"),
    (lambda s: box(s).update(z_min=90), "wrong_box"),
    (lambda s: box(s).pop("y_max"), "wrong_box"),
    (lambda s: box(s).update(y_max="all"), "wrong_box"),
    (lambda s: box(s).update(y_max=float("inf")), "wrong_box"),
    (lambda s: s[0]["annotation"]["lesion"]["0"].update(category=9), "contradiction"),
    (lambda s: [p["annotation"]["lesion"]["0"].update(category=9) for p in s[:3]], "unknown_class"),
    (lambda s: s[0].update(slice_thickness=0), "wrong_spacing"),
    (lambda s: s[0].update(pixel_spacing="thin"), "wrong_spacing"),
    (lambda s: s[0].update(seriesUID="../../MR100/1.2.3/1.2.3.0"), "missing_phase"),
    (lambda s: s[0].update(phase="C+B"), "missing_phase"),
    (lambda s: [s.pop(0) for _ in range(3)], "no_lesion"),
    (lambda s: s.append("text"), "wrong_annotation"),
]


def test_a_damaged_case_is_skipped_with_its_reason(source: Path, tmp_path: Path) -> None:
    def spoil(table: dict[str, Any]) -> None:
        good = table.pop("MR100")
        table.clear()
        table["MR100"] = good
        for number, (change, _) in enumerate(FAULTS):
            table[f"X{number}"] = json.loads(json.dumps(good))
            change(table[f"X{number}"])

    edit(source, spoil)
    for number in range(len(FAULTS)):
        (source / "images" / f"X{number}").symlink_to(source / "images" / "MR100")
    report = bring(source, tmp_path / "lld")
    assert skipped(tmp_path / "lld") == {f"X{n}": code for n, (_, code) in enumerate(FAULTS)}
    assert report.imported == 1
    rows = json.loads((tmp_path / "lld" / "skipped.json").read_text())
    assert not any("\n" in row["reason"] or str(tmp_path) in row["reason"] for row in rows)


def test_a_damaged_file_is_skipped_with_its_reason(source: Path, tmp_path: Path) -> None:
    def path(patient: str) -> Path:
        return source / "images" / patient / "1.2.3" / "1.2.3.2.nii.gz"

    path("MR100").write_bytes(path("MR100").read_bytes()[:-200])
    path("MR101").write_bytes(b"not an image")
    path("MR102").write_bytes(b"")
    path("MR103").unlink()
    bring(source, tmp_path / "lld")
    assert skipped(tmp_path / "lld") == {
        "MR100": "truncated", "MR101": "not_nifti", "MR102": "not_nifti", "MR103": "missing_phase",
    }  # fmt: skip


def paths(node: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    if here:
        yield here
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items if isinstance(node, (dict, list)) else ():
        if isinstance(value, (dict, list)):
            yield from paths(value, (*here, key))
        else:
            yield (*here, key)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9000) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_stands_in_the_annotation_is_a_lesion_or_a_reason(
    pristine: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Any one value replaced by any other: no patient but the spoilt one is lost, none crashes."""
    annotation = json.loads((pristine / "labels" / "Annotation.json").read_text())
    table = annotation["Annotation_info"]
    spoilt = data.draw(st.sampled_from(sorted(table)))
    *way, last = data.draw(st.sampled_from(list(paths(table[spoilt], (spoilt,)))))
    node = table
    for step in way:
        node = node[step]
    node[last] = data.draw(JSON)
    path = tmp_path / "Annotation.json"
    path.write_text(json.dumps(annotation))
    importer = load_importer("lld-mmri")
    for item in importer.find(pristine, importer.Options(annotation=path)):
        if isinstance(item, Skip):
            assert item.case.startswith(spoilt)
            assert "\n" not in item.error.line
        else:
            assert set(item.files) == set(item.boxes)


def test_a_missing_late_phase_is_kept_on_request(source: Path, tmp_path: Path) -> None:
    (source / "images" / "MR100" / "1.2.3" / "1.2.3.2.nii.gz").unlink()
    (source / "images" / "MR101" / "1.2.3" / "1.2.3.0.nii.gz").unlink()
    bring(source, tmp_path / "lld", missing="keep")
    cohort = read_cohort(tmp_path / "lld")
    assert list(cohort.find("MR100").image) == ["arterial", "portal_venous"]
    assert check_files(cohort) == []
    assert skipped(tmp_path / "lld") == {"MR101": "missing_phase"}  # arterial must be there


def test_several_lesions_of_a_patient_stay_together(source: Path, tmp_path: Path) -> None:
    def twice(table: dict[str, Any]) -> None:
        for series in table["MR100"][:3]:
            series["annotation"]["lesion"]["1"] = series["annotation"]["lesion"]["0"]

    edit(source, twice)
    bring(source, tmp_path / "lld")
    cohort = read_cohort(tmp_path / "lld")
    assert cohort.find("MR100_1").patient_id == cohort.find("MR100").patient_id == "MR100"
    assert cohort.split_of("MR100_1") == cohort.split_of("MR100")


_KILLED = """
import os, signal, sys
from pathlib import Path
from models.cohort.importers import load_importer
from models.cohort.importers.run import run_import

def die(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

run_import("lld-mmri", Path(sys.argv[1]), Path(sys.argv[2]),
           load_importer("lld-mmri").Options(), progress=die)
"""


def test_a_killed_import_goes_on(source: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "lld", tmp_path / "whole"
    killed = subprocess.run([sys.executable, "-c", _KILLED, source, out], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "cohort.json").exists()
    # What a kill in the middle of a lesion leaves: images, no record.
    half = out / "images" / folder_name("MR102")
    half.mkdir()
    (half / "arterial.nii.gz").write_bytes(b"half")
    report = bring(source, out)
    assert (report.imported, report.fresh) == (5, 3)
    bring(source, whole)
    assert tree(out) == tree(whole)
    assert bring(source, out).fresh == 0
    assert tree(out)["cohort.json"] == tree(whole)["cohort.json"]


def tree(root: Path) -> dict[str, bytes]:
    """Every file but the top report, which remembers the hash of the cohort before."""
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p != root / "import.json"
    }


def test_a_changed_source_is_imported_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "lld"
    bring(source, out)
    path = source / "images" / "MR100" / "1.2.3" / "1.2.3.0.nii.gz"
    os.utime(path, (1, 1))
    assert bring(source, out).fresh == 1
    edit(source, lambda t: box(t["MR101"]).update(x_max=box(t["MR101"])["x_max"] + 1))
    assert bring(source, out).fresh == 1
    assert bring(source, out, margin=1.5).fresh == 5
    (out / read_cohort(out).find("MR103").image["delayed"]).unlink()
    assert bring(source, out, margin=1.5).fresh == 1
    assert bring(source, out, margin=1.5, seed=9, splits=(1, 1, 1)).fresh == 0


def test_several_processes_make_the_same(source: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    bring(source, one)
    options = load_importer("lld-mmri").Options()
    run_import("lld-mmri", source, two, options, processes=2)
    assert tree(one) == tree(two)


def test_a_labelled_cohort_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "lld"
    bring(source, out)
    raw = json.loads((out / "cohort.json").read_text())
    raw["name"] = "with labels"
    (out / "cohort.json").write_text(json.dumps(raw))
    with pytest.raises(InputError) as caught:
        bring(source, out)
    assert caught.value.code == "cohort_changed"
    (out / "import.json").unlink()
    with pytest.raises(InputError) as caught:
        bring(source, out)
    assert caught.value.code == "not_empty"
    assert json.loads((out / "cohort.json").read_text())["name"] == "with labels"


@pytest.mark.parametrize(
    ("text", "code"), [("{", "wrong_layout"), ("[]", "wrong_layout"), (None, "wrong_layout")]
)
def test_what_is_no_lld(source: Path, tmp_path: Path, text: str | None, code: str) -> None:
    path = source / "labels" / "Annotation.json"
    path.write_text(text) if text else path.unlink()
    with pytest.raises(InputError) as caught:
        bring(source, tmp_path / "lld")
    assert caught.value.code == code
    assert not (tmp_path / "lld" / "cohort.json").exists()


def test_nothing_left_is_an_error_of_one_line(source: Path, tmp_path: Path) -> None:
    edit(source, lambda t: [t.pop(p) for p in list(t) if p != "MR104"])
    edit(source, lambda t: box(t["MR104"]).update(z_max=-5))
    args = ["cohort", "import", "lld-mmri", str(source), str(tmp_path / "lld")]
    result = subprocess.run(
        [sys.executable, "-m", "services.cli.main", *args],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith("error: source: no lesion could be imported")
    assert result.stderr.count("\n") == 1
    assert "MR104" in result.stderr
    assert skipped(tmp_path / "lld") == {"MR104": "wrong_box"}
