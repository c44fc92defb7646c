from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.cohort.nifti import nifti_bytes, read_nifti, write_nifti
from models.errors import InputError, TooLarge
from models.volume import Volume


def volume(shape: tuple[int, ...] = (5, 6, 7), seed: int = 0) -> Volume:
    data = np.random.default_rng(seed).normal(size=shape)
    return Volume.make(
        data, np.array([[1.1, 0.1, 0, 3], [0, -2, 0, 4], [0, 0, 3, 5], [0, 0, 0, 1]])
    )


def raw() -> bytearray:
    return bytearray(gzip.decompress(nifti_bytes(volume())))


affines = st.builds(
    lambda m, t: np.block([[m, t[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]),
    hnp.arrays(np.float32, (3, 3), elements=st.floats(-4, 4, width=32)).filter(
        lambda m: abs(np.linalg.det(m.astype(float))) > 1e-3
    ),
    hnp.arrays(np.float32, (3,), elements=st.floats(-500, 500, width=32)),
)
finite = st.floats(-(2.0**100), 2.0**100, width=32)
arrays = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=finite
)


@settings(max_examples=60, deadline=None)
@given(arrays, affines)
def test_a_volume_is_the_same_after_a_round_trip(data: np.ndarray, affine: np.ndarray) -> None:
    before = Volume.make(data, affine)
    after = read_nifti(nifti_bytes(before))
    np.testing.assert_array_equal(after.data, before.data)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert nifti_bytes(after) == nifti_bytes(before)


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "misnamed.bin"])
def test_content_decides_not_the_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_nifti(path, volume())
    if name == "misnamed.bin":
        path.write_bytes(nifti_bytes(volume()))
    np.testing.assert_array_equal(read_nifti(path).data, volume().data)
    np.testing.assert_array_equal(read_nifti(path.read_bytes()).data, volume().data)


def test_scale_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "scaled.nii")
    patched = bytearray((tmp_path / "scaled.nii").read_bytes())
    struct.pack_into("<2f", patched, 112, 0.5, -3)
    expected = np.frombuffer(bytes(patched)[352:], "<i2").reshape(2, 3, 4, order="F") * 0.5 - 3
    np.testing.assert_allclose(read_nifti(bytes(patched)).data, expected)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders(kind: type, order: str) -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.float32)
    got = read_nifti(kind(data, np.diag([2, 3, 4, 1]), header).to_bytes())
    np.testing.assert_array_equal(got.data, data)
    np.testing.assert_array_equal(got.spacing, [2, 3, 4])


def test_metres_become_millimetres() -> None:
    body = raw()
    body[123] = 1
    np.testing.assert_allclose(read_nifti(bytes(body)).affine[:3], volume().affine[:3] * 1000)


def test_integers_are_rounded_and_must_fit(tmp_path: Path) -> None:
    write_nifti(tmp_path / "m.nii.gz", Volume.make(np.full((2, 2, 2), 2.6), np.eye(4)), np.uint8)
    assert (read_nifti(tmp_path / "m.nii.gz").data == 3).all()
    with pytest.raises(InputError, match="do not fit in uint8"):
        write_nifti(tmp_path / "m.nii", Volume.make(np.full((2, 2, 2), 300), np.eye(4)), np.uint8)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_a_cut_file_is_refused_wherever_it_was_cut(cut: int, packed: bool) -> None:
    whole = nifti_bytes(volume()) if packed else bytes(raw())
    short = whole[: cut % len(whole)]
    with pytest.raises(InputError) as caught:
        read_nifti(short, field="arterial")
    assert caught.value.code in ("truncated", "not_nifti")
    assert caught.value.field == "arterial"
    assert "\n" not in caught.value.line


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 351), st.integers(0, 255), st.integers(0, 351), st.integers(0, 255))
def test_a_damaged_header_gives_a_volume_or_one_line(a: int, x: int, b: int, y: int) -> None:
    body = raw()
    body[a], body[b] = x, y
    try:
        got = read_nifti(bytes(body), max_bytes=10_000_000)
    except InputError as error:
        assert "\n" not in error.line  # noqa: PT017 - both outcomes are right
    else:
        assert np.isfinite(got.data).all()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_noise_is_no_nifti(data: bytes) -> None:
    with pytest.raises(InputError):
        read_nifti(data)


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    body = raw()
    struct.pack_into("<4h", body, 40, 3, 1000, 1000, 500)
    bomb = gzip.compress(bytes(body[:352]) + bytes(30_000_000), 9)
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge) as caught:
            read_nifti(bomb, max_bytes=64 * 2**20)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.status == 413
    assert "1000 x 1000 x 500" in caught.value.line


def test_a_small_header_over_a_bomb_reads_only_what_it_promised() -> None:
    bomb = gzip.compress(bytes(raw()) + bytes(50_000_000), 9)
    tracemalloc.start()
    try:
        assert read_nifti(bomb, max_bytes=10_000).shape == (5, 6, 7)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_promise_that_no_compression_can_keep_is_refused_at_once() -> None:
    body = raw()
    struct.pack_into("<4h", body, 40, 3, 32000, 32000, 32000)
    with pytest.raises(InputError, match="truncated"):
        read_nifti(gzip.compress(bytes(body)))


@pytest.mark.parametrize(
    ("place", "layout", "values", "code"),
    [
        (40, "<4h", (3, 0, 6, 7), "wrong_shape"),
        (40, "<4h", (3, -5, 6, 7), "wrong_shape"),
        (40, "<h", (9,), "wrong_shape"),
        (40, "<5h", (4, 5, 6, 3, 2), "wrong_shape"),
        (70, "<h", (128,), "wrong_dtype"),
        (70, "<h", (32,), "wrong_dtype"),
        (108, "<f", (float("nan"),), "wrong_shape"),
        (352, "<f", (float("nan"),), "not_finite"),
        (280, "<4f", (0, 0, 0, 0), "wrong_affine"),
        (344, "4s", (b"ni1\0",), "not_nifti"),
    ],
)
def test_each_fault_has_its_code(place: int, layout: str, values: tuple, code: str) -> None:
    body = raw()
    struct.pack_into(layout, body, place, *values)
    with pytest.raises(InputError) as caught:
        read_nifti(bytes(body))
    assert caught.value.code == code


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.nii"):
        with pytest.raises(InputError, match="no such file") as caught:
            read_nifti(path)
        assert str(tmp_path.parent) not in caught.value.line


def test_dicom_is_called_by_its_name() -> None:
    with pytest.raises(InputError) as caught:
        read_nifti(bytes(128) + b"DICM" + bytes(500))
    assert "DICOM" in caught.value.line
