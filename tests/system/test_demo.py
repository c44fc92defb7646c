"""The demo as a newcomer runs it, on fewer lesions: everything it promises is there afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from wire.explanation import Explanation

pytestmark = pytest.mark.system


def test_the_demo_goes_the_whole_path_and_leaves_nothing_running(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    environment = os.environ | {"LESIONLENS_HOME": str(tmp_path / "home")}
    environment.pop("BENTOML_HOME", None)
    command = [sys.executable, "-m", "services.cli.main", "demo", "--out", str(out)]
    done = subprocess.run(
        [*command, "--lesions", "60"],
        env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["n_train"] + summary["n_test"] < 60
    assert 0 <= summary["test_accuracy"] <= 1
    assert summary["parity_max_abs"] < 1e-3
    assert summary["job"]["state"] == "done"
    assert {"cohort", "fit", "export", "parity", "services", "explanation"} <= set(
        summary["stages"]
    )
    assert all(stage in done.stdout for stage in summary["stages"])
    document = Explanation.model_validate_json((out / "explanation.json").read_bytes())
    assert document.synthetic
    assert document.provenance.bundle == summary["bundle"]
    assert "<html" in Path(summary["report"]).read_text("utf-8")
    left = [p for p in psutil.process_iter(["cmdline"]) if str(out) in " ".join(_line(p))]
    assert left == []


def _line(process: psutil.Process) -> list[str]:
    return process.info["cmdline"] or []
