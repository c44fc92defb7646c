"""lesionlens bundle list, promote, rollback, archive, history, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.bundle.write import write_bundle
from models.errors import InputError, LensError
from services.cli.bundle import bundle
from services.cli.bundle_states import _on, _span
from services.cli.up import _bundle
from services.common.configured import read_settings
from services.common.registry import Event
from services.common.store import PRODUCTION
from tests.models.bundle import tiny_onnx

Run = Callable[..., str]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("bundles")
    for i in range(2):
        write_bundle(base / str(i), tiny_onnx.parts(i, name=f"tiny-{i}"))
    return [base / "0", base / "1"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `lesionlens bundle ...` on a home of its own; an error of ours comes out as it is."""
    monkeypatch.setenv("LESIONLENS_HOME", str(tmp_path / "home"))
    for name in ("LESIONLENS_STORE", "BENTOML_HOME", "LESIONLENS_BUNDLE", "LESIONLENS_LEDGER_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(bundle, list(arguments), standalone_mode=True)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return run


def test_a_life_of_two_bundles(run: Run, folders: list[Path]) -> None:
    assert "store is empty" in run("list")
    assert run("history") == "nothing was ever promoted\n"
    run("promote", str(folders[0]), "--note", "first", "--who", "ann")
    run("promote", str(folders[1]), "--who", "bob")
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert {name: row["state"] for name, row in rows.items()} == {
        "tiny-0": "archived",
        "tiny-1": "production",
    }
    first, second = rows["tiny-0"]["tag"], rows["tiny-1"]["tag"]
    assert run("promote", second[:16]) == f"{second} is in production already\n"
    said = run("rollback", "--note", "worse", "--who", "ann")
    assert said.startswith(f"{first} is in production again, in place of b-")
    assert f"{second} is archived" in run("archive", second)
    with pytest.raises(LensError) as refused:
        run("archive", first)
    assert refused.value.code == "in_production"
    with pytest.raises(LensError) as refused:
        run("rollback")
    assert refused.value.code == "nothing_before"

    lines = run("history").splitlines()
    assert [line.split()[1] for line in lines] == ["promote", "promote", "rollback", "archive"]
    assert "by ann: first" in lines[0]
    assert "in place of" in lines[1]
    kept = json.loads(run("history", "--json"))
    assert [e["number"] for e in kept] == [1, 2, 3, 4]
    assert kept[2]["note"] == "worse"
    table = run("list").splitlines()
    assert any(line.startswith(f"{first}  production") for line in table)


def test_what_was_in_production_on_a_date(run: Run, folders: list[Path]) -> None:
    run("promote", str(folders[0]))
    run("promote", str(folders[1]))
    now = datetime.now(UTC)
    today = run("history", "--on", now.date().isoformat()).splitlines()
    assert len(today) == 2  # both were, on this day
    moment = run("history", "--on", now.isoformat()).splitlines()
    assert len(moment) == 1
    assert "promote" in moment[0]
    before = run("history", "--on", "2020-01-01")
    assert before.startswith(
        "no bundle was in production on 2020-01-01; the first promotion was at"
    )
    assert json.loads(run("history", "--on", "2020-01-01", "--json")) == []
    for wrong in ("yesterday", (now + timedelta(days=2)).date().isoformat()):
        with pytest.raises(InputError) as refused:
            run("history", "--on", wrong)
        assert refused.value.field == "on"


def test_a_day_is_a_day_of_utc() -> None:
    def at(text: str) -> float:
        return datetime.fromisoformat(text).timestamp()

    events = [
        Event(1, at("2026-03-01T23:59:59+00:00"), "x", "promote", "b-a", None, "b-a", ""),
        Event(2, at("2026-03-03T00:00:00+00:00"), "x", "promote", "b-b", "b-a", "b-b", ""),
    ]
    days = {"2026-03-01": ["b-a"], "2026-03-02": ["b-a"], "2026-03-03": ["b-b"]}
    for day, expected in days.items():
        assert [e.production for e in _on(events, day)[0]] == expected
    assert [e.production for e in _on(events, "2026-03-03T00:30+01:00")[0]] == ["b-a"]
    assert _on(events, "2026-02-28") == (
        [],
        ["no bundle was in production on 2026-02-28; the first promotion was at "
         "2026-03-01T23:59:59Z"],
    )  # fmt: skip
    assert _span("2026-03-01")[1] == at("2026-03-02T00:00:00+00:00")


def test_up_serves_production_where_there_is_one(
    run: Run, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = read_settings()
    with pytest.raises(LensError):
        _bundle(PRODUCTION, settings)
    assert _bundle(str(folders[0]), settings) == folders[0]
    assert capsys.readouterr().out == ""
    run("promote", str(folders[0]))
    run("promote", str(folders[1]))
    assert _bundle(None, settings) == PRODUCTION
    assert "promotions are followed" in capsys.readouterr().out
    latest = _bundle("lesionlens:latest", settings)
    assert isinstance(latest, Path)  # fixed, and not the name
    assert latest.parent == settings.models


def test_up_serves_the_latest_where_nothing_was_promoted(
    run: Run, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from services.common.store import register

    settings = read_settings()
    tag = register(folders[0], settings)
    assert _bundle(None, settings) == settings.models / tag.removeprefix("lesionlens:")
    assert "lesionlens bundle promote" in capsys.readouterr().out


def test_a_refusal_is_one_line(run: Run, folders: list[Path], tmp_path: Path) -> None:
    run("promote", str(folders[0]))
    (damaged := tmp_path / "damaged").mkdir()
    for file in folders[1].iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "card.md").write_bytes(b"better than it is")
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", "bundle", "promote", str(damaged)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: card.md: the content differs from its checksum\n"
    assert len(json.loads(run("list", "--json"))) == 1
