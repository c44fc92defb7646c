from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from models.cohort.format import read_cohort
from models.cohort.importers import IMPORTERS, load_importer
from models.errors import NotFound
from services.cli.cohort_import import cohort_import
from services.cli.main import lesionlens, main
from tests.support.public_sets import write_lld


def command(name: str) -> click.Command:
    made = cohort_import.get_command(click.Context(cohort_import), name)
    assert made is not None
    return made


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> int | str | None:
    """The program itself, in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["lesionlens", "cohort", "import", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_help_lists_every_importer_and_loads_none() -> None:
    code = (
        "import sys; from click.testing import CliRunner;"
        "from services.cli.main import lesionlens;"
        "out = CliRunner().invoke(lesionlens, ['cohort', 'import', '--help']).output;"
        "assert not {'nibabel', 'pydicom', 'nrrd', 'SimpleITK', 'torch'} & set(sys.modules);"
        "print(out)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, (_, line) in IMPORTERS.items():
        assert name in done.stdout
        assert line in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_importer_keeps_the_contract_and_teaches(name: str) -> None:
    importer = load_importer(name)
    assert name == importer.NAME
    assert callable(importer.head)
    assert callable(importer.find)
    assert callable(importer.read)
    shown = CliRunner().invoke(lesionlens, ["cohort", "import", name, "--help"]).output
    assert f"lesionlens cohort import {name}" in shown  # an example
    for field in importer.Options.model_fields.values():
        assert field.description
    options = {p.name for p in command(name).params}
    assert options >= set(importer.Options.model_fields) | {"source", "out", "processes"}


def test_options_reach_the_importer(tmp_path: Path) -> None:
    write_lld(tmp_path / "LLD", [None])
    out = tmp_path / "out"
    args = ["--missing", "keep", "--crop-spacing", "1", "1", "2", "--seed", "4", "--margin", "2"]
    given = ["cohort", "import", "lld-mmri", str(tmp_path / "LLD"), str(out), *args]
    assert CliRunner().invoke(lesionlens, given, catch_exceptions=False).exit_code == 0
    options = json.loads((out / "import.json").read_text())["options"]
    wanted = {"missing": "keep", "crop_spacing": [1, 1, 2], "seed": 4, "margin": 2, "fold": None}
    assert {k: options[k] for k in wanted} == wanted
    assert len(read_cohort(out).everything) == 1


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["lld-mmri", "SRC", "OUT", "--margin", "9"], "--margin: input should be less than"),
        (["lld-mmri", "SRC", "OUT", "--fold", "6"], "--fold: input should be less than"),
        (["lld-mmri", "NOWHERE", "OUT"], "source: no such file or folder"),
        (["lld-mmri", "EMPTY", "OUT"], "source: not the layout of LLD-MMRI"),
        (["amplifai", "SRC", "OUT"], "source: no table of labels"),
        (["lld-mmri", "SRC", "FILE"], "FILE: a file cannot be read or written"),
    ],
)
def test_a_fault_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    expected: str,
) -> None:
    write_lld(tmp_path / "SRC", [None])
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("")
    paths = [a if a.startswith("--") or a.isdigit() else tmp_path / a for a in args[1:]]
    assert run(monkeypatch, args[0], *paths) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {expected}")
    assert told.count("\n") == 1
    assert not (tmp_path / "OUT" / "cohort.json").exists()


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lld(tmp_path / "SRC", [None])
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    assert run(monkeypatch, "lld-mmri", tmp_path / "SRC", tmp_path / "OUT", "--align", "rigid") == 2
    assert capsys.readouterr().err == (
        "error: this needs the package 'SimpleITK'; pip install 'lesionlens[register]'\n"
    )


def test_unknown_importer() -> None:
    with pytest.raises(NotFound):
        load_importer("pickle")
