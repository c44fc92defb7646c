"""`lesionlens eval --quick`, killed in its middle, continued, and asked a third time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-m", "services.cli.main", "eval", "--quick", "--out"]
PARTS = {"cohort", "arrays", "default", "curve-40", "ood", "wang2019"}
SETS = {
    "abscess", "copied_phase", "noise", "shuffled_voxels", "upside_down", "reversed_phases",
    "zeros", "repeated_slice", "real_non_liver_mr",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first run, killed when its trainings have started, and a second that ends."""
    out = tmp_path_factory.mktemp("eval")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        [*COMMAND, str(out)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env=environment,
    )  # fmt: skip
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("default") and "starts" in line:
            break
    first.kill()
    first.wait()
    first.stderr.close()
    assert {p.stem for p in (out / "parts").glob("*.json")} == {"cohort", "arrays"}
    done = subprocess.run(
        [*COMMAND, str(out)], capture_output=True, text=True, timeout=500, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("kept from an earlier run") == 2
    return out


def test_the_report_holds_every_key(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text("utf-8"))
    for name, size in (("default", 24), ("wang2019", 24)):
        row = report["classifier"][name]
        assert (row["n_train"], row["n_test"]) == (size, 18)
        assert row["ci"][0] <= row["accuracy"] <= row["ci"][1]
        assert 0 <= row["ece"] <= 1
        assert len(row["per_class"]) == 6
    gap = report["classifier"]["default_less_wang2019"]
    accuracies = [report["classifier"][n]["accuracy"] for n in ("default", "wang2019")]
    assert gap["difference"] == pytest.approx(accuracies[0] - accuracies[1], abs=1e-5)
    assert [p["n_train"] for p in report["learning_curve"]["points"]] == [24, 40]
    missing = {"real_non_liver_mr"} if len(report["ood_missing"]) == 5 else set()
    assert set(report["ood"]) == SETS - missing
    for row in report["ood"].values():
        assert row["ci"][0] <= row["auroc"] <= row["ci"][1]
        assert row["n"] > 0
        assert 0 <= row["flagged"] <= 1
    # What needs no training at all to be strange.
    assert report["ood"]["zeros"]["auroc"] == 1
    assert report["ood"]["reversed_phases"]["auroc"] > 0.9
    assert set(report["cost"]["parts"]) == PARTS
    assert {"made_by", "version", "when", "machine", "seed"} <= set(report)
    assert report["synthetic"] is True


def test_page_and_picture_are_there(folder: Path) -> None:
    assert (folder / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
    page = (folder / "report.html").read_text("utf-8")
    assert "synthetic" in page
    assert "data:image/png;base64," in page
    assert "http" not in page


def test_asked_again_nothing_is_made_again(folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (folder / "parts").iterdir()}
    first = json.loads((folder / "report.json").read_text("utf-8"))
    done = subprocess.run(
        [*COMMAND, str(folder)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("kept from an earlier run") == len(PARTS)
    assert {p: p.stat().st_mtime_ns for p in (folder / "parts").iterdir()} == before
    again = json.loads((folder / "report.json").read_text("utf-8"))
    for key in ("classifier", "learning_curve", "ood", "probes", "errors"):
        assert again[key] == first[key]
