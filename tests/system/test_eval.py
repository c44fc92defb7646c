"""`lesionlens eval --quick`, killed in its middle, continued, and asked a third time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.cli.eval_plan import QUICK

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

COMMAND = [sys.executable, "-m", "services.cli.main", "eval", "--quick", "--out"]
SETS = {  # real images are fetched for the full form alone
    "abscess", "copied_phase", "noise", "shuffled_voxels", "upside_down", "reversed_phases",
    "zeros", "repeated_slice",
}  # fmt: skip
SECTIONS = ("classes", "features", "relevance", "mistakes", "maps", "outliers", "cost")


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


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text("utf-8")))


def test_networks_are_compared_on_the_same_lesions(report: dict[str, Any]) -> None:
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


def test_strange_inputs_are_told(report: dict[str, Any]) -> None:
    assert set(report["ood"]) == SETS
    for row in report["ood"].values():
        assert row["ci"][0] <= row["auroc"] <= row["ci"][1]
        assert row["n"] > 0
        assert 0 <= row["flagged"] <= 1
    # What needs no training at all to be strange.
    assert report["ood"]["zeros"]["auroc"] == 1
    assert report["ood"]["reversed_phases"]["auroc"] > 0.9


def test_every_experiment_has_its_figures(report: dict[str, Any]) -> None:
    rows = report["probes"]
    assert {"default", "all_labels", "wang2019_gaussian", "spie_rodeo", "class_only"} <= set(rows)
    for row in rows.values():
        for key in ("macro_auroc", "macro_ap", "micro_ppv", "within_class_auroc"):
            assert {key, f"{key}_ci"} <= set(row)
        assert len(row["per_feature"]) == 14
    assert {"spearman", "spearman_ci", "sign_agreement", "baselines"} <= set(report["relevance"])
    errors = report["errors"]
    assert {"auroc", "max_softmax_auroc", "paired_ci", "stress_wins", "human_features"} <= set(
        errors
    )
    assert len(errors["stress"]) >= 6
    maps = report["maps"]
    assert {"default", "integrated_gradients", "occlusion", "beats_controls", "controls"} <= set(
        maps
    )


def test_every_figure_can_be_traced_to_a_part(report: dict[str, Any]) -> None:
    assert set(report["parts"]) == set(report["cost"]["parts"]) == set(QUICK.parts)
    for part in report["parts"].values():
        assert len(part["digest"]) == 16
    for made in report["made_from"].values():
        for name in made:
            prefix = name.removesuffix("*")
            assert any(part.startswith(prefix) for part in report["parts"])
    assert {"made_by", "version", "when", "machine", "seed"} <= set(report)
    assert report["synthetic"] is True


def test_page_and_picture_are_there(folder: Path) -> None:
    assert (folder / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
    page = (folder / "report.html").read_text("utf-8")
    assert "synthetic" in page
    assert "data:image/png;base64," in page
    for section in SECTIONS:
        assert f'id="{section}"' in page
    assert "http" not in page.replace("http://www.w3.org", "")  # it fetches nothing
    assert "<script" not in page
    assert "quick form" in page


def test_asked_again_nothing_is_made_again(folder: Path, report: dict[str, Any]) -> None:
    before = {p: p.stat().st_mtime_ns for p in (folder / "parts").iterdir()}
    done = subprocess.run(
        [*COMMAND, str(folder)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("kept from an earlier run") == len(QUICK.parts)
    assert {p: p.stat().st_mtime_ns for p in (folder / "parts").iterdir()} == before
    again = json.loads((folder / "report.json").read_text("utf-8"))
    assert {**again, "when": 0, "version": 0} == {**report, "when": 0, "version": 0}
