from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cohort.format import SPLITS
from models.cohort.importers.base import Found, Options
from models.cohort.importers.run import folder_name
from models.cohort.importers.splits import place

NAMED = st.sampled_from([None, None, "training", "validation", "test", "outside"])


def case(number: int, patient: str, split: str | None = None, class_id: str = "hcc") -> Found:
    return Found(f"L{number}", patient, class_id, {}, split=split)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 12), NAMED), max_size=40), seed=st.integers(0, 3))
def test_no_patient_is_ever_in_two_splits(rows: list[tuple[int, str | None]], seed: int) -> None:
    cases = [case(n, f"P{p}", split) for n, (p, split) in enumerate(rows)]
    placed, skipped = place(cases, Options(seed=seed))
    assert set(placed) | {s.case for s in skipped} == {c.lesion_id for c in cases}
    assert len(placed) + len(skipped) == len(cases)
    assert {s.error.code for s in skipped} <= {"patient_leak"}
    homes: dict[str, set[str]] = {}
    for c in cases:
        if c.lesion_id in placed:
            split = placed[c.lesion_id]
            assert c.split in (None, split)  # what the source says is kept or skipped, never moved
            homes.setdefault(c.patient_id, set()).add(split)
    for splits in homes.values():
        assert len(splits - {"outside"}) <= 1
        assert not {"training", "outside"} <= splits


def test_lesions_without_a_split_go_where_the_source_sends_nobody() -> None:
    rest = [case(n, f"P{n}") for n in range(20)]
    placed, _ = place([case(99, "P99", "test"), *rest], Options(splits=(0.5, 0.5, 0.9)))
    assert placed["L99"] == "test"
    assert sorted(placed[c.lesion_id] for c in rest) == ["training"] * 10 + ["validation"] * 10


def test_a_patient_that_the_source_names_takes_its_other_lesions_along() -> None:
    placed, skipped = place([case(0, "P", "test"), case(1, "P"), case(2, "Q")], Options())
    assert (placed["L0"], placed["L1"]) == ("test", "test")
    assert not skipped


def test_a_source_that_names_every_split() -> None:
    named = [case(n, f"P{n}", split) for n, split in enumerate(SPLITS)]
    placed, skipped = place([*named, case(9, "P9")], Options())
    assert [placed[c.lesion_id] for c in named] == list(SPLITS)
    assert placed["L9"] in SPLITS
    assert not skipped


def test_leaks_are_skipped_with_their_reason() -> None:
    cases = [case(0, "P", "test"), case(1, "P", "training"), case(2, "P", "outside", "abscess")]
    placed, skipped = place(cases, Options())
    assert placed == {"L1": "training"}
    assert [s.error.line for s in skipped] == [
        f"split: the patient is in another split; found {split}, and training for patient 'P'; "
        "expected splits by patient"
        for split in ("test", "outside")
    ]


@pytest.mark.parametrize("name", ["L1", "a.b-c_d", "MR100_1"])
def test_plain_ids_are_folder_names(name: str) -> None:
    assert folder_name(name) == name


@settings(max_examples=200, deadline=None)
@given(one=st.text(min_size=1), two=st.text(min_size=1))
def test_folder_names_are_safe_and_differ(one: str, two: str) -> None:
    names = [folder_name(one), folder_name(two)]
    assert (names[0] == names[1]) == (one == two)
    for name in names:
        assert name.isascii()
        assert not set(name) & set('/\\:*?"<>| ')
        assert name not in ("", ".", "..")
        assert 0 < len(name) <= 80
