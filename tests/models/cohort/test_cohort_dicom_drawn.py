"""SEG (as highdicom writes it) and RTSTRUCT, as masks on a series' grid."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from pydicom.data import get_testdata_file
from scipy import ndimage

from models.cohort import dicom_rtstruct, dicom_seg
from models.cohort.dicom import read_series
from models.cohort.dicom_tree import find_studies
from models.cohort.dicom_write import StudyMeta, write_study
from models.cohort.importers.dicom_regions import sort_regions
from models.errors import InputError
from models.volume import Volume
from tests.support.dicom_drawings import slices, write_rtstruct, write_seg

META = StudyMeta(patient_id="P1", study_id="S1", synthetic=True)
SHAPE = (14, 12, 6)


def affine(mirror: bool = False, tilt: float = 0.0) -> np.ndarray:
    turned = np.eye(4)
    turned[:3, :3] = np.array(
        [[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]]
    ) @ np.diag([-0.9, -1.1, -3 if mirror else 3])
    turned[:3, 3] = (-20, 30, 5)
    return turned


def study(folder: Path, matrix: np.ndarray | None = None, shape: tuple = SHAPE) -> Path:
    data = np.random.default_rng(0).integers(0, 900, size=shape)
    volume = Volume.make(data, affine() if matrix is None else matrix)
    return write_study(folder, {"arterial": volume}, META)[0]


def blob(shape: tuple = SHAPE, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, (2, 2, 1)) > 0.03


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize(("mirror", "tilt"), [(False, 0.0), (True, 0.0), (False, 0.4)])
def test_a_segment_is_the_mask_it_was_made_of(
    tmp_path: Path, kind: str, mirror: bool, tilt: float
) -> None:
    series = study(tmp_path / "s", affine(mirror, tilt))
    first, second = blob(seed=1), np.zeros(SHAPE, bool)
    second[3:6, 2:5, 2] = True
    first &= ~second
    write_seg(tmp_path / "seg.dcm", series, {"HCC 1": first, "Washout": second}, kind=kind)
    volume = read_series(series)
    found = dicom_seg.regions(tmp_path / "seg.dcm")
    assert [(r.number, r.label) for r in found] == [(1, "HCC 1"), (2, "Washout")]
    assert {r.series for r in found} == {slices(series)[0].SeriesInstanceUID}
    for region, mask in zip(found, (first, second), strict=True):
        np.testing.assert_array_equal(dicom_seg.mask(region.path, region.number, volume), mask)


def test_a_fraction_of_one_half_is_inside(tmp_path: Path) -> None:
    series = study(tmp_path / "s")
    fractions = np.zeros(SHAPE)
    fractions[2, 2, 2], fractions[3, 2, 2], fractions[4, 2, 2] = 0.4, 0.6, 1
    write_seg(tmp_path / "seg.dcm", series, {"HCC": fractions}, kind="FRACTIONAL")
    found = dicom_seg.mask(tmp_path / "seg.dcm", 1, read_series(series))
    assert np.argwhere(found).tolist() == [[3, 2, 2], [4, 2, 2]]


def test_on_a_finer_grid_the_segment_keeps_its_place_and_size(tmp_path: Path) -> None:
    coarse = study(tmp_path / "a")
    mask = np.zeros(SHAPE, bool)
    mask[4:9, 3:8, 1:5] = True
    write_seg(tmp_path / "seg.dcm", coarse, {"HCC": mask})
    matrix = affine()
    matrix[:3, :3] /= 2
    matrix[:3, 3] -= affine()[:3, :3] @ [0.25, 0.25, 0.25]
    fine = read_series(study(tmp_path / "b", matrix, tuple(2 * n for n in SHAPE)))
    found = dicom_seg.mask(tmp_path / "seg.dcm", 1, fine)
    home = read_series(coarse)
    expected = home.world(np.argwhere(mask).mean(axis=0))
    np.testing.assert_allclose(fine.world(np.argwhere(found).mean(axis=0)), expected, atol=0.3)
    assert found.sum() * 0.125 == pytest.approx(mask.sum(), rel=0.25)


def test_an_empty_slice_between_drawn_ones_stays_empty(tmp_path: Path) -> None:
    series = study(tmp_path / "s")
    mask = np.zeros(SHAPE, bool)
    mask[4:9, 3:8, [1, 4]] = True
    write_seg(tmp_path / "seg.dcm", series, {"HCC": mask})
    found = dicom_seg.mask(tmp_path / "seg.dcm", 1, read_series(series))
    np.testing.assert_array_equal(found, mask)


def test_a_segment_of_another_place_is_refused(tmp_path: Path) -> None:
    series = study(tmp_path / "s")
    write_seg(tmp_path / "seg.dcm", series, {"HCC": blob()})
    far = affine()
    far[:3, 3] += 500
    with pytest.raises(InputError, match="outside of the series"):
        dicom_seg.mask(tmp_path / "seg.dcm", 1, read_series(study(tmp_path / "far", far)))


def test_a_number_that_is_not_there_is_an_empty_mask(tmp_path: Path) -> None:
    series = study(tmp_path / "s")
    write_seg(tmp_path / "seg.dcm", series, {"HCC": blob()})
    assert not dicom_seg.mask(tmp_path / "seg.dcm", 7, read_series(series)).any()


def test_a_cut_segmentation_is_one_line(tmp_path: Path) -> None:
    series = study(tmp_path / "s")
    write_seg(tmp_path / "seg.dcm", series, {"HCC": blob()})
    volume = read_series(series)
    whole = (tmp_path / "seg.dcm").read_bytes()
    for cut in range(200, len(whole) - 1, 397):
        (tmp_path / "cut.dcm").write_bytes(whole[:cut])
        with pytest.raises(InputError) as caught:
            dicom_seg.mask(tmp_path / "cut.dcm", 1, volume)
        assert caught.value.code == "truncated"
        assert "\n" not in caught.value.line


Written = tuple[Path, bytes, ModuleType, Volume]


@pytest.fixture(scope="module", params=["seg", "rtstruct"])
def written(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Written:
    folder = tmp_path_factory.mktemp("written")
    series = study(folder / "s")
    volume, path = read_series(series), folder / "whole.dcm"
    if request.param == "seg":
        write_seg(path, series, {"HCC": blob()})
    else:
        write_rtstruct(path, series, {"GTV": [square(volume, 1.5, 8.5, 2)]})
    reader = dicom_seg if request.param == "seg" else dicom_rtstruct
    return folder / "flipped.dcm", path.read_bytes(), reader, volume


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 10**6), value=st.integers(1, 255))
def test_any_byte_may_be_wrong(written: Written, place: int, value: int) -> None:
    """A mask or one clear line, whatever a disk or a stranger did to the file."""
    path, raw, reader, volume = written
    spoilt = bytearray(raw)
    spoilt[place % len(raw)] ^= value
    path.write_bytes(spoilt)
    refused = ""
    try:
        for region in reader.regions(path):
            assert reader.mask(path, region.number, volume).shape == volume.shape
    except InputError as error:
        refused = error.line
    assert "\n" not in refused


def real(name: str) -> Path:
    """A file of pydicom's own test data, with the larger ones of pydicom-data."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), "install pydicom-data (extra 'dev')"
    return Path(path)


