from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.cohort.check import check_files
from models.cohort.format import SETS, Cohort, read_cohort, write_cohort
from models.cohort.load import load_lesion, load_mask, load_study
from models.cohort.nifti import read_nifti, write_nifti
from models.errors import CohortError, InputError, NotFound
from models.voi import Preprocessing
from models.volume import Volume
from wire.cohort import CohortFile, CohortLesion

Make = Callable[..., Cohort]


def faults(path: Path) -> list[str]:
    with pytest.raises(CohortError) as caught:
        read_cohort(path)
    return caught.value.faults


def test_folder_and_file_name_the_same_cohort(make_cohort: Make) -> None:
    made = make_cohort()
    by_folder, by_file = read_cohort(made.root), read_cohort(made.root / "cohort.json")
    assert by_folder.file == by_file.file == made.file
    assert by_folder.hash == made.hash
    assert [x.lesion_id for x in made.lesions()] == ["L0", "L1", "L2"]
    assert made.lesions("test") == [made.find("L2")]
    assert check_files(by_folder) == []


def test_the_hash_is_of_the_voxels_too(make_cohort: Make) -> None:
    made = make_cohort()
    before = made.hash
    path = made.root / made.find("L0").image["arterial"]
    volume = read_nifti(path)
    write_nifti(path, Volume.make(volume.data + 1, volume.affine))
    assert read_cohort(made.root).hash != before


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)
boxes = st.lists(st.integers(0, 50), min_size=6, max_size=6).map(
    lambda v: [v[:3], [a + b + 1 for a, b in zip(v[:3], v[3:], strict=True)]]
)


@st.composite
def cohort_files(draw: st.DrawFn) -> CohortFile:
    phases, classes, features = (
        draw(st.lists(names, min_size=low, max_size=3, unique=True)) for low in (1, 1, 0)
    )
    ids = draw(st.lists(names, max_size=6, unique=True))
    lists: dict[str, list[CohortLesion]] = {name: [] for name in SETS}
    for number, lesion_id in enumerate(ids):
        acquired = draw(st.lists(st.sampled_from(phases), min_size=1, unique=True))
        lesion = {
            "lesion_id": lesion_id,
            "patient_id": draw(names) + f"/{number}",
            "class": draw(st.sampled_from(classes)),
            "image": dict.fromkeys(acquired, "v.nii.gz"),
            "voi": {phase: draw(boxes) for phase in acquired},
            "features": {
                f: draw(st.sampled_from(["present", "absent", "ignore"])) for f in features
            },
            "masks": dict.fromkeys(features, "v.nii.gz"),
        }
        lists[draw(st.sampled_from(sorted(lists)))].append(CohortLesion.model_validate(lesion))
    return CohortFile(
        name=draw(names), version="1", licence=draw(names), synthetic=draw(st.booleans()),
        phases=phases, classes=classes, features=features, **lists,
    )  # fmt: skip


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(file=cohort_files())
def test_a_cohort_is_the_same_after_a_round_trip(tmp_path: Path, file: CohortFile) -> None:
    (tmp_path / "v.nii.gz").write_bytes(b"")
    made = write_cohort(tmp_path, file)
    assert read_cohort(tmp_path).file == file
    text = (tmp_path / "cohort.json").read_bytes()
    write_cohort(tmp_path, read_cohort(tmp_path).file)
    assert (tmp_path / "cohort.json").read_bytes() == text
    assert read_cohort(tmp_path).hash == made.hash


def test_a_patient_in_two_splits_is_refused(make_cohort: Make) -> None:
    made = make_cohort(lambda f: setattr(f.test[0], "patient_id", "P0"))
    assert faults(made.root) == [
        "lesion L2: patient_id: patient 'P0' is in test and in training; splits must be by patient"
    ]


