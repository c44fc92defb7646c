"""Many lesions in one body: what is packed comes back, and nothing else gets in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from models.errors import InputError, TooLarge
from models.voi import Lesion, Preprocessing
from services.common.lesion_stack import MOST, pack, unpack

PHASES = ("arterial", "portal_venous", "delayed")
SPEC = Preprocessing(lesion_voxels=8, base_voxels=8, tensor_voxels=4)


def make(seed: int, missing: tuple[str, ...] = ()) -> Lesion:
    rng = np.random.default_rng(seed)
    voxels = rng.normal(size=(3, 8, 8, 8)).astype(np.float32)
    voxels[[i for i, p in enumerate(PHASES) if p in missing]] = 0
    size = tuple(float(v) for v in np.round(rng.uniform(5, 50, 3), 4))
    return Lesion(voxels, PHASES, float(rng.uniform(0.2, 2)), size, 12, missing)  # type: ignore[arg-type]


def test_what_is_packed_comes_back_with_the_same_ids() -> None:
    lesions = [make(0), make(1, ("delayed",)), make(2)]
    found = unpack(pack(lesions), PHASES, ["delayed"], SPEC)
    assert [one.id for one in found] == [one.id for one in lesions]
    assert [one.missing for one in found] == [(), ("delayed",), ()]


def changed(**tensors: Any) -> bytes:
    return save(
        {k: v for k, v in (load(pack([make(0), make(1)])) | tensors).items() if v is not None}
    )


def voxels(change: Any) -> np.ndarray:
    there = load(pack([make(0), make(1)]))["voxels"].copy()
    change(there[1])
    return there


@pytest.mark.parametrize(
    ("tensors", "field"),
    [
        ({"voxels": None}, "voxels"),
        ({"more": np.zeros(1)}, "more"),
        ({"slices": np.zeros(2, np.float32)}, "slices"),
        ({"slices": np.array(3)}, "slices"),
        ({"slices": np.array([1, 0])}, "lesions[1].slices"),
        ({"voxels": np.ones((2, 3, 8, 8, 4), np.float32)}, "voxels"),
        ({"voxels": voxels(lambda v: v[0].fill(np.nan))}, "lesions[1].voxels"),
        ({"voxels": voxels(lambda v: v.fill(3))}, "lesions[1].voxels"),
        ({"mm_per_voxel": np.array([1, -1.0])}, "lesions[1].mm_per_voxel"),
        ({"size_mm": np.array([[1, 1, 1], [1, np.inf, 1.0]])}, "lesions[1].size_mm"),
        ({"missing": np.array([[0, 0, 0], [1, 0, 0]], np.uint8)}, "lesions[1].missing"),
        ({"missing": np.array([[0, 0, 0], [0, 0, 1]], np.uint8)}, "lesions[1].voxels"),
        ({k: v[:0] for k, v in load(pack([make(0)])).items()}, "voxels"),
    ],
)
def test_every_fault_is_named(tensors: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as refused:
        unpack(changed(**tensors), PHASES, ["delayed"], SPEC)
    assert refused.value.field == field
    assert refused.value.status == 422


def test_too_many_are_refused() -> None:
    with pytest.raises(TooLarge):
        unpack(pack([replace(make(0), slices=i + 1) for i in range(MOST + 1)]), PHASES, [], SPEC)


@given(st.binary(max_size=200) | st.integers(0, 400).map(lambda n: pack([make(0)])[:n]))
@settings(max_examples=60, deadline=None)
def test_any_other_body_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(InputError):
        unpack(body, PHASES, [], SPEC)