def test_a_segmentation_that_others_wrote(tmp_path: Path) -> None:
    """The liver of a public CT (3D-IRCADb), three slices, as pydicom's test data hold it."""
    path = real("liver.dcm")
    (found,) = dicom_seg.regions(path)
    assert (found.label, sort_regions([found]).lesions) == ("Liver", ())
    ds = pydicom.dcmread(path)
    first = ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    matrix = np.diag([-0.810547, -0.810547, 1, 1])
    matrix[:3, 3] = np.array(first, float) * [-1, -1, 1] - [0, 0, 4]
    grid = Volume.make(np.zeros((ds.Columns, ds.Rows, 9)), matrix)
    mask = dicom_seg.mask(path, 1, grid)
    np.testing.assert_array_equal(mask[:, :, 4:7], ds.pixel_array.transpose(2, 1, 0) > 0)
    assert mask.sum() == ds.pixel_array.sum()


def test_a_structure_set_that_others_wrote() -> None:
    (found,) = dicom_rtstruct.regions(real("rtstruct.dcm"))  # its isocentres are points
    assert found.label == "patient"
    assert sort_regions([found]).lesions == ()


# --- RT structure sets ----------------------------------------------------------------------------


def square(volume: Volume, low: float, high: float, plane: int) -> np.ndarray:
    corners = [[low, low], [high, low], [high, high], [low, high]]
    index = np.array([[x, y, plane] for x, y in corners], float)
    return volume.world(index) * [-1, -1, 1]


