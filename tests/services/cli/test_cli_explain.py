"""`lesionlens explain`: bad input in one line, and the whole way, here and at HTTP's edge."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from models.bundle.write import write_bundle
from models.cohort.dicom_write import StudyMeta, write_study
from models.cohort.format import write_cohort
from models.cohort.nifti import nifti_bytes, read_nifti, write_nifti
from models.errors import InputError, LensError, Unavailable
from models.volume import Box, Study, Volume
from services.cli import explain_remote as remote
from services.cli.explain_inputs import parse_boxes
from services.cli.main import lesionlens, main
from tests.models.bundle import tiny_onnx
from wire.api import ExplanationParameters
from wire.cohort import CohortFile, CohortLesion
from wire.explanation import Explanation

PHASES = ["arterial", "portal_venous", "delayed"]
BOX = "12,10,8,24,22,16"
Run = Callable[..., tuple[int, str, str]]


def volumes() -> dict[str, Volume]:
    """A ball in noise, another brightness a phase; whole numbers, as scanners store."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*map(np.arange, (36, 32, 24)), indexing="ij"), -1)
    ball = np.linalg.norm((grid - [18, 16, 12]) * [1, 1, 1.5], axis=-1) < 6
    affine = np.diag([-1.5, -1.5, 2.5, 1.0])
    return {
        phase: Volume.make(
            np.rint(200 + rng.normal(scale=4, size=ball.shape) + ball * level), affine
        )
        for phase, level in zip(PHASES, (90, 20, -40), strict=True)
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, NIfTI files, a cohort and a DICOM study of one lesion."""
    root = tmp_path_factory.mktemp("explain")
    write_bundle(root / "bundle", tiny_onnx.parts())
    for phase, volume in volumes().items():
        write_nifti(root / f"{phase}.nii.gz", volume)
    write_study(
        root / "dicom", volumes(), StudyMeta(patient_id="P1", study_id="S1", synthetic=True)
    )
    corners = Box.parse(BOX).as_list()
    lesion = CohortLesion(
        lesion_id="L1",
        patient_id="P1",
        class_id="hcc",
        image={p: f"{p}.nii.gz" for p in PHASES},
        voi=dict.fromkeys(PHASES, corners),
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
    """Run the command line; returns exit code, stdout, stderr."""

    def call(*arguments: str | Path, bundle: bool = True) -> tuple[int, str, str]:
        chosen = ["--bundle", str(data / "bundle")] if bundle else []
        words = ["lesionlens", "explain", *map(str, arguments), *chosen]
        monkeypatch.setattr("sys.argv", words)
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsysbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return call


def files(data: Path, *phases: str) -> list[str | Path]:
    words: list[str | Path] = []
    for phase in phases:
        words += [f"--{phase.replace('_', '-')}", data / f"{phase}.nii.gz"]
    return words


FAST = ["--passes", "3", "--map-steps", "2", "--json"]


def test_writes_document_report_and_maps(run: Run, data: Path, tmp_path: Path) -> None:
    code, out, err = run(*files(data, *PHASES), "--box", BOX, *FAST, "--out", tmp_path / "o")
    assert code == 0, err
    document = Explanation.model_validate_json(out)
    assert (tmp_path / "o/explanation.json").read_text("utf-8") == out
    assert document.prediction.label in (tmp_path / "o/report.html").read_text("utf-8")
    with np.load(tmp_path / "o/maps.npz", allow_pickle=False) as maps:
        assert sorted(maps.files) == sorted(m.name for m in document.maps)
    assert document.provenance.passes == 3


def test_what_a_reader_sees_joins_the_document(run: Run, data: Path) -> None:
    said = ["--reader", "washout=present,thin_walled=absent", "--reader", "central_scar=absent"]
    _, out, _ = run(*files(data, *PHASES), "--box", BOX, *FAST, *said, "--reader-source", "report")
    document = Explanation.model_validate_json(out)
    given = {"washout": "present", "thin_walled": "absent", "central_scar": "absent"}
    assert document.provenance.reader_features == given
    assert document.provenance.reader_source == "report"
    assert {f.id: f.reader for f in document.features if f.reader} == given


def test_nifti_cohort_and_dicom_give_one_document(run: Run, data: Path) -> None:
    _, nifti, _ = run(*files(data, *PHASES), "--box", BOX, *FAST)
    _, cohort, _ = run("--cohort", data, "--lesion", "L1", *FAST)
    assert cohort == nifti
    # A DICOM reader may order rows, columns and slices otherwise: find the box by its place.
    code, dicom, err = run("--dicom", data / "dicom", "--box", dicom_box(data), *FAST)
    assert code == 0, err
    one, two = (json.loads(text) for text in (nifti, dicom))
    assert two["prediction"]["class_id"] == one["prediction"]["class_id"]
    assert [f["id"] for f in two["features"] if f["found"]] == [
        f["id"] for f in one["features"] if f["found"]
    ]


def dicom_box(data: Path) -> str:
    from models.cohort.dicom import read_phases

    here = read_nifti(data / "arterial.nii.gz")
    there = read_phases(data / "dicom", PHASES)["arterial"]
    box = Box.parse(BOX)
    corners = np.array([box.lower, np.array(box.upper) - 1], float)
    moved = np.round(there.index(here.world(corners))).astype(int)
    low, high = moved.min(axis=0), moved.max(axis=0) + 1
    return ",".join(str(v) for v in [*low, *high])


def test_a_person_gets_a_summary(run: Run, data: Path) -> None:
    code, out, _ = run(*files(data, *PHASES), "--box", BOX, "--passes", "3", "--map-steps", "2")
    assert code == 0
    flat = " ".join(out.split())
    assert "The network" in flat
    assert "research software, not a medical device" in flat
    assert "synthetic" in flat
    assert "! Only 3 stochastic passes were averaged" in flat


def bad(data: Path) -> dict[str, tuple[list[str | Path], str]]:
    whole = files(data, *PHASES)
    box: list[str | Path] = ["--box", BOX]
    return {
        "nothing": ([], "nothing to explain"),
        "two sources": ([*whole, *box, "--dicom", data], "more than one source"),
        "missing phases": (
            [*files(data, "arterial"), *box],
            "missing phases: portal_venous, delayed; found arterial",
        ),
        "no box": (whole, "a box is missing"),
        "no numbers": ([*whole, "--box", "here"], "not a box"),
        "outside": ([*whole, "--box", "12,10,8,24,22,99"], "reaches outside"),
        "unknown phase": ([*whole, "--box", f"late={BOX}"], "box.late"),
        "two boxes": ([*whole, *box, *box], "a second box"),
        "one of three": ([*whole, "--box", f"arterial={BOX}"], "box.portal_venous"),
        "not nifti": (
            [*files(data, "portal_venous", "delayed"), "--arterial", data / "cohort.json", *box],
            "arterial",
        ),
        "no file": (
            [*files(data, "portal_venous", "delayed"), "--arterial", data / "no.nii", *box],
            "no such file",
        ),
        "no lesion id": (["--cohort", data], "--lesion ID, or --out FOLDER"),
        "unknown lesion": (["--cohort", data, "--lesion", "L9"], "L9"),
        "no cohort": (["--lesion", "L1", *whole, *box], "needs --cohort"),
        "passes": ([*whole, *box, "--passes", "0"], "passes: out of range"),
        "status": ([*whole, *box, "--reader", "washout=maybe"], "reader: cannot be read"),
        "twice": (
            [*whole, *box, "--reader", "washout=present", "--reader", "washout=absent"],
            "reader: cannot be read",
        ),
        "unknown feature": ([*whole, *box, "--reader", "wash=present"], "no such feature"),
        "map method": ([*whole, *box, "--map-method", "magic"], "no such map method"),
        "empty dicom": (["--dicom", data / "bundle", *box], "dicom"),
        "server and bundle": ([*whole, *box, "--server", "http://x"], "its own bundle"),
    }


@pytest.mark.parametrize("name", list(bad(Path())))
def test_bad_input_is_one_line_and_exit_2(run: Run, data: Path, name: str) -> None:
    arguments, expected = bad(data)[name]
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert expected in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_changed_byte_in_the_bundle_is_refused(run: Run, data: Path, tmp_path: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(data / "bundle", tmp_path / "b"))
    raw = bytearray((broken / "classifier.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (broken / "classifier.onnx").write_bytes(raw)
    code, out, err = run(
        *files(data, *PHASES), "--box", BOX, *FAST, "--bundle", broken, bundle=False
    )
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "classifier.onnx" in err


def test_an_address_where_nobody_listens(run: Run, data: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, _, err = run(
        *files(data, *PHASES), "--box", BOX, "--server", f"http://127.0.0.1:{port}", bundle=False
    )
    assert code == 2
    assert "cannot be reached" in err
    assert err.count("\n") == 1


def test_help_names_every_option() -> None:
    explain = lesionlens.get_command(None, "explain")  # type: ignore[arg-type]
    names = {option for p in explain.params for option in p.opts}
    assert {"--arterial", "--dicom", "--cohort", "--server", "--out", "--json"} <= names


def test_boxes_by_phase() -> None:
    texts = [f"{p.replace('_', '-')}=[[0,0,{i}],[2,2,{i + 1}]]" for i, p in enumerate(PHASES)]
    boxes = parse_boxes(texts, PHASES)
    assert isinstance(boxes, dict)
    assert boxes["portal_venous"].lower == (0, 0, 1)
    with pytest.raises(InputError):
        parse_boxes([*texts, BOX], PHASES)


# The server's side of the wire, at the edge: what arrives, and what is made of each answer. The
# real server is met in tests/system.


def study() -> Study:
    return Study.make(volumes(), Box.parse(BOX), PHASES)


def status(state: str, **more: object) -> dict[str, object]:
    links = {k: f"/v1/explanations/exp-1/{k}" for k in ("events", "report", "maps")}
    return {
        "id": "exp-1",
        "state": state,
        "accepted_at": "2026-01-01T00:00:00Z",
        "links": {"self": "/v1/explanations/exp-1", **links},
        **more,
    }


class Server:
    """Answers in order, one a request; keeps what was asked."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        return self.answers.pop(0)

    def explain(self) -> remote.Fetched:
        return remote.explain_remote(
            "http://lens.test",
            study(),
            ExplanationParameters(passes=7, reader_features={"washout": "absent"}),
            lambda stage, fraction: None,
            httpx.MockTransport(self),
        )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)


