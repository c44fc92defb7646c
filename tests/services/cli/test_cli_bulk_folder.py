"""File names from any id, and a table that a spreadsheet may open."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from services.cli.bulk_folder import EXPLANATIONS, MAPS, place, prepare, put, write_summary
from services.cli.bulk_manifest import Line
from wire.cohort import CohortLesion

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(IDS)
def test_a_name_is_one_visible_file_of_bearable_length(lesion_id: str) -> None:
    path = PurePosixPath(place(EXPLANATIONS, lesion_id))
    assert path.parent.name == EXPLANATIONS
    assert len(path.parts) == 2
    assert not path.name.startswith(".")
    assert len(path.name.encode()) < 200


@given(st.lists(IDS, min_size=2, max_size=6, unique=True))
def test_two_lesions_have_two_names(ids: list[str]) -> None:
    assert len({place(MAPS, i) for i in ids}) == len(ids)


def test_plain_ids_stay_as_they_are() -> None:
    assert place(EXPLANATIONS, "L-00_1.a") == "explanations/L-00_1.a.json"


def test_put_leaves_no_half_file_and_prepare_clears_what_a_kill_left(tmp_path: Path) -> None:
    prepare(tmp_path, [EXPLANATIONS])
    put(tmp_path, "explanations/a.json", b"one")
    put(tmp_path, "explanations/a.json", b"two")
    (tmp_path / "explanations/.b.json.77.part").write_bytes(b"ha")
    prepare(tmp_path, [EXPLANATIONS])
    assert [f.name for f in (tmp_path / "explanations").iterdir()] == ["a.json"]
    assert (tmp_path / "explanations/a.json").read_bytes() == b"two"


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    lesion = CohortLesion(lesion_id="=1+1", patient_id="@p", class_id="hcc", image={}, voi={})
    lines = {"=1+1": Line(id="=1+1", state="failed", error='-x, "quoted"\nand a second line')}
    path = write_summary(tmp_path, [lesion, lesion.model_copy(update={"lesion_id": "b"})], lines)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["lesion"], first["patient"]) == ("'=1+1", "'@p")
    assert first["error"] == '\'-x, "quoted"\nand a second line'
    assert second["state"] == "waiting"
