"""The verbs as a person types them, on a real phantom."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from models.cohort.dicom import read_phases
from models.cohort.format import read_cohort
from models.cohort.load import load_study
from models.voi import Preprocessing, extract
from models.volume import Study
from services.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of six lesions with DICOM, written by the verb itself."""
    root = tmp_path_factory.mktemp("cli") / "cohort"
    code = _main(["cohort", "phantom", "--out", str(root), "--n", "6", "--seed", "3", "--dicom"])
    assert code == 0
    return root


def _main(arguments: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lesionlens", *arguments])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = _main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


@pytest.fixture
def copy(phantom: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantom, tmp_path / "cohort"))


@pytest.mark.parametrize("verb", [(), ("phantom",), ("check",), ("show",), ("ceiling",)])
def test_help_teaches_with_an_example(run: Run, verb: tuple[str, ...]) -> None:
    code, out, _ = run("cohort", *verb, "--help")
    assert code == 0
    assert "lesionlens cohort " + " ".join(verb) in out


def test_phantom_says_what_it_made_and_does_not_overwrite(run: Run, phantom: Path) -> None:
    made = read_cohort(phantom)
    assert len(made.lesions()) == 6
    assert made.file.synthetic
    code, _, err = run("cohort", "phantom", "--out", phantom, "--n", 2)
    assert code == 1
    assert "holds a cohort already" in err


def test_a_lesion_is_the_same_as_nifti_and_as_dicom(phantom: Path) -> None:
    """To the last voxel of the canonical grid, so every answer downstream is the same too."""
    made, spec = read_cohort(phantom), Preprocessing()
    for lesion in made.lesions():
        study = load_study(made, lesion)
        volumes = read_phases(phantom / "dicom" / lesion.lesion_id, made.file.phases)
        again = Study.make(volumes, study.boxes, made.file.phases)
        assert extract(again, spec).id == extract(study, spec).id


def test_check_finds_no_fault_in_a_phantom(run: Run, phantom: Path) -> None:
    code, out, err = run("cohort", "check", phantom)
    assert (code, err) == (0, "")
    assert "no faults; 6 synthetic lesions" in out
    assert read_cohort(phantom).hash in out


def test_check_names_lesion_and_field_and_exits_2(run: Run, copy: Path) -> None:
    made = read_cohort(copy)
    first, second = made.lesions()[:2]
    image = copy / first.image["delayed"]
    image.write_bytes(image.read_bytes()[:-100])
    (copy / second.masks["lesion"]).write_bytes(b"not a mask")
    code, _, err = run("cohort", "check", copy)
    assert code == 2
    assert f"lesion {first.lesion_id}: image.delayed: the file is truncated" in err
    assert f"lesion {second.lesion_id}: masks.lesion: not a NIfTI file" in err
    assert err.strip().endswith("2 faults")


def test_check_refuses_a_split_that_leaks_patients(run: Run, copy: Path) -> None:
    raw = json.loads((copy / "cohort.json").read_text())
    lesion = dict(raw["training"][0], lesion_id="again")
    raw["test"].append(lesion)
    (copy / "cohort.json").write_text(json.dumps(raw))
    code, _, err = run("cohort", "check", copy)
    assert code == 2
    assert f"lesion again: patient_id: patient {lesion['patient_id']!r} is in test and in" in err


def test_show_draws_a_picture(run: Run, phantom: Path, tmp_path: Path) -> None:
    lesion = read_cohort(phantom).lesions()[0].lesion_id
    target = tmp_path / "new" / "sheet.png"
    code, out, _ = run("cohort", "show", phantom, "--out", target, "--lesion", lesion)
    assert (code, out) == (0, f"{target}: 1 lesion\n")
    assert Image.open(target).size[0] > 600


@pytest.mark.parametrize("verb", ["check", "show"])
def test_a_folder_without_a_cohort_is_one_line(run: Run, tmp_path: Path, verb: str) -> None:
    code, _, err = run("cohort", verb, tmp_path)
    assert code == 2
    assert "cohort: cohort.json: no such file" in err


def test_an_unknown_lesion_is_one_line(run: Run, phantom: Path, tmp_path: Path) -> None:
    code, _, err = run("cohort", "show", phantom, "--lesion", "nobody", "--out", tmp_path / "x.png")
    assert code == 2
    assert err.startswith("error: lesion: no lesion 'nobody'")
    assert err.count("\n") == 1


def test_show_features_draws_what_each_feature_looks_like(
    run: Run, phantom: Path, copy: Path, tmp_path: Path
) -> None:
    target = tmp_path / "features.png"
    code, out, _ = run("cohort", "show", phantom, "--features", "--out", target)
    assert (code, out) == (0, f"{target}: 14 features, clear, faint and off\n")
    width, height = Image.open(target).size
    assert width > 1000
    assert height > 14 * 100
    code, _, err = run("cohort", "show", phantom, "--features", "--lesion", "L00000")
    assert code == 2
    assert "leave --lesion out" in err
    (copy / "phantom.json").unlink()
    code, _, err = run("cohort", "show", copy, "--features", "--out", target)
    assert code == 2
    assert "not a phantom" in err


def test_phantom_sets_abscesses_aside(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "made"
    code, out, _ = run(
        "cohort", "phantom", "--out", target, "--n", 2, "--outside", 2, "--processes", 1
    )
    assert code == 0
    assert out.endswith(", 2 abscesses set aside\n")
    assert [x.class_id for x in read_cohort(target).lesions("outside")] == ["abscess", "abscess"]


def test_ceiling_prints_and_writes_the_same(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "new" / "ceiling.json"
    code, out, _ = run("cohort", "ceiling", "--n", 120, "--test", 90, "--out", target)
    assert code == 0
    found = json.loads(target.read_text())
    assert (found["n_train"], found["n_test"]) == (120, 90)
    for score in found["scores"].values():
        assert f"{score['accuracy']:.3f}" in out
    code, _, err = run("cohort", "ceiling", "--n", 10)
    assert code == 2
    assert "too few lesions" in err