def test_two_lesions_of_one_patient_in_one_split_are_fine(make_cohort: Make) -> None:
    def move(file: CohortFile) -> None:
        file.test[0].patient_id = "P0"
        file.training.append(file.test.pop())

    assert len(read_cohort(make_cohort(move).root).lesions("training")) == 2


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda x: x.update({"class": "hepatoma"}), "lesion L1: class: 'hepatoma' is not one of"),
        (lambda x: x.pop("class"), "lesion L1: class: field required"),
        (lambda x: x["image"].pop("delayed"), "lesion L1: image.delayed: missing"),
        (lambda x: x["image"].update(delayed="no.nii"), "lesion L1: image.delayed: no such file"),
        (lambda x: x["image"].update(t2="a.nii"), "lesion L1: image.t2: no such phase"),
        (lambda x: x["image"].update(delayed="../a"), "lesion L1: image.delayed: '../a' must be"),
        (lambda x: x["image"].update(delayed="/etc/passwd"), "lesion L1: image.delayed: '/etc"),
        (lambda x: x["voi"].update(delayed=[[0, 0, 0], [0, 1, 1]]), "lesion L1: voi.delayed: an e"),
        (lambda x: x["voi"].update(delayed=[[0, 0, 0]]), "lesion L1: voi.delayed: not a box"),
        (lambda x: x["voi"].update(delayed="all"), "lesion L1: voi.delayed: input should be"),
        (lambda x: x["features"].update(glow="present"), "lesion L1: features.glow: not one of"),
        (lambda x: x["features"].update(washout="maybe"), "lesion L1: features.washout: input sho"),
        (lambda x: x["masks"].update(glow="a.nii"), "lesion L1: masks.glow: neither 'lesion'"),
        (lambda x: x.update(lesion_id="L0"), "lesion L0: lesion_id: stands twice"),
        (lambda x: x.update(lesion_id=""), "lesion validation[0]: lesion_id: "),
        (lambda x: x.update(colour="red"), "lesion L1: colour: extra inputs"),
    ],
)
def test_each_fault_names_lesion_and_field(
    make_cohort: Make, spoil: Callable[[dict[str, Any]], object], expected: str
) -> None:
    root = make_cohort().root
    raw = json.loads((root / "cohort.json").read_text())
    spoil(raw["validation"][0])
    (root / "cohort.json").write_text(json.dumps(raw))
    found = faults(root)
    assert any(fault.startswith(expected) for fault in found), found
    assert not any("\n" in fault for fault in found)


def test_all_faults_are_told_at_once(make_cohort: Make) -> None:
    root = make_cohort().root
    raw = json.loads((root / "cohort.json").read_text())
    raw["training"][0]["class"] = "hepatoma"
    raw["validation"][0].pop("voi")
    raw["test"][0]["patient_id"] = "P0"
    raw["phases"].append("arterial")
    (root / "cohort.json").write_text(json.dumps(raw))
    assert [fault.split(": ")[:2] for fault in faults(root)] == [
        ["lesion L1", "voi"],
        ["cohort", "phases"],
        ["lesion L0", "class"],
        ["lesion L2", "patient_id"],
    ]


def set_aside(file: CohortFile) -> None:
    """The third lesion becomes an abscess, outside of the three splits."""
    lesion = file.test.pop()
    lesion.class_id = "abscess"
    file.outside.append(lesion)


def test_what_is_set_aside_is_read_and_never_counted(make_cohort: Make) -> None:
    made = make_cohort(set_aside)
    cohort = read_cohort(made.root)
    assert cohort.file == made.file
    assert [x.lesion_id for x in cohort.lesions()] == ["L0", "L1"]
    assert [x.class_id for x in cohort.lesions("outside")] == ["abscess"]
    assert [x.lesion_id for x in cohort.everything] == ["L0", "L1", "L2"]
    assert cohort.find("L2").class_id == "abscess"
    assert [cohort.split_of(x) for x in ("L0", "L1", "L2")] == ["training", "validation", "outside"]
    assert check_files(cohort) == []
    # Its voxels are part of the cohort's address, and of the deep check.
    before, path = cohort.hash, cohort.root / cohort.find("L2").image["arterial"]
    volume = read_nifti(path)
    write_nifti(path, Volume.make(volume.data * 0, volume.affine))
    assert read_cohort(made.root).hash != before
    assert "lesion L2: image.arterial: one single value" in check_files(cohort)[0]


