"""Writing a cohort: files, splits, independence of processes, DICOM."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cohort.check import check_files
from models.cohort.format import SPLITS
from models.cohort.nifti import read_nifti
from models.cohort.phantom import PHASES, draw, generate, render
from models.cohort.phantom.generate import VERSION, assign, seed_of
from models.cohort.phantom.profiles import CLASSES, FEATURES
from models.errors import InputError


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_cohort_is_whole_and_the_same_on_any_number_of_processes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    one = generate(
        tmp_path / "one", n=9, seed=9, splits=(5, 2, 2), progress=lambda *a: seen.append(a)
    )
    generate(tmp_path / "two", n=9, seed=9, splits=(5, 2, 2), processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert seen == [(i, 9) for i in range(1, 10)]
    assert one.file.synthetic
    assert sum(len(one.lesions(s)) for s in SPLITS) == 9
    assert check_files(one) == []


def test_entries_tell_the_truth(tmp_path: Path) -> None:
    cohort = generate(tmp_path, n=5, seed=4, splits=(1, 0, 0))
    truth = json.loads((tmp_path / "phantom.json").read_text())
    for entry in cohort.lesions("training"):
        spec = draw(4, truth["lesions"][entry.lesion_id]["index"])
        rendering = render(spec)
        assert entry.class_id == spec.class_id
        assert set(entry.features) == set(FEATURES)
        assert {f for f, s in entry.features.items() if s == "present"} == set(spec.features)
        assert truth["lesions"][entry.lesion_id]["strength"] == spec.features
        for p in PHASES:
            read = read_nifti(tmp_path / entry.image[p])
            assert (read.data == rendering.volumes[p].data).all()
            assert np.allclose(read.affine, rendering.volumes[p].affine)
        for name, path in entry.masks.items():
            assert (read_nifti(tmp_path / path).data.astype(bool) == rendering.masks[name]).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200))
def test_no_patient_is_in_two_splits_and_counts_are_met(seed: int, n: int) -> None:
    specs = [draw(seed, i) for i in range(n)]
    counts = [n - 2 * (n // 5), n // 5, n // 5]
    chosen = assign(specs, counts)
    assert set(chosen) == {s.patient_id for s in specs}
    got = Counter(chosen[s.patient_id] for s in specs)
    for name, wanted in zip(SPLITS, counts, strict=True):
        assert abs(got[name] - wanted) <= 2


def test_every_split_has_every_class() -> None:
    specs = [draw(1, i) for i in range(600)]
    chosen = assign(specs, (400, 80, 120))
    for name, wanted in zip(SPLITS, (400, 80, 120), strict=True):
        got = Counter(s.class_id for s in specs if chosen[s.patient_id] == name)
        for c in CLASSES:
            assert 0.6 * wanted / 6 < got[c] < 1.4 * wanted / 6, (name, c)


@pytest.mark.parametrize(
    ("n", "splits", "field"),
    [
        (0, (0.7, 0.15, 0.15), "n"),
        (10, (0.7, 0.1, 0.1), "splits"),
        (10, (5, 3, 3), "splits"),
        (10, (1.2, -0.1, -0.1), "splits"),
        (10, (0.5, 0.5), "splits"),
        (10, (float("nan"), 0.5, 0.5), "splits"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_written(
    tmp_path: Path, n: int, splits: tuple[float, ...], field: str
) -> None:
    with pytest.raises(InputError) as error:
        generate(tmp_path / "cohort", n=n, seed=1, splits=splits)
    assert error.value.field == field
    assert not (tmp_path / "cohort").exists()


def test_dicom_reads_back_as_the_nifti_form(tmp_path: Path) -> None:
    from models.cohort.dicom import read_phases

    cohort = generate(tmp_path, n=2, seed=6, splits=(2, 0, 0), dicom=True)
    for entry in cohort.lesions("training"):
        phases = read_phases(tmp_path / "dicom" / entry.lesion_id, PHASES)
        for p in PHASES:
            nifti = read_nifti(tmp_path / entry.image[p])
            assert (phases[p].data == nifti.data).all()
            assert np.allclose(phases[p].affine, nifti.affine, atol=1e-4)


def test_abscesses_are_set_aside_unlabelled_and_of_patients_of_their_own(tmp_path: Path) -> None:
    plain = generate(tmp_path / "plain", n=4, seed=8, splits=(2, 1, 1))
    made = generate(tmp_path / "with", n=4, seed=8, splits=(2, 1, 1), outside=3)
    assert made.lesions() == plain.lesions()
    aside = made.lesions("outside")
    assert {x.class_id for x in aside} == {"abscess"}
    assert len({x.lesion_id for x in aside}) == 3
    assert not {x.patient_id for x in aside} & {x.patient_id for x in made.lesions()}
    assert all(x.features == {} and set(x.masks) == {"lesion"} for x in aside)
    assert check_files(made) == []
    with pytest.raises(InputError, match="too few"):
        generate(tmp_path / "no", n=4, seed=8, outside=-1)


def test_a_stopped_run_goes_on_and_ends_with_the_same_files(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Stopped

    root = tmp_path / "stopped"
    with pytest.raises(Stopped):
        generate(root, n=6, seed=9, splits=(4, 1, 1), outside=1, progress=stop)
    assert not (root / "cohort.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in (root / "images").rglob("*.gz")}
    assert len(kept) == 9
    with pytest.raises(InputError) as error:
        generate(root, n=6, seed=10, splits=(4, 1, 1))
    assert error.value.code == "unfinished"
    generate(root, n=6, seed=9, splits=(4, 1, 1), outside=1)
    assert all(p.stat().st_mtime_ns == when for p, when in kept.items())
    generate(tmp_path / "whole", n=6, seed=9, splits=(4, 1, 1), outside=1)
    assert contents(root) == contents(tmp_path / "whole")


def test_the_seed_is_read_back_from_a_phantom_of_this_version_alone(tmp_path: Path) -> None:
    generate(tmp_path, n=1, seed=12, splits=(1, 0, 0))
    assert seed_of(tmp_path) == 12
    truth = json.loads((tmp_path / "phantom.json").read_text())
    (tmp_path / "phantom.json").write_text(json.dumps({**truth, "generator": "1"}))
    with pytest.raises(InputError) as error:
        seed_of(tmp_path)
    assert (error.value.found, error.value.expected) == ("1", VERSION)
    (tmp_path / "phantom.json").write_text("[]")
    with pytest.raises(InputError, match="not a phantom"):
        seed_of(tmp_path)
