"""`lesionlens cohort label` as a person types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import openpyxl
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import cohen_kappa_score

from models.cohort.format import read_cohort
from models.cohort.phantom import generate
from services.cli.main import lesionlens

READERS = ("Ada", "Ben", "Cleo")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labels") / "cohort"
    generate(root, n=6, seed=3)
    return root


@pytest.fixture
def cohort(phantom: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantom, tmp_path / "cohort"))


def ids(cohort: Path) -> list[str]:
    return [lesion.lesion_id for lesion in read_cohort(cohort).lesions()]


def table(cohort: Path, words: dict[str, str]) -> Path:
    """Washout by reader: a sign a lesion, + - ?, a blank where it was not read."""
    lines = ["lesion,feature,status,reader"]
    for reader, signs in words.items():
        for lesion, sign in zip(ids(cohort), signs, strict=True):
            if sign != " ":
                lines.append(f"{lesion},washout,{sign},{reader}")
    path = cohort.parent / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def call(*arguments: object) -> Result:
    from models.errors import LensError

    done = CliRunner().invoke(lesionlens, ["cohort", "label", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, (SystemExit, LensError)), done
    return done


def test_three_readers_become_one_label_and_their_agreement_is_kept(cohort: Path) -> None:
    words = {"Ada": "++--+-", "Ben": "+---+?", "Cleo": "++-+ -"}
    before = read_cohort(cohort)
    done = call(cohort, table(cohort, words))
    assert done.exit_code == 0, done.output
    after = read_cohort(cohort)
    washout = [lesion.features["washout"] for lesion in after.lesions()]
    assert washout == ["present", "present", "absent", "absent", "present", "absent"]
    others = [{**lesion.features, "washout": ""} for lesion in after.lesions()]
    assert others == [{**lesion.features, "washout": ""} for lesion in before.lesions()]
    record = json.loads((cohort / "agreement.json").read_text())
    assert record["readers"] == list(READERS)
    assert record["made_by"] == "lesionlens cohort label"
    found = record["features"]["washout"]
    assert found["shared"] == 6
    pair = next(p for p in found["pairs"] if p["readers"] == ["Ada", "Ben"])
    assert pair["kappa"]["n"] == 5
    expected = cohen_kappa_score(list("++--+"), list("+---+"))
    assert pair["kappa"]["value"] == pytest.approx(expected)
    assert "Fleiss" in done.output
    assert "Ada - Ben" in done.output
    assert f"{expected:.2f}" in done.output


def test_the_old_file_is_kept_under_a_number(cohort: Path) -> None:
    first = (cohort / "cohort.json").read_text()
    call(cohort, table(cohort, {"Ada": "+-+-+-"}))
    second = (cohort / "cohort.json").read_text()
    call(cohort, table(cohort, {"Ada": "-+-+-+"}))
    assert (cohort / "cohort.json.1.bak").read_text() == first
    assert (cohort / "cohort.json.2.bak").read_text() == second
    call(cohort, table(cohort, {"Ada": "-+-+-+"}))  # nothing new: nothing is written
    assert not (cohort / "cohort.json.3.bak").exists()


def test_out_leaves_the_cohort_as_it_was(cohort: Path) -> None:
    first = (cohort / "cohort.json").read_text()
    done = call(cohort, table(cohort, {"Ada": "++++++"}), "--out", cohort / "labelled.json")
    assert done.exit_code == 0
    assert (cohort / "cohort.json").read_text() == first
    labelled = read_cohort(cohort / "labelled.json")
    assert {lesion.features["washout"] for lesion in labelled.lesions()} == {"present"}


def test_out_elsewhere_would_lose_the_images(cohort: Path, tmp_path: Path) -> None:
    done = call(cohort, table(cohort, {"Ada": "++++++"}), "--out", tmp_path / "labelled.json")
    assert done.exit_code != 0
    assert "must lie in the cohort's folder" in str(done.exception)


def test_a_dry_run_writes_nothing(cohort: Path) -> None:
    before = sorted(p.name for p in cohort.iterdir()), (cohort / "cohort.json").read_text()
    done = call(cohort, table(cohort, {"Ada": "++++++", "Ben": "+++++-"}), "--dry-run")
    assert "dry run" in done.output
    after = sorted(p.name for p in cohort.iterdir()), (cohort / "cohort.json").read_text()
    assert before == after


def test_a_workbook_and_a_policy(cohort: Path, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["Lesion", "Reader", "Central scar", "Target sign"])
    book.active.append([ids(cohort)[0], "Ada", "yes", 1])
    book.active.append([ids(cohort)[0], "Ben", "no", 1])
    book.save(tmp_path / "t.xlsx")
    done = call(cohort, tmp_path / "t.xlsx", "--policy", "any", "--new-features")
    assert done.exit_code == 0, done.output
    found = read_cohort(cohort)
    assert found.lesions()[0].features["central_scar"] == "present"
    assert found.lesions()[0].features["target_sign"] == "present"
    assert found.file.features[-1] == "target_sign"


def test_bad_rows_are_lines_and_nothing_is_written(cohort: Path) -> None:
    before = (cohort / "cohort.json").read_text()
    path = cohort.parent / "bad.csv"
    path.write_text("lesion,feature,status\nnobody,washout,yes\n" + f"{ids(cohort)[0]},wash,2\n")
    done = call(cohort, path)
    assert done.exit_code == 2
    assert "bad.csv: line 2: lesion: 'nobody' is not in the cohort" in done.output
    assert "bad.csv: line 3: feature: 'wash' is not one of" in done.output
    assert "bad.csv: line 3: status: '2' is no status" in done.output
    assert "3 faults; nothing was written" in done.output
    assert (cohort / "cohort.json").read_text() == before


def test_a_wrong_vocabulary_is_one_line(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text("{}")
    done = call(cohort, table(cohort, {"Ada": "++++++"}), "--vocabulary", tmp_path / "v.json")
    assert "not a vocabulary" in str(done.exception)
    assert "\n" not in done.exception.line  # type: ignore[union-attr]


def test_help_teaches_with_an_example() -> None:
    text = call("--help").output
    assert "Example:" in text
    assert "lesionlens cohort label build/cohort labels.csv" in text
