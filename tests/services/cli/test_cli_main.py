"""The command line as a whole: every verb teaches, and faults are one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.cli.main import VERBS, lesionlens
from services.cli.record import write_record


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    done = CliRunner().invoke(lesionlens, [verb, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_the_list_of_verbs_needs_no_extra_and_says_what_it_is() -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'bentoml', 'celery', 'pydicom'): sys.modules[name] = None\n"
        "sys.argv = ['lesionlens', '--help']\n"
        "from services.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "not a medical device" in done.stdout
    assert all(verb in done.stdout for verb in VERBS)


def test_a_missing_extra_is_named() -> None:
    script = (
        "import sys\n"
        "sys.modules['lightning'] = None\n"
        "sys.argv = ['lesionlens', 'train', '--cohort', '.', '--out', 'x']\n"
        "from services.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "lesionlens[train]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", "eval", "--cohort", str(tmp_path / "none")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_record_says_what_made_it(tmp_path: Path) -> None:
    write_record(tmp_path / "r.json", {"figure": 1.5}, made_by="a test", seed=3)
    record = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert record["figure"] == 1.5
    assert {"made_by", "version", "when", "machine", "seed"} <= set(record)
