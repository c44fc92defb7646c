"""`lesionlens explain` without a phase: by files, DICOM folders and a cohort."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.bundle.write import write_bundle
from models.cohort.dicom_write import StudyMeta, write_study
from models.cohort.format import write_cohort
from models.cohort.nifti import write_nifti
from models.errors import LensError
from models.volume import Box, Volume
from services.cli.explain_inputs import Source
from services.cli.explain_remote import explain_remote
from services.cli.main import main
from tests.models.bundle import tiny_onnx
from wire.api import ExplanationParameters
from wire.cohort import CohortFile, CohortLesion

PHASES = ["arterial", "portal_venous", "delayed"]
BOX = "12,10,8,24,22,16"
FAST = ["--passes", "3", "--map-steps", "2"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles, one trained with phase dropout, and a lesion without its delayed phase."""
    root = tmp_path_factory.mktemp("missing")
    parts = tiny_onnx.parts()
    write_bundle(root / "strict", parts)
    write_bundle(root / "tolerant", replace(parts, optional_phases=tuple(PHASES[1:])))
    rng = np.random.default_rng(0)
    volumes = {}
    for i, phase in enumerate(PHASES[:2]):
        data = rng.normal(200, 4, (36, 32, 24))
        data[13:23, 11:21, 9:15] += 90 - 70 * i
        volumes[phase] = Volume.make(np.rint(data), np.diag([-1.5, -1.5, 2.5, 1.0]))
        write_nifti(root / f"{phase}.nii.gz", volumes[phase])
    write_study(root / "dicom", volumes, StudyMeta(patient_id="P1", study_id="S1", synthetic=True))
    lesion = CohortLesion(
        lesion_id="L1",
        patient_id="P1",
        class_id="hcc",
        image={p: f"{p}.nii.gz" for p in volumes},
        voi=dict.fromkeys(volumes, Box.parse(BOX).as_list()),
    )
    write_cohort(
        root,
        CohortFile(
            name="one", version="1", licence="CC0", synthetic=True, phases=PHASES,
            classes=["hcc"], features=[], test=[lesion],
        ),
    )  # fmt: skip
    return root


@pytest.fixture
def run(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Run:
    def call(bundle: str, *arguments: str | Path) -> tuple[int, str, str]:
        words = ["lesionlens", "explain", *map(str, arguments), "--bundle", str(data / bundle)]
        monkeypatch.setattr("sys.argv", words)
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsysbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return call


def ways(data: Path) -> dict[str, list[Any]]:
    files = ["--arterial", data / "arterial.nii.gz", "--portal-venous", data / PV]
    return {
        "files": [*files, "--box", BOX],
        "dicom": ["--dicom", data / "dicom", "--box", BOX],
        "cohort": ["--cohort", data, "--lesion", "L1"],
    }


PV = "portal_venous.nii.gz"


def test_accepted_where_the_network_was_trained_for_it(run: Run, data: Path) -> None:
    documents = {}
    for way, words in ways(data).items():
        code, out, err = run("tolerant", *words, *FAST, "--json")
        assert code == 0, (way, err)
        documents[way] = json.loads(out)
        assert documents[way]["lesion"]["missing_phases"] == ["delayed"]
        assert "phase_missing" in [c["code"] for c in documents[way]["cautions"]]
    assert documents["files"] == documents["cohort"]


@pytest.mark.parametrize("way", ["files", "dicom", "cohort"])
def test_refused_by_name_in_one_line_where_not(run: Run, data: Path, way: str) -> None:
    code, out, err = run("strict", *ways(data)[way], *FAST)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "missing phase: delayed" in err
    assert "Traceback" not in err


def test_the_summary_and_the_report_say_so(run: Run, data: Path, tmp_path: Path) -> None:
    code, out, err = run("tolerant", *ways(data)["files"], *FAST, "--out", tmp_path / "o")
    assert code == 0, err
    assert "The delayed phase was not acquired" in " ".join(out.split())
    assert ">not acquired</span>" in (tmp_path / "o/report.html").read_text("utf-8")


def test_what_is_not_there_is_not_sent_to_a_server(data: Path) -> None:
    """Which phases may be missing is the server's to say, so the request goes out without it."""
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.read())
        problem = {"detail": "delayed: missing phase", "code": "missing_phase"}
        return httpx.Response(422, json=problem)

    source = Source(files={p: data / f"{p}.nii.gz" for p in PHASES[:2]}, boxes=[BOX])
    study = source.study(source.phases(), optional=source.phases())
    with pytest.raises(LensError, match="missing phase"):
        explain_remote(
            "http://lens.test", study, ExplanationParameters(), lambda stage, fraction: None,
            httpx.MockTransport(answer),
        )  # fmt: skip
    assert b'name="portal_venous"' in asked[0]
    assert b'name="box.portal_venous"' in asked[0]
    assert b"delayed" not in asked[0]