@pytest.mark.parametrize(("patient", "leaks"), [("P0", True), ("P1", False), ("P9", False)])
def test_an_outside_lesion_of_a_training_patient_is_refused(
    make_cohort: Make, patient: str, leaks: bool
) -> None:
    def edit(file: CohortFile) -> None:
        set_aside(file)
        file.outside[0].patient_id = patient

    made = make_cohort(edit)
    if not leaks:
        assert read_cohort(made.root).file == made.file
        return
    assert faults(made.root) == [
        "lesion L2: patient_id: patient 'P0' is in training; outside lesions must be of patients "
        "that the network never saw"
    ]


def test_a_class_out_of_the_list_belongs_outside_only(make_cohort: Make) -> None:
    made = make_cohort(lambda f: setattr(f.test[0], "class_id", "abscess"))
    assert faults(made.root) == ["lesion L2: class: 'abscess' is not one of hcc, cyst"]


def without(phase: str, *fields: str) -> Callable[[CohortFile], None]:
    def edit(file: CohortFile) -> None:
        for field in fields:
            getattr(file.validation[0], field).pop(phase)

    return edit


def test_a_phase_that_was_not_acquired(make_cohort: Make) -> None:
    cohort = read_cohort(make_cohort(without("delayed", "image", "voi")).root)
    assert check_files(cohort) == []
    lesion = cohort.find("L1")
    assert load_study(cohort, lesion).missing == ("delayed",)
    with pytest.raises(InputError) as caught:
        load_study(cohort, lesion, cohort.file.phases)
    assert caught.value.line.startswith("lesion L1: delayed: missing phase: delayed")
    allowed = load_study(cohort, lesion, cohort.file.phases, optional=["delayed"])
    assert list(allowed.volumes) == ["arterial", "portal_venous"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["image"], "image.delayed: missing, though voi.delayed is there"),
        (["voi"], "voi.delayed: missing, though image.delayed is there"),
    ],
)
def test_half_a_phase_is_a_slip(make_cohort: Make, fields: list[str], expected: str) -> None:
    assert faults(make_cohort(without("delayed", *fields)).root) == [f"lesion L1: {expected}"]


def test_a_lesion_without_any_phase(make_cohort: Make) -> None:
    def edit(file: CohortFile) -> None:
        file.validation[0].image.clear()
        file.validation[0].voi.clear()

    expected = "lesion L1: image: no phase at all; expected arterial, portal_venous, delayed"
    assert faults(make_cohort(edit).root) == [expected]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"name": 3}', '"x"', "\ufeff{}", "[" * 100_000, '{"training": 4}']
)
def test_a_file_that_is_no_cohort(tmp_path: Path, text: str) -> None:
    (tmp_path / "cohort.json").write_text(text)
    assert all(fault.startswith("cohort: ") for fault in faults(tmp_path))


def test_no_cohort_there(tmp_path: Path) -> None:
    assert "no such file" in faults(tmp_path)[0]
    assert "no such file" in faults(tmp_path / "elsewhere")[0]


def test_unknown_ids_and_splits(make_cohort: Make) -> None:
    made = make_cohort()
    with pytest.raises(NotFound, match="L9"):
        made.find("L9")
    with pytest.raises(InputError, match="no such split"):
        made.lesions("holdout")


