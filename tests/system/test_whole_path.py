"""The whole path as a user goes it: the command line, in-process and against running services."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from models.cohort.dicom_write import StudyMeta, write_study
from models.cohort.format import read_cohort
from models.cohort.load import load_study
from services.cli.stack import Stack

pytestmark = pytest.mark.system

FAST = ["--passes", "6", "--map-steps", "4"]
# The real slice of pydicom-data: a mass of about 4 cm around row 230, column 145.
MASS = "117,202,0,173,258,1"


def run(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The installed command; any traceback is a failure."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", *args],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def slice_file() -> str:
    found = get_testdata_file("MR-SIEMENS-DICOM-WithOverlays.dcm")
    assert isinstance(found, str), "pydicom-data is part of the dev extra"
    return found


def test_explain_gives_the_same_bytes_here_and_on_the_server(
    stack: Stack, tiny_bundle: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    lesion = read_cohort(tiny_cohort).lesions("test")[0].lesion_id
    said = ["--reader", "washout=present,thin_walled=absent", "--reader-source", "report"]
    source = ["explain", "--cohort", str(tiny_cohort), "--lesion", lesion, *FAST, *said]
    run(*source, "--bundle", str(tiny_bundle), "--out", str(tmp_path / "here"))
    run(*source, "--server", stack.url, "--out", str(tmp_path / "there"))
    for name in ("explanation.json", "report.html", "maps.npz"):
        here, there = (tmp_path / side / name for side in ("here", "there"))
        assert here.read_bytes() == there.read_bytes(), name
    document = json.loads((tmp_path / "here" / "explanation.json").read_text("utf-8"))
    assert [c["source"] for c in document["consistency"]] == ["report", "probes"]
    assert document["review"]["source"] == "report"
    assert document["trust"]


def test_dicom_gives_the_same_class_and_features_as_nifti(
    stack: Stack, tiny_cohort: Path, tmp_path: Path
) -> None:
    cohort = read_cohort(tiny_cohort)
    entry = cohort.lesions("test")[1]
    study = load_study(cohort, entry)
    write_study(
        tmp_path / "dicom",
        study.volumes,
        StudyMeta(patient_id="P", study_id="S", synthetic=True, description="phantom"),
    )
    boxes = [
        part
        for phase, box in study.boxes.items()
        for part in ("--box", f"{phase}={','.join(map(str, [*box.lower, *box.upper]))}")
    ]
    nifti = [
        part
        for phase, path in entry.image.items()
        for part in (f"--{phase.replace('_', '-')}", str(cohort.root / path))
    ]
    answers = [
        json.loads(run("explain", *source, *boxes, *FAST, "--server", stack.url, "--json").stdout)
        for source in (["--dicom", str(tmp_path / "dicom")], nifti)
    ]
    dicom, plain = answers
    assert dicom["prediction"]["class_id"] == plain["prediction"]["class_id"]
    found = [{f["id"] for f in a["features"] if f["found"]} for a in answers]
    assert found[0] == found[1]


def test_one_real_slice_alone_is_refused_in_one_line(slice_file: str, tmp_path: Path) -> None:
    shutil.copy(slice_file, tmp_path)
    done = run("explain", "--dicom", str(tmp_path), "--box", MASS, code=2)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    for phase in ("arterial", "portal venous", "delayed"):
        assert phase in lines[0]


def test_a_real_slice_for_all_phases_goes_the_whole_way_and_says_what_it_is(
    stack: Stack, slice_file: str, tmp_path: Path
) -> None:
    phases = ["--arterial", slice_file, "--portal-venous", slice_file, "--delayed", slice_file]
    run("explain", *phases, "--box", MASS, "--server", stack.url, "--out", str(tmp_path))
    document = json.loads((tmp_path / "explanation.json").read_text("utf-8"))
    codes = {caution["code"] for caution in document["cautions"]}
    assert {"phases_identical", "single_slice", "out_of_distribution"} <= codes
    assert document["out_of_distribution"]["flagged"]


def test_the_report_opens_in_a_browser(stack: Stack, tiny_cohort: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        missing = "chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    lesion = read_cohort(tiny_cohort).lesions("test")[2].lesion_id
    source = ["--cohort", str(tiny_cohort), "--lesion", lesion, *FAST]
    run("explain", *source, "--server", stack.url, "--out", str(tmp_path))
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2400",
    ]  # fmt: skip
    page = (tmp_path / "report.html").resolve().as_uri()
    dom = subprocess.run(
        [chromium, *flags, "--dump-dom", page],
        capture_output=True, text=True, timeout=90, check=True,
    ).stdout  # fmt: skip
    assert dom.count("research software, not a medical device") == 1
    assert "ynthetic" in dom
    picture = tmp_path / "report.png"
    subprocess.run(
        [chromium, *flags, f"--screenshot={picture}", page],
        capture_output=True, timeout=90, check=True,
    )  # fmt: skip
    assert picture.stat().st_size > 50_000
