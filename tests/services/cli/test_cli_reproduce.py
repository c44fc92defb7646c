"""Runs are made once, found again, and shown; on a real cohort of sixty lesions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from models.cohort.format import read_cohort
from models.errors import InputError
from services.cli.main import lesionlens
from services.cli.reproduce_run import QUICK, Plan, finished, open_arrays, rows_of, run_one

PLAN = QUICK.model_copy(update={"epochs": 1, "labelled_passes": 2, "test_passes": 2})


@pytest.fixture(scope="module")
def done(tiny_cohort, tmp_path_factory):
    """One run, in this process: (folder, cohort, digest, notes)."""
    out, notes = tmp_path_factory.mktemp("reproduce"), []
    cohort = read_cohort(tiny_cohort)
    arrays = open_arrays(out, PLAN, cohort, notes.append)
    digest = run_one(out, PLAN, cohort.root, arrays, 0, lambda i, note: notes.append(note))
    return out, cohort, digest, notes


def test_a_run_is_kept_and_found_again(done):
    out, cohort, digest, notes = done
    assert digest == PLAN.digest(cohort.hash, 0)
    run = finished(out, digest)
    test = rows_of(cohort, PLAN)[2]
    assert list(run.answers) == ["default", "wang2019_gaussian", "spie_rodeo"]
    assert run.predicted.shape == (len(test),)
    for answer in run.answers.values():
        assert answer.found.shape == answer.scores.shape == (len(test), 14)
        assert not np.isnan(answer.scores).any()
    assert any(note.startswith("fit") for note in notes)
    assert finished(out, PLAN.digest(cohort.hash, 1)) is None


def test_a_broken_file_is_made_again(done, tmp_path):
    digest = done[2]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"{digest}.npz").write_bytes(b"PK\x03\x04 cut short")
    assert finished(tmp_path, digest) is None


def test_digests_tell_what_decides_a_run(done):
    data = done[1].hash
    fits = {PLAN.fit_digest(data, 0), PLAN.fit_digest(data, 1), PLAN.fit_digest("other", 0)}
    assert len(fits) == 3
    more = PLAN.model_copy(update={"test_passes": 5})
    assert more.fit_digest(data, 0) == PLAN.fit_digest(data, 0)
    assert more.digest(data, 0) != PLAN.digest(data, 0)
    # Run 1 of seed 0 is run 0 of seed 1.
    assert PLAN.model_copy(update={"seed": 1}).digest(data, 0) == PLAN.digest(data, 1)


def test_defaults_are_the_papers():
    plan = Plan()
    assert (plan.lesions, plan.per_class, plan.labelled) == (494, 10, 10)
    assert (plan.labelled_passes, plan.test_passes, plan.unlabelled_passes) == (100, 100, 20)
    assert (plan.spie_passes, plan.draws) == (30, 1000)


def test_a_missing_cohort_is_one_line(tmp_path):
    arguments = ["reproduce", "--out", str(tmp_path), "--cohort", str(tmp_path / "no")]
    result = CliRunner().invoke(lesionlens, arguments)
    assert isinstance(result.exception, InputError)
    assert "\n" not in result.exception.line


def test_a_cohort_without_feature_labels_is_refused(tiny_cohort, tmp_path):
    """Before anything is trained."""
    shutil.copytree(tiny_cohort, tmp_path / "bare")
    path = tmp_path / "bare" / "cohort.json"
    file = json.loads(path.read_text("utf-8"))
    for name in ("training", "validation", "test"):
        for lesion in file[name]:
            lesion["features"] = {}
    path.write_text(json.dumps(file), "utf-8")
    arguments = ["reproduce", "--quick", "--out", str(tmp_path / "o"), "--cohort", str(path.parent)]
    result = CliRunner().invoke(lesionlens, arguments)
    assert isinstance(result.exception, InputError), result.exception
    assert result.exception.code == "no_labels"


def test_help_names_the_detectors():
    text = CliRunner().invoke(lesionlens, ["reproduce", "--help"]).output
    assert all(name in text for name in ("wang2019_gaussian", "spie_rodeo", "--runs"))