def rewrite(cohort: Cohort, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    lesion = cohort.find("L1")
    path = cohort.root / (lesion.image | lesion.masks)[name]
    volume = read_nifti(path)
    write_nifti(path, Volume(change(volume.data.copy()), volume.affine))


def with_nan(data: np.ndarray) -> np.ndarray:
    data[3, 3, 3] = np.nan
    return data


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("arterial", with_nan, "image.arterial: NaN or infinite voxels; found 1 of 2880"),
        ("arterial", lambda d: d * 0, "image.arterial: one single value, 0, everywhere"),
        ("arterial", lambda d: d[:10], "voi.arterial: the box reaches outside of the volume"),
        ("lesion", lambda d: d[:10], "masks.lesion: the mask does not lie on the grid"),
        ("lesion", lambda d: d * 0, "masks.lesion: the lesion's mask is empty"),
        ("lesion", lambda d: d * 7, "masks.lesion: found values 0, 7; expected 0 and 1"),
        ("lesion", lambda d: np.roll(d, 9, 1), "masks.lesion: no voxel inside voi.arterial"),
    ],
)
def test_the_deep_check_sees_voxels(
    make_cohort: Make, name: str, change: Callable[[np.ndarray], np.ndarray], expected: str
) -> None:
    made = make_cohort()
    rewrite(made, name, change)
    steps: list[tuple[int, int]] = []
    found = check_files(read_cohort(made.root), lambda done, total: steps.append((done, total)))
    assert any(fault.startswith(f"lesion L1: {expected}") for fault in found), found
    assert all(fault.startswith("lesion L1: ") for fault in found)
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_the_deep_check_opens_every_file(make_cohort: Make) -> None:
    made = make_cohort()
    path = made.root / made.find("L2").image["delayed"]
    path.write_bytes(path.read_bytes()[:-40])
    assert check_files(made)[0].startswith("lesion L2: image.delayed: the file is truncated")


@pytest.mark.parametrize(
    ("status", "filled", "expected"),
    [
        ("present", False, "the feature is present, its mask is empty"),
        ("absent", True, "the feature is absent, its mask holds 144 voxels"),
        ("present", True, None),
        ("absent", False, None),
        ("ignore", True, None),
    ],
)
def test_feature_masks_agree_with_labels(
    make_cohort: Make, status: str, filled: bool, expected: str | None
) -> None:
    def edit(file: CohortFile) -> None:
        lesion = file.validation[0]
        lesion.masks["washout"] = "w.nii.gz"
        lesion.features["washout"] = status  # type: ignore[assignment]

    made = make_cohort(edit)
    mask = read_nifti(made.root / made.find("L1").masks["lesion"])
    write_nifti(made.root / "w.nii.gz", Volume.make(mask.data * filled, mask.affine), np.uint8)
    wanted = [f"lesion L1: masks.washout: {expected}"] if expected else []
    assert check_files(read_cohort(made.root)) == wanted


def test_a_study_keeps_the_grid_of_each_phase(make_cohort: Make) -> None:
    made = make_cohort()
    lesion = made.find("L0")
    study = load_study(made, lesion)
    assert list(study.volumes) == made.file.phases
    assert study.volumes["delayed"].shape != study.volumes["arterial"].shape
    some = load_study(made, lesion, ["delayed", "arterial"])
    assert list(some.volumes) == ["delayed", "arterial"]
    mask = load_mask(made, lesion, "lesion", study)
    assert (mask.phase, int(mask.voxels.sum())) == ("arterial", 144)
    canonical = load_lesion(made, lesion, None, Preprocessing())
    assert canonical.voxels.shape == (3, 64, 64, 64)
    assert canonical.size_mm == (12.0, 12.0, 18.0)


def test_errors_while_loading_name_the_lesion(make_cohort: Make) -> None:
    made = make_cohort()
    lesion = made.find("L1")
    with pytest.raises(InputError) as caught:
        load_study(made, lesion, ["arterial", "t2"])
    assert caught.value.line.startswith("lesion L1: t2: missing phase")
    (made.root / lesion.image["arterial"]).write_bytes(b"gone")
    with pytest.raises(InputError) as caught:
        load_lesion(made, lesion, None, Preprocessing())
    assert caught.value.line.startswith("lesion L1: image.arterial: not a NIfTI file")
    with pytest.raises(InputError) as caught:
        load_mask(made, lesion, "washout", load_study(made, made.find("L0")))
    assert caught.value.code == "missing_mask"
