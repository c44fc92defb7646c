"""The manifest: whatever a crash leaves of it, what was done is known, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from services.cli.bulk_manifest import NAME, Line, Manifest, Verdict

HEAD: dict[str, Any] = {"bundle": "b-1", "parameters": {"passes": 3, "seed": 0}}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
VERDICT = st.builds(
    Verdict,
    class_id=TEXT,
    label=TEXT,
    probability=st.floats(0, 1),
    agreement=st.floats(0, 1),
    found=st.lists(TEXT, max_size=3),
    review=st.sampled_from([None, True, False]),
    chance_wrong=st.none() | st.floats(0, 1),
    strange=st.booleans(),
)
LINE = st.builds(
    Line,
    id=TEXT,
    state=st.sampled_from(["done", "failed"]),
    job=st.none() | TEXT,
    seconds=st.floats(0, 1e6),
    document=st.none() | TEXT,
    error=st.none() | TEXT,
    verdict=st.none() | VERDICT,
)
LINES = st.lists(LINE, max_size=6, unique_by=lambda line: line.id)


def written(folder: Path, lines: list[Line]) -> bytes:
    (folder / NAME).unlink(missing_ok=True)
    with Manifest(folder, HEAD) as manifest:
        for line in lines:
            manifest.add(line)
    return (folder / NAME).read_bytes()


def read(folder: Path, head: dict[str, Any] = HEAD) -> dict[str, Line]:
    with Manifest(folder, head) as manifest:
        assert manifest.damaged == 0
        return dict(manifest.lines)


@given(lines=LINES)
@settings(max_examples=30, deadline=None)
def test_what_is_added_is_read_back(
    lines: list[Line], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("m")
    written(folder, lines)
    assert read(folder) == {line.id: line for line in lines}


@given(lines=LINES, data=st.data())
@settings(max_examples=60, deadline=None)
def test_torn_anywhere_the_whole_lines_before_count(
    lines: list[Line], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("m")
    whole = written(folder, lines)
    cut = data.draw(st.integers(0, len(whole)))
    (folder / NAME).write_bytes(whole[:cut])
    kept = max(whole[:cut].count(b"\n") - 1, 0)
    assert read(folder) == {line.id: line for line in lines[:kept]}
    # What is added then stands on a line of its own.
    late = Line(id="late", state="done")
    with Manifest(folder, HEAD) as manifest:
        manifest.add(late)
    assert read(folder) == {line.id: line for line in [*lines[:kept], late]}


def test_the_last_line_of_a_lesion_wins(tmp_path: Path) -> None:
    written(tmp_path, [Line(id="a", state="failed", error="why"), Line(id="a", state="done")])
    assert read(tmp_path)["a"].done


def test_a_whole_line_without_sense_is_a_lesion_to_explain_again(tmp_path: Path) -> None:
    whole = written(tmp_path, [Line(id="a", state="done"), Line(id="b", state="done")])
    (tmp_path / NAME).write_bytes(whole.replace(b'{"id": "a"', b'{"id": \x00\xff'))
    with Manifest(tmp_path, HEAD) as manifest:
        assert (list(manifest.lines), manifest.damaged) == (["b"], 1)


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"bundle": "b-2"}, '"b-1"', '"b-2"'),
        ({"parameters": {"passes": 3, "seed": 7}}, '{"seed": 0}', '{"seed": 7}'),
        ({"more": 1}, "null", "1"),
    ],
)
def test_another_head_is_refused_and_named(
    tmp_path: Path, change: dict[str, Any], found: str, expected: str
) -> None:
    before = written(tmp_path, [Line(id="a", state="done")])
    with pytest.raises(InputError) as refused:
        Manifest(tmp_path, HEAD | change)
    assert refused.value.code == "other_manifest"
    assert refused.value.field == f"{NAME}: {next(iter(change))}"
    assert refused.value.found == found
    assert str(refused.value.expected).startswith(expected)
    assert (tmp_path / NAME).read_bytes() == before


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b"[1]\n", b'{"id": "a"}\n'])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(InputError, match="not a manifest"):
        Manifest(tmp_path, HEAD)
    assert (tmp_path / NAME).read_bytes() == content


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Manifest(tmp_path, HEAD), pytest.raises(InputError, match="at work"):
        Manifest(tmp_path, HEAD)
    with Manifest(tmp_path, HEAD):
        pass


def test_a_place_that_is_no_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError) as refused:
        Manifest(tmp_path / "file", HEAD)
    assert refused.value.field == "out"


def test_lines_are_json_that_any_program_reads(tmp_path: Path) -> None:
    whole = written(tmp_path, [Line(id="ü\n1", state="done", seconds=0.5)])
    head, line = map(json.loads, whole.decode("utf-8").splitlines())
    assert head == {"manifest": 1, **HEAD}
    assert line == {"id": "ü\n1", "state": "done", "seconds": 0.5}