def test_contours_fill_the_voxels_whose_centres_they_hold(tmp_path: Path) -> None:
    series = study(tmp_path / "s")
    volume = read_series(series)
    closed = [square(volume, 1.5, 8.5, 2), square(volume, 3.5, 5.5, 2), square(volume, 1.5, 4.5, 3)]
    write_rtstruct(tmp_path / "rt.dcm", series, {"GTV": closed, "Liver": closed[:1]})
    found = dicom_rtstruct.regions(tmp_path / "rt.dcm")
    assert [(r.number, r.label) for r in found] == [(1, "GTV"), (2, "Liver")]
    assert found[0].series == slices(series)[0].SeriesInstanceUID
    expected = np.zeros(SHAPE, bool)
    expected[2:9, 2:9, 2] = True
    expected[4:6, 4:6, 2] = False
    expected[2:5, 2:5, 3] = True
    np.testing.assert_array_equal(dicom_rtstruct.mask(found[0].path, 1, volume), expected)


def test_a_contour_between_slices_is_refused(tmp_path: Path) -> None:
    series = study(tmp_path / "s")
    volume = read_series(series)
    points = square(volume, 1.5, 4.5, 2) + np.array([0, 0, 1.4])
    write_rtstruct(tmp_path / "rt.dcm", series, {"GTV": [points]})
    with pytest.raises(InputError, match="does not lie in a slice"):
        dicom_rtstruct.mask(tmp_path / "rt.dcm", 1, volume)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-3, 14), st.floats(-3, 12)), min_size=3, max_size=3),
)
def test_filling_agrees_with_matplotlib_away_from_the_outline(
    corners: list[tuple[float, float]],
) -> None:
    """A triangle, where the even-odd and the winding rule are one."""
    points = np.array(corners)
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(10), indexing="ij"), -1).reshape(-1, 2)
    ends = np.roll(points, -1, axis=0) - points
    lengths = np.maximum((ends**2).sum(axis=1), 1e-12)
    along = np.clip(((grid[:, None] - points) * ends).sum(-1) / lengths, 0, 1)
    apart = np.linalg.norm(grid[:, None] - points - along[..., None] * ends, axis=-1).min(axis=1)
    clear = apart > 1e-6
    theirs = Outline(points).contains_points(grid)
    ours = dicom_rtstruct.inside(points, (12, 10)).ravel()
    np.testing.assert_array_equal(ours[clear], theirs[clear])


# --- Trees ----------------------------------------------------------------------------------------


def test_studies_are_told_apart_wherever_their_files_lie(tmp_path: Path) -> None:
    for name in ("one", "two"):
        volume = Volume.make(np.arange(24).reshape(2, 3, 4), affine())
        meta = StudyMeta(patient_id=name, study_id=name, synthetic=True)
        write_study(tmp_path / "export", {"arterial": volume}, meta)
        for path in (tmp_path / "export" / "001_arterial").glob("IM*.dcm"):
            path.rename(path.with_name(f"{name}-{path.name}"))
    (tmp_path / "export" / "notes.txt").write_text("not DICOM")
    found = find_studies(tmp_path)
    assert sorted((s.patient, len(s.images), s.modality) for s in found) == [
        ("one", 4, "MR"), ("two", 4, "MR"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="no DICOM images"):
        find_studies(tmp_path / "export" / "notes.txt")


def test_what_was_drawn_belongs_to_its_study(tmp_path: Path) -> None:
    series = study(tmp_path / "s" / "images")
    write_seg(tmp_path / "elsewhere.dcm", series, {"HCC": blob()})
    (found,) = find_studies(tmp_path)
    assert found.drawn == (tmp_path / "elsewhere.dcm",)
    assert found.folder == series
    assert all(pydicom.dcmread(p).Modality == "MR" for p in found.images)
