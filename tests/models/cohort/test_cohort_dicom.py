"""DICOM in and out, on written series and on the real files of PyPI pydicom-data."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from models.cohort.dicom import read_phases, read_series
from models.cohort.dicom_write import StudyMeta, write_study
from models.cohort.nifti import nifti_bytes, read_nifti
from models.errors import InputError, TooLarge
from models.volume import Box, Volume

PHASES = ["arterial", "portal_venous", "delayed"]
META = StudyMeta(patient_id="P1", study_id="S1", synthetic=True)
Edit = Callable[[pydicom.Dataset], object]


def real(name: str) -> Path:
    """A file of PyPI pydicom-data, which the tests depend on."""
    spec = importlib.util.find_spec("data_store")
    assert spec, "install pydicom-data (extra 'dev')"
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "data" / name


LIVER_SLICE = "MR-SIEMENS-DICOM-WithOverlays.dcm"


def volume(shape: tuple[int, int, int] = (6, 5, 4), seed: int = 0) -> Volume:
    data = np.random.default_rng(seed).integers(0, 900, size=shape)
    affine = np.array([[0.9, 0, 0, -20], [0, 1.1, 0, 30], [0, 0, 3, 5], [0, 0, 0, 1]])
    return Volume.make(data, affine)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three series, told apart by their times."""
    write_study(tmp_path / "s", {p: volume(seed=i) for i, p in enumerate(PHASES)}, META)
    return tmp_path / "s"


def edit(folder: Path, change: Edit) -> None:
    for path in sorted(folder.rglob("*.dcm")):
        ds = pydicom.dcmread(path)
        change(ds)
        ds.save_as(path)


def refused(call: Callable[[], object], code: str) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.code == code
    assert "\n" not in caught.value.line
    assert "Traceback" not in caught.value.line
    return caught.value.line


# --- Round trip -----------------------------------------------------------------------------------

geometry = st.builds(
    lambda angles, spacing, origin, mirror: np.block(
        [
            [
                Rotation.from_euler("xyz", angles).as_matrix()
                @ np.diag(np.array(spacing) * [1, 1, -1 if mirror else 1]),
                np.array(origin)[:, None],
            ],
            [np.zeros((1, 3)), np.ones((1, 1))],
        ]
    ),
    st.tuples(*[st.floats(-3, 3)] * 3),
    st.tuples(*[st.floats(0.3, 5)] * 3),
    st.tuples(*[st.floats(-200, 200)] * 3),
    st.booleans(),
)
intensities = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=4),
    elements=st.floats(-4096, 4096, width=32),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=intensities, affine=geometry)
def test_dicom_holds_the_same_voxels_at_the_same_place(
    tmp_path: Path, data: np.ndarray, affine: np.ndarray
) -> None:
    before = Volume.make(data, affine)
    folder = tmp_path / "s"
    shutil.rmtree(folder, ignore_errors=True)
    write_study(folder, {"arterial": before}, META)
    after = read_series(folder)
    expected = before.data if np.linalg.det(affine) > 0 else before.data[:, :, ::-1]
    step = float(np.ptp(before.data)) / 65535
    np.testing.assert_allclose(after.data, expected, atol=0.51 * step + 1e-3 * step + 1e-6)
    corner = np.array([0, 0, 0 if np.linalg.det(affine) > 0 else before.shape[2] - 1])
    np.testing.assert_allclose(after.world(np.zeros(3)), before.world(corner), atol=2e-3)
    if before.shape[2] > 1:
        sign = 1 if np.linalg.det(affine) > 0 else -1
        np.testing.assert_allclose(
            after.affine[:3, :3], before.affine[:3, :3] * [1, 1, sign], atol=1e-3
        )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lower=st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2)),
    size=st.tuples(*[st.integers(1, 2)] * 3),
)
def test_a_box_means_the_same_voxels_in_nifti_and_dicom(
    tmp_path: Path, lower: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    source = volume((6, 5, 4))
    folder = tmp_path / "s"
    if not folder.exists():
        write_study(folder, {"arterial": source}, META)
    one, other = read_nifti(nifti_bytes(source)), read_series(folder)
    box = Box.make([lower, [a + b for a, b in zip(lower, size, strict=True)]])
    cut = tuple(slice(a, b) for a, b in zip(box.lower, box.upper, strict=True))
    np.testing.assert_array_equal(one.data[cut], other.data[cut])
    np.testing.assert_allclose(one.world(box.centre), other.world(box.centre), atol=1e-3)


def test_whole_numbers_are_kept_exactly(study: Path) -> None:
    for i, (phase, got) in enumerate(read_phases(study, PHASES).items()):
        assert phase == PHASES[i]
        np.testing.assert_array_equal(got.data, volume(seed=i).data)
        np.testing.assert_allclose(got.affine, volume().affine, atol=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "rescaled"), [(0, 65535, False), (-9, 900, False), (-9, 65535, True)]
)
def test_rescaling_is_used_only_where_16_bits_do_not_do(
    tmp_path: Path, low: int, high: int, rescaled: bool
) -> None:
    source = Volume.make(np.linspace(low, high, 8).round().reshape(2, 2, 2), np.eye(4))
    write_study(tmp_path, {"arterial": source}, META)
    assert ("RescaleSlope" in pydicom.dcmread(next(tmp_path.rglob("*.dcm")))) is rescaled
    np.testing.assert_allclose(read_series(tmp_path).data, source.data, atol=0.51 * rescaled)


