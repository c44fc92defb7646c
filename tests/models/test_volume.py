"""Volumes, boxes and studies: what is accepted, what is refused, and how a box is carried over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.volume import Box, Study, Volume

PHASES = ("arterial", "portal_venous", "delayed")
indices = st.integers(0, 40)


def volume(shape: tuple[int, int, int] = (20, 18, 10), spacing: float = 2.0) -> Volume:
    return Volume.make(np.ones(shape), np.diag([-spacing, -spacing, 2 * spacing, 1]))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (np.ones((4, 4)), "wrong_shape"),
        (np.ones((4, 4, 0)), "wrong_shape"),
        (np.ones((4, 4, 4, 2)), "wrong_shape"),
        (np.full((4, 4, 4), np.nan), "not_finite"),
        (np.full((4, 4, 4), np.inf), "not_finite"),
        (np.ones((4, 4, 4), dtype=complex), "wrong_dtype"),
    ],
)
def test_a_volume_that_cannot_be_used_is_refused_by_name(data: np.ndarray, code: str) -> None:
    with pytest.raises(InputError) as refused:
        Volume.make(data, np.eye(4), field="arterial")
    assert refused.value.code == code
    assert refused.value.line.startswith("arterial: ")


def test_an_affine_that_flattens_space_is_refused() -> None:
    with pytest.raises(InputError, match="affine"):
        Volume.make(np.ones((3, 3, 3)), np.diag([1.0, 1.0, 0.0, 1.0]))


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_world_and_index_undo_each_other(point: list[float]) -> None:
    v = volume()
    np.testing.assert_allclose(v.world(v.index(np.array(point))), point, atol=1e-6)


@given(st.tuples(indices, indices, indices), st.tuples(*[st.integers(1, 9)] * 3))
def test_a_box_is_read_back_from_every_way_of_writing_it(
    low: tuple[int, int, int], edges: tuple[int, int, int]
) -> None:
    high = [a + b for a, b in zip(low, edges, strict=True)]
    box = Box.make([list(low), high])
    flat = [*low, *high]
    assert Box.parse(",".join(map(str, flat))) == box
    assert Box.parse(str(box.as_list())) == box
    assert Box.make(flat) == box
    assert tuple(box.edges) == edges


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d,e,f", "0,0,0,1.5,2,2", "5,0,0,5,2,2"])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(InputError) as refused:
        Box.parse(text)
    assert refused.value.code == "wrong_box"


def test_a_box_that_reaches_outside_names_both() -> None:
    with pytest.raises(InputError) as refused:
        Study.make({p: volume() for p in PHASES}, Box.make([[0, 0, 0], [21, 2, 2]]), PHASES)
    assert refused.value.code == "box_outside"
    assert "[20, 18, 10]" in refused.value.line


def test_missing_phases_are_named() -> None:
    with pytest.raises(InputError) as refused:
        Study.make({"arterial": volume()}, Box.make([[0, 0, 0], [2, 2, 2]]), PHASES)
    assert "portal_venous, delayed" in refused.value.line


def test_one_box_is_carried_in_millimetres_to_a_finer_grid() -> None:
    coarse, fine = volume((20, 20, 10), 2.0), volume((40, 40, 20), 1.0)
    # Grids that begin at the same corner: voxel centres are half an edge apart.
    shifted = fine.affine.copy()
    corner = np.full(3, -0.5)
    shifted[:3, 3] = coarse.affine[:3, :3] @ corner - fine.affine[:3, :3] @ corner
    fine = Volume.make(fine.data, shifted)
    box = Box.make([[4, 6, 2], [10, 9, 5]])
    study = Study.make({"arterial": coarse, "portal_venous": fine}, box, PHASES[:2])
    assert study.boxes["portal_venous"].as_list() == [[8, 12, 4], [20, 18, 10]]
    np.testing.assert_allclose(study.centre_mm("arterial"), study.centre_mm("portal_venous"))
    np.testing.assert_allclose(study.size_mm(), [12, 6, 12])


def test_a_box_a_phase_is_kept() -> None:
    boxes = {p: Box.make([[i, 0, 0], [i + 4, 4, 4]]) for i, p in enumerate(PHASES)}
    assert Study.make({p: volume() for p in PHASES}, boxes, PHASES).boxes == boxes
    del boxes["delayed"]
    with pytest.raises(InputError, match="missing") as refused:
        Study.make({p: volume() for p in PHASES}, boxes, PHASES)
    assert refused.value.field == "box.delayed"


BOX = Box.make([[2, 2, 2], [8, 8, 6]])


def test_an_optional_phase_may_be_missing_and_is_remembered() -> None:
    given = {p: volume() for p in ("delayed", "arterial")}
    study = Study.make(given, BOX, PHASES, optional=PHASES[1:])
    assert list(study.volumes) == list(study.boxes) == ["arterial", "delayed"]
    assert study.phases == PHASES
    assert study.missing == ("portal_venous",)
    assert Study.make({p: volume() for p in PHASES}, BOX, PHASES, PHASES[1:]).missing == ()


def test_one_box_is_meant_on_the_first_phase_given() -> None:
    fine = volume((40, 36, 20), 1.0)
    study = Study.make({"portal_venous": fine, "delayed": volume()}, BOX, PHASES, PHASES)
    assert study.boxes["portal_venous"] == BOX
    assert study.boxes["delayed"] != BOX


@pytest.mark.parametrize(
    ("given", "optional", "field", "words"),
    [
        (["arterial", "portal_venous"], (), "delayed", "not trained with phase dropout"),
        (["portal_venous"], PHASES[1:], "arterial", "expected arterial; only portal_venous, del"),
        (["arterial"], ("delayed",), "portal_venous", "expected arterial, portal_venous; only del"),
        ([], PHASES, "arterial", "missing phases: arterial, portal_venous, delayed; found none"),
    ],
)
def test_any_other_phase_is_refused_by_name(
    given: list[str], optional: tuple[str, ...], field: str, words: str
) -> None:
    with pytest.raises(InputError) as refused:
        Study.make({p: volume() for p in given}, BOX, PHASES, optional)
    assert refused.value.code == "missing_phase"
    assert refused.value.field == field
    assert words in refused.value.line


def test_a_box_for_a_phase_that_is_missing_is_refused() -> None:
    with pytest.raises(InputError, match="a phase that is missing") as refused:
        Study.make({"arterial": volume()}, dict.fromkeys(PHASES, BOX), PHASES, PHASES[1:])
    assert refused.value.field == "box.portal_venous"