def test_uploads_nifti_and_waits_and_fetches_the_exact_bytes() -> None:
    location = {"Location": "/v1/explanations/exp-1"}
    server = Server(
        httpx.Response(202, json=status("queued"), headers=location),
        httpx.Response(200, json=status("running", progress=0.5, stage="drawing maps")),
        httpx.Response(503, json={"detail": "Redis is down"}),
        httpx.Response(200, json=status("done", result={})),
        httpx.Response(200, content=b'{ "exact" : 1 }'),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, content=b"npz"),
    )
    fetched = server.explain()
    assert (fetched.document, fetched.report, fetched.maps) == (
        b'{ "exact" : 1 }', b"<html>", b"npz",
    )  # fmt: skip
    assert server.asked[4].url.path == "/v1/explanations/exp-1/document"
    body = server.asked[0].content
    for phase, volume in volumes().items():
        assert nifti_bytes(volume) in body
        assert f'name="box.{phase}"'.encode() in body
    assert b'name="passes"\r\n\r\n7' in body
    assert b'name="reader_features"\r\n\r\n{"washout": "absent"}' in body


def test_a_problem_is_told_in_the_servers_words() -> None:
    problem = {
        "type": "urn:lesionlens:problem:box_outside", "title": "t", "status": 422,
        "detail": "the box reaches outside", "field": "box", "found": "a", "expected": "b",
    }  # fmt: skip
    with pytest.raises(LensError) as caught:
        Server(httpx.Response(422, json=problem)).explain()
    assert caught.value.line == "box: the box reaches outside; found a; expected b"
    assert caught.value.code == "box_outside"


def test_another_kind_of_server_is_told() -> None:
    with pytest.raises(LensError) as caught:
        Server(httpx.Response(404, text="<html>nginx</html>")).explain()
    assert "HTTP 404" in caught.value.line


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_without_result_is_an_error(state: str) -> None:
    error = None
    if state == "failed":
        error = {"type": "urn:x:time_limit", "title": "t", "status": 500, "detail": "too slow"}
    with pytest.raises(LensError) as caught:
        Server(httpx.Response(202, json=status(state, error=error))).explain()
    assert ("too slow" if state == "failed" else "cancelled") in caught.value.line


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE", -1.0)
    server = Server(
        httpx.Response(202, json=status("queued")), httpx.Response(503, json={"detail": "down"})
    )
    with pytest.raises(Unavailable):
        server.explain()
