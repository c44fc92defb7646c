"""`lesionlens eval --quick`: every part of the evaluation on tens of lesions, for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from services.cli.eval import evaluate
from services.cli.eval_plan import QUICK

pytestmark = pytest.mark.timeout(900)


def run(out: Path) -> Result:
    return CliRunner().invoke(evaluate, ["--quick", "--processes", "1", "--out", str(out)])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    done = run(folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text("utf-8")))


def test_the_report_has_what_it_promises(report: dict[str, Any]) -> None:
    for name in ("default", "wang2019"):
        assert {"accuracy", "ci", "n_train", "n_test", "ece", "per_class"} <= set(
            report["classifier"][name]
        )
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
    for key in ("made_by", "version", "when", "machine", "seed", "cost"):
        assert key in report


def test_every_figure_can_be_traced_to_a_part(report: dict[str, Any]) -> None:
    assert set(report["parts"]) == set(QUICK.parts)
    for part in report["parts"].values():
        assert len(part["digest"]) == 16
    for made in report["made_from"].values():
        for name in made:
            prefix = name.removesuffix("*")
            assert any(part.startswith(prefix) for part in report["parts"])


def test_the_page_shows_every_section_and_fetches_nothing(out: Path) -> None:
    page = (out / "report.html").read_text("utf-8")
    for section in ("classes", "features", "relevance", "mistakes", "maps", "outliers", "cost"):
        assert f'id="{section}"' in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
    assert "quick form" in page


def test_a_second_run_does_nothing_again_and_says_the_same(
    out: Path, report: dict[str, Any]
) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in (out / "parts").iterdir()}
    assert run(out).exit_code == 0
    assert before == {p.name: p.stat().st_mtime_ns for p in (out / "parts").iterdir()}
    again = json.loads((out / "report.json").read_text("utf-8"))
    assert {**again, "when": 0, "version": 0} == {**report, "when": 0, "version": 0}