def test_a_constant_volume_survives(tmp_path: Path) -> None:
    flat = Volume.make(np.full((2, 2, 2), 0.3), np.eye(4))
    write_study(tmp_path, {"arterial": flat}, META)
    np.testing.assert_allclose(read_series(tmp_path).data, 0.3, rtol=1e-6)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_study(tmp_path / name, {"arterial": volume()}, META)
    for path in (tmp_path / "a").rglob("*.dcm"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_synthetic_is_said_where_a_person_sees_it(study: Path) -> None:
    ds = pydicom.dcmread(next(study.rglob("*.dcm")))
    assert "SYNTHETIC" in ds.SeriesDescription
    assert "SYNTHETIC" in ds.StudyDescription
    assert "SYNTHETIC" in str(ds.PatientName)
    assert ds.ImageType[0] == "DERIVED"


def test_shear_in_the_plane_cannot_be_written(tmp_path: Path) -> None:
    sheared = Volume.make(np.ones((2, 2, 2)), np.array(
        [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))  # fmt: skip
    refused(lambda: write_study(tmp_path, {"arterial": sheared}, META), "wrong_affine")
    refused(lambda: write_study(tmp_path, {"t2": volume()}, META), "missing_delay")


# --- One series -----------------------------------------------------------------------------------


def test_slices_are_sorted_by_position_whatever_their_names(study: Path) -> None:
    folder = study / "001_arterial"
    for i, path in enumerate(sorted(folder.glob("*.dcm"), reverse=True)):
        ds = pydicom.dcmread(path)
        ds.InstanceNumber = 100 - i
        ds.save_as(folder / f"{i:02}.x")
        path.unlink()
    np.testing.assert_array_equal(read_series(folder).data, volume().data)


def test_columns_come_first_and_lps_becomes_ras(tmp_path: Path) -> None:
    source = volume((6, 5, 4))
    write_study(tmp_path, {"arterial": source}, META)
    path = tmp_path / "001_arterial" / "IM0001.dcm"
    ds = pydicom.dcmread(path)
    assert (ds.Columns, ds.Rows) == (6, 5)
    np.testing.assert_allclose([float(v) for v in ds.ImagePositionPatient], [20, -30, 5])
    one = read_series(path)
    assert one.shape == (6, 5, 1)
    np.testing.assert_array_equal(one.data[:, :, 0], ds.pixel_array.T)


def test_other_files_in_the_folder_are_passed_over(study: Path) -> None:
    folder = study / "001_arterial"
    (folder / "notes.txt").write_text("read me")
    (folder / ".DS_Store").write_bytes(bytes(4096))
    assert read_series(folder).shape == (6, 5, 4)


def test_two_series_are_not_one(study: Path) -> None:
    line = refused(lambda: read_series(study, field="arterial"), "ambiguous_series")
    assert line.startswith("arterial: not one series; found series 1 'SYNTHETIC arterial'")


def test_a_missing_slice_is_noticed(study: Path) -> None:
    folder = study / "001_arterial"
    (folder / "IM0002.dcm").unlink()
    assert "3.00 to 6.00 mm" in refused(lambda: read_series(folder), "uneven_slices")


def test_a_limit_holds_before_pixels_are_read(study: Path) -> None:
    with pytest.raises(TooLarge):
        read_series(study / "001_arterial", max_bytes=100)


def test_cut_anywhere_it_is_one_line(tmp_path: Path) -> None:
    write_study(tmp_path / "s", {"arterial": volume()}, META)
    whole = (tmp_path / "s/001_arterial/IM0001.dcm").read_bytes()
    short = tmp_path / "cut.dcm"
    for cut in [*range(0, len(whole), 29), len(whole) - 1]:
        short.write_bytes(whole[:cut])
        with pytest.raises(InputError) as caught:
            read_series(short)
        assert caught.value.code in ("truncated", "not_dicom", "not_an_image", "no_geometry")
        assert "\n" not in caught.value.line


def test_a_cut_slice_in_a_folder_is_named(study: Path) -> None:
    path = study / "001_arterial" / "IM0003.dcm"
    path.write_bytes(path.read_bytes()[:-5])
    assert "IM0003.dcm" in refused(lambda: read_phases(study, PHASES), "truncated")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda ds: setattr(ds, "NumberOfFrames", 7), "unsupported_multiframe"),
        (lambda ds: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"), "wrong_dtype"),
        (lambda ds: setattr(ds, "Modality", "RTDOSE"), "wrong_modality"),
        (lambda ds: delattr(ds, "ImagePositionPatient"), "no_geometry"),
        (lambda ds: delattr(ds, "PixelData"), "truncated"),
        (lambda ds: delattr(ds, "Rows"), "not_an_image"),
        (lambda ds: setattr(ds, "ImageOrientationPatient", [0, 0, 0, 0, 0, 0]), "wrong_affine"),
        (lambda ds: setattr(ds, "Rows", 60000), "truncated"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, change: Edit, code: str) -> None:
    write_study(tmp_path, {"arterial": volume((6, 5, 1))}, META)
    edit(tmp_path, change)
    refused(lambda: read_series(tmp_path / "001_arterial/IM0001.dcm"), code)


def test_no_such_file_and_no_dicom(tmp_path: Path) -> None:
    refused(lambda: read_series(tmp_path / "x"), "not_found")
    refused(lambda: read_series(tmp_path), "not_dicom")
    (tmp_path / "x").write_text("hello")
    refused(lambda: read_series(tmp_path / "x"), "not_dicom")


def test_without_pydicom_the_line_says_what_to_install(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    line = refused(lambda: read_series(study), "missing_package")
    assert "pip install 'lesionlens[dicom]'" in line


# --- Real files -----------------------------------------------------------------------------------


def test_the_real_liver_slice_is_a_volume() -> None:
    got = read_series(real(LIVER_SLICE))
    assert got.shape == (484, 484, 1)
    np.testing.assert_allclose(got.spacing, [0.7231405, 0.7231405, 4], rtol=1e-5)
    np.testing.assert_allclose(got.affine[:3, 3], [159.825655, 175.322024, 28.426151], rtol=1e-5)
    # The mass near row 230, column 145 has a rim brighter than its core.
    rows, columns = np.ogrid[:484, :484]
    radius = np.hypot(rows - 230, columns - 145).T * 0.7231405
    plane = got.data[:, :, 0]
    assert plane[radius < 8].mean() < plane[(radius > 14) & (radius < 22)].mean()


def test_the_real_liver_slice_is_no_study(tmp_path: Path) -> None:
    shutil.copy(real(LIVER_SLICE), tmp_path)
    line = refused(lambda: read_phases(tmp_path, PHASES), "missing_phase")
    assert line.startswith(
        "dicom: missing phases: arterial, portal venous, delayed; found 1 series"
    )
    assert "series 18 'marked lesion<MPR Collection>' (1 slice)" in line


def test_every_real_file_is_read_or_refused_in_one_line() -> None:
    """Compressed, deflated, colour, multi-frame, damaged: files that once broke a reader."""
    own = Path(pydicom.__file__).parent / "data/test_files"
    files = [*sorted(real("").glob("*.dcm")), *sorted(own.glob("*.dcm"))]
    assert len(files) > 100
    codes, lines = set(), {}
    for path in files:
        try:
            codes.add(read_series(path, max_bytes=2**28).data.dtype.name)
        except InputError as error:
            lines[path.name] = error.line
            codes.add(error.code)
    assert [name for name, line in lines.items() if "\n" in line or len(line) > 400] == []
    assert {"float32", "unsupported_multiframe", "wrong_modality", "truncated"} <= codes


def test_one_image_is_the_same_in_every_transfer_syntax() -> None:
    folder = Path(pydicom.__file__).parent / "data/test_files"
    kinds = ("", "_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless", "_padded")
    volumes = [read_series(folder / f"MR_small{kind}.dcm") for kind in kinds]
    assert volumes[0].shape == (64, 64, 1)
    for got in volumes[1:]:
        np.testing.assert_array_equal(got.data, volumes[0].data)
        np.testing.assert_array_equal(got.affine, volumes[0].affine)


def test_a_compression_without_a_decoder_is_named() -> None:
    path = Path(pydicom.__file__).parent / "data/test_files/MR_small_jpeg_ls_lossless.dcm"
    if importlib.util.find_spec("pylibjpeg") or importlib.util.find_spec("jpeg_ls"):
        assert read_series(path).shape == (64, 64, 1)
    else:
        line = refused(lambda: read_series(path), "unsupported_transfer_syntax")
        assert "JPEG-LS Lossless" in line
