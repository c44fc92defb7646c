"""Tables of readers' labels: read, refused with line numbers, merged, joined."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cohort.format import Cohort
from models.cohort.labels import (
    Reading,
    join,
    merge,
    rating_matrix,
    read_readings,
    status_of,
)
from models.cohort.table import read_table
from models.errors import CohortError, InputError

Make = Callable[..., Cohort]
HEAD = "lesion,feature,status,reader\n"

readings = st.lists(
    st.builds(
        Reading,
        lesion=st.sampled_from(["L0", "L1"]),
        feature=st.sampled_from(["washout", "thin_walled"]),
        status=st.sampled_from(["present", "absent", "ignore"]),
        reader=st.sampled_from(["A", "B", "C"]),
        line=st.just(2),
    ),
    max_size=12,
)


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def faults(make_cohort: Make, folder: Path, text: str) -> list[str]:
    with pytest.raises(CohortError) as caught:
        read_readings(table(folder, text), make_cohort().file)
    return caught.value.faults


# --- Tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_dialect_of_csv_reads_the_same(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([["Lesion ID", "Größe"], ["L0", "a,b;c\td"], [], ["", ""], ["L1", "2\n3"]])
    read = read_table(path)
    assert read.columns == ["lesion_id", "größe"]
    assert [(r.line, r["lesion_id"], r["größe"]) for r in read.rows] == [
        (2, "L0", "a,b;c\td"),
        (5, "L1", "2\n3"),
    ]


def test_a_workbook_reads_like_its_csv(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["Lesion", "Washout"])
    book.active.append([7, True])
    book.active.append([8.0, "?"])
    other = book.create_sheet("second")
    other.append(["x"])
    book.save(tmp_path / "t.xlsx")
    rows = [(r.line, r["lesion"], r["washout"]) for r in read_table(tmp_path / "t.xlsx").rows]
    assert rows == [(2, "7", "true"), (3, "8", "?")]
    assert read_table(tmp_path / "t.xlsx", sheet="second").columns == ["x"]
    with pytest.raises(InputError, match="no such sheet") as caught:
        read_table(tmp_path / "t.xlsx", sheet="third")
    assert caught.value.expected == "Sheet, second"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "wrong_table"),
        (b"\n\n", "wrong_table"),
        (b"a,a\n1,2\n", "wrong_table"),
        (b"a,,b\n1,2,3\n", "wrong_table"),
        (b"a,b\n1,2,3\n", "wrong_table"),
        (b'a,b\n"1,2\n', "wrong_table"),
        (b"a,b\n\xff\xfe,2\n", "wrong_encoding"),
        (b"a\0,b\n", "wrong_table"),
        (b"PK\x03\x04 and then nothing", "unreadable"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path: Path, raw: bytes, code: str) -> None:
    (tmp_path / "t.csv").write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "t.csv")
    assert caught.value.code == code
    assert "\n" not in caught.value.line


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_file_can_do_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(raw)
    refused, read = "", None
    try:
        read = read_table(path)
    except InputError as error:
        refused = error.line
    assert "\n" not in refused
    if read:
        assert len(set(read.columns)) == len(read.columns) > 0
        assert all(set(row.cells) == set(read.columns) for row in read.rows)


def test_a_cut_workbook_is_one_line(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["lesion"])
    book.save(tmp_path / "t.xlsx")
    whole = (tmp_path / "t.xlsx").read_bytes()
    for cut in range(4, len(whole), 501):
        (tmp_path / "cut.xlsx").write_bytes(whole[:cut])
        with pytest.raises(InputError) as caught:
            read_table(tmp_path / "cut.xlsx")
        assert caught.value.code == "unreadable"


def test_without_openpyxl_a_workbook_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = openpyxl.Workbook()
    book.save(tmp_path / "t.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "t.xlsx")
    assert caught.value.code == "missing_package"
    assert "saved as CSV" in caught.value.line


# --- Readings -------------------------------------------------------------------------------------


def test_names_are_understood_as_people_write_them(make_cohort: Make, tmp_path: Path) -> None:
    text = "Lesion_ID;Feature;Status;Rater\nL0;Wash-out;YES;A\nL1;washout;0;A\nL2;Thin walled;?;A\n"
    read = read_readings(table(tmp_path, text), make_cohort().file)
    assert [(r.lesion, r.feature, r.status) for r in read] == [
        ("L0", "washout", "present"),
        ("L1", "washout", "absent"),
        ("L2", "thin_walled", "ignore"),
    ]


def test_one_column_a_feature_is_the_same_table(make_cohort: Make, tmp_path: Path) -> None:
    file = make_cohort().file
    long = HEAD + "L0,washout,present,A\nL0,thin_walled,absent,A\nL1,washout,ignore,A\n"
    wide = "lesion,reader,patient,washout,thin walled,comment\nL0,A,P0,1,0,clear\nL1,A,P1,?,,\n"
    a = read_readings(table(tmp_path, long), file)
    b = read_readings(table(tmp_path, wide, "wide.csv"), file)
    assert merge(a) == merge(b)


def test_each_bad_row_is_one_line_with_its_number(make_cohort: Make, tmp_path: Path) -> None:
    text = HEAD + (
        "L9,washout,present,A\n"  # 2
        "L0,washuot,present,A\n"  # 3
        "L0,washout,perhaps not,A\n"  # 4
        "L0,washout,present,\n"  # 5
        "L0,washout,present,A\n"  # 6
        "L0,washout,absent,A\n"  # 7, against line 6
        ",,,A\n"  # 8, three faults
    )
    found = faults(make_cohort, tmp_path, text)
    assert all(f.startswith("labels.csv: line ") for f in found)
    by_line = {int(f.split()[2].rstrip(":")): f for f in found}
    assert set(by_line) == {2, 3, 4, 5, 7, 8}
    assert "lesion: 'L9' is not in the cohort" in by_line[2]
    assert "did you mean 'washout'?" in by_line[3]
    assert "expected present, absent or ignore" in by_line[4]
    assert "reader: empty" in by_line[5]
    assert "absent of washout in L0, but present in line 6" in by_line[7]
    assert len([f for f in found if "line 8:" in f]) == 3


def test_a_column_that_is_no_feature_is_named_once(make_cohort: Make, tmp_path: Path) -> None:
    found = faults(make_cohort, tmp_path, "lesion,colour\nL0,red\nL1,red\n")
    assert [f for f in found if "'colour' is not one of the cohort's features" in f] == found[:1]


def test_the_same_word_twice_counts_once(make_cohort: Make, tmp_path: Path) -> None:
    text = HEAD + "L0,washout,absent,A\nL0,washout,no,A\nL0,washout,present,B\n"
    read = read_readings(table(tmp_path, text), make_cohort().file)
    assert [r.line for r in read] == [2, 4]


def test_one_reader_in_two_spellings_is_one(make_cohort: Make, tmp_path: Path) -> None:
    text = HEAD + "L0,washout,absent,Ada\nL1,washout,no,ada \nL2,washout,no,Ben\n"
    read = read_readings(table(tmp_path, text), make_cohort().file)
    assert [r.reader for r in read] == ["Ada", "Ada", "Ben"]


def test_new_features_join_on_request_alone(make_cohort: Make, tmp_path: Path) -> None:
    text = "lesion,feature,status\nL0,Target sign,present\nL1,target-sign,absent\n"
    file = make_cohort().file
    with pytest.raises(CohortError):
        read_readings(table(tmp_path, text), file)
    merged = join(file, merge(read_readings(tmp_path / "labels.csv", file, new_features=True)))
    assert merged.file.features == ["washout", "thin_walled", "target_sign"]
    assert merged.file.training[0].features == {"washout": "present", "target_sign": "present"}


def test_a_table_without_its_columns_says_which(make_cohort: Make, tmp_path: Path) -> None:
    for text in ("feature,status\nwashout,present\n", "lesion,feature\nL0,washout\n"):
        with pytest.raises(InputError) as caught:
            read_readings(table(tmp_path, text), make_cohort().file)
        assert caught.value.code == "missing_column"
    with pytest.raises(InputError, match="no readings"):
        read_readings(table(tmp_path, HEAD), make_cohort().file)


def test_every_spelling_means_one_status() -> None:
    meant = {"Yes": "present", "+": "present", "-": "absent", " NO ": "absent", "0": "absent"}
    for text, status in {**meant, "N/A": "ignore", "not_assessed": "ignore"}.items():
        assert status_of(text) == status
    assert status_of("2") is None


# --- Merging --------------------------------------------------------------------------------------


def votes(*statuses: str) -> list[Reading]:
    return [Reading("L0", "washout", s, f"R{i}", i) for i, s in enumerate(statuses)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statuses", "majority", "unanimous", "any_one"),
    [
        (["present"], "present", "present", "present"),
        (["present", "absent"], "ignore", "ignore", "present"),
        (["present", "present", "absent"], "present", "ignore", "present"),
        (["present", "absent", "ignore"], "ignore", "ignore", "present"),
        (["absent", "absent", "ignore"], "absent", "ignore", "absent"),
        (["absent", "ignore"], "ignore", "ignore", "absent"),
        (["ignore", "ignore"], "ignore", "ignore", "ignore"),
    ],
)
def test_policies(statuses: list[str], majority: str, unanimous: str, any_one: str) -> None:
    key = ("L0", "washout")
    assert merge(votes(*statuses))[key] == majority
    assert merge(votes(*statuses), "unanimous")[key] == unanimous
    assert merge(votes(*statuses), "any")[key] == any_one


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(InputError) as caught:
        merge(votes("present"), "loudest")
    assert caught.value.expected == "majority, unanimous, any"


@given(readings, st.randoms(), st.sampled_from(["majority", "unanimous", "any"]))
def test_the_order_of_readings_does_not_matter(
    given_: list[Reading], shuffler: random.Random, policy: str
) -> None:
    shuffled = list(given_)
    shuffler.shuffle(shuffled)
    assert merge(given_, policy) == merge(shuffled, policy)


@given(readings)
def test_majority_treats_present_and_absent_alike(given_: list[Reading]) -> None:
    swap = {"present": "absent", "absent": "present", "ignore": "ignore"}
    other = [Reading(r.lesion, r.feature, swap[r.status], r.reader, r.line) for r in given_]  # type: ignore[arg-type]
    assert merge(other) == {k: swap[v] for k, v in merge(given_).items()}


# --- Joining --------------------------------------------------------------------------------------


def test_what_the_table_does_not_name_stays(make_cohort: Make) -> None:
    file = make_cohort().file
    merged = join(file, {("L0", "thin_walled"): "present", ("L2", "washout"): "absent",
                         ("L1", "washout"): "present"})  # fmt: skip
    assert (merged.added, merged.changed, merged.unchanged) == (1, 1, 1)
    assert merged.file.training[0].features == {"washout": "present", "thin_walled": "present"}
    assert merged.file.validation == file.validation
    assert merged.file.test[0].features == {"washout": "absent"}
    assert join(merged.file, merged.status).changed == 0


def test_absent_against_a_mask_is_noticed(make_cohort: Make) -> None:
    cohort = make_cohort(lambda f: f.training[0].masks.update(washout="L0_lesion.nii.gz"))
    assert join(cohort.file, {("L0", "washout"): "absent"}).contradicting == ("L0: washout",)


def test_the_matrix_holds_what_was_rated() -> None:
    given_ = [*votes("present", "ignore", "absent"), Reading("A", "washout", "present", "R2", 9)]
    lesions, readers, codes = rating_matrix(given_, "washout")
    assert (lesions, readers) == (["A", "L0"], ["R0", "R1", "R2"])
    assert codes.tolist() == [[-1, -1, 1], [1, -1, 0]]
    assert rating_matrix(given_, "washout", count_ignore=True)[2].tolist() == [
        [-1, -1, 1], [1, 2, 0],
    ]  # fmt: skip
