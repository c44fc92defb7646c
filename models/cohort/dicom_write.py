"""DICOM out: the phases of one lesion as MR series of one study, for tests, demos and exchange.

    study/<series number>_<phase>/IM0001.dcm ...       classic MR Image Storage, one file a slice

Nothing here invents an identity: the caller gives the ids, and UIDs are hashes of them, so the
same study written twice has the same bytes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cohort.dicom_phase import phase_times
from models.cohort.dicom_slices import pydicom, quiet
from models.errors import InputError
from models.volume import Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_INJECTED = dt.datetime(2000, 1, 1, 12, 0, 0)  # any day: only the delay after it counts


@dataclass(frozen=True)
class StudyMeta:
    """What is written in the headers.

    seconds: phase -> start of its acquisition after the injection; the vocabulary's usual delay
    where it is left out. synthetic: says so in every description that a person sees.
    """

    patient_id: str
    study_id: str
    synthetic: bool
    description: str = "liver multi-phase"
    seconds: Mapping[str, float] = field(default_factory=dict)


def write_study(folder: Path, volumes: Mapping[str, Volume], meta: StudyMeta) -> list[Path]:
    """Write one MR series a phase; returns the series' folders in the order of `volumes`.

    Whole numbers within 16 bits are kept exactly; others are stored in 65,536 steps of the
    volume's own range (RescaleSlope), so a voxel comes back within half a step. Slices lie where
    the affine puts them. A reader sorts slices along row x column direction: for an affine with a
    positive determinant that is the array's own order, for a negative one the reverse.
    Raises InputError where columns and rows are not perpendicular, which DICOM cannot say.
    """
    pydicom()
    seconds = {p.id: p.seconds for p in phase_times(list(volumes))} | dict(meta.seconds)
    missing = [phase for phase in volumes if seconds.get(phase) is None]
    if missing:
        raise InputError(
            "no delay is known for the phase",
            code="missing_delay",
            field=f"seconds.{missing[0]}",
            expected="seconds after the injection",
        )
    folders = []
    for number, (phase, volume) in enumerate(volumes.items(), start=1):
        target = folder / f"{number:03}_{phase}"
        target.mkdir(parents=True, exist_ok=True)
        _write_series(target, number, phase, volume, float(seconds[phase] or 0), meta)
        folders.append(target)
    return folders


def _write_series(
    target: Path, number: int, phase: str, volume: Volume, seconds: float, meta: StudyMeta
) -> None:
    from pydicom.uid import generate_uid

    def uid(*parts: object) -> str:
        return str(generate_uid(entropy_srcs=["lesionlens", meta.study_id, *map(str, parts)]))

    stored = _Stored.of(volume.data)
    geometry = _Geometry.of(volume)
    low, high = (float(v) for v in np.percentile(volume.data, (1, 99)))
    window = _text((low + high) / 2), _text(max(high - low, 1e-3))  # one for the whole series
    said = f"{'SYNTHETIC ' if meta.synthetic else ''}{phase.replace('_', ' ')}"
    for k in range(volume.shape[2]):
        ds = _header(meta, seconds)
        ds.SOPInstanceUID = uid(phase, k)
        ds.StudyInstanceUID = uid("study")
        ds.SeriesInstanceUID = uid(phase)
        ds.FrameOfReferenceUID = uid("frame of reference")
        ds.SeriesNumber = number
        ds.InstanceNumber = k + 1
        ds.AcquisitionNumber = number
        ds.SeriesDescription = said
        ds.ImagePositionPatient = _ds(geometry.position(k))
        ds.ImageOrientationPatient = _ds(np.concatenate([geometry.row, geometry.column]))
        ds.PixelSpacing = _ds(np.array([geometry.edges[1], geometry.edges[0]]))
        ds.SliceThickness = ds.SpacingBetweenSlices = _ds(geometry.edges[2:])[0]
        if stored.slope is not None:
            ds.RescaleSlope, ds.RescaleIntercept = stored.slope, stored.intercept
            ds.RescaleType = "US"
        ds.WindowCenter, ds.WindowWidth = window
        _pixels(ds, stored.voxels[:, :, k].T)
        ds.file_meta = _file_meta(ds.SOPInstanceUID)
        with quiet():
            ds.save_as(target / f"IM{k + 1:04}.dcm", enforce_file_format=True)


def _header(meta: StudyMeta, seconds: float) -> Any:
    """What all slices of a series share: PS3.3 A.4, MR Image IOD, types 1 and 2."""
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = _MR_IMAGE
    # Synthetic voxels are computed, not measured; the header must not claim an acquisition.
    ds.ImageType = (
        ["DERIVED", "SECONDARY", "OTHER"] if meta.synthetic else ["ORIGINAL", "PRIMARY", "OTHER"]
    )
    taken = _INJECTED + dt.timedelta(seconds=seconds)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{_INJECTED:%Y%m%d}"
    ds.StudyTime = ds.ContrastBolusStartTime = f"{_INJECTED:%H%M%S.%f}"
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{taken:%H%M%S.%f}"
    ds.AccessionNumber = ""
    ds.Modality = "MR"
    ds.Manufacturer = "LesionLens phantom" if meta.synthetic else ""
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = f"{'SYNTHETIC ' if meta.synthetic else ''}{meta.description}"
    ds.PatientName = f"{'SYNTHETIC^' if meta.synthetic else ''}{meta.patient_id}"
    ds.PatientID = meta.patient_id
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.BodyPartExamined = "LIVER"
    ds.PatientPosition = "HFS"
    ds.StudyID = meta.study_id[:16]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "GR", "SP", ""
    ds.MRAcquisitionType = "3D"
    ds.EchoTime, ds.RepetitionTime, ds.FlipAngle, ds.EchoTrainLength = "2.0", "4.0", "10", 1
    ds.ContrastBolusAgent = "synthetic" if meta.synthetic else "extracellular agent"
    ds.PositionReferenceIndicator = ""
    return ds


def _pixels(ds: Any, image: NDArray[np.integer]) -> None:
    ds.Rows, ds.Columns = image.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, int(image.dtype.kind == "i")
    ds.PixelData = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<")).tobytes()


def _file_meta(instance: str) -> Any:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian

    header = FileMetaDataset()
    header.MediaStorageSOPClassUID = _MR_IMAGE
    header.MediaStorageSOPInstanceUID = instance
    header.TransferSyntaxUID = ExplicitVRLittleEndian
    header.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return header


@dataclass(frozen=True)
class _Stored:
    """Voxels as 16-bit integers; slope and intercept as the strings that a reader parses."""

    voxels: NDArray[np.integer]
    slope: str | None = None
    intercept: str | None = None

    @classmethod
    def of(cls, data: NDArray[np.float32]) -> _Stored:
        """Whole numbers as they are (the MR IOD knows no rescaling), others in 65,536 steps."""
        low, high = float(data.min()), float(data.max())
        if bool((data == np.rint(data)).all()):
            for kind in (np.uint16, np.int16):
                limits = np.iinfo(kind)
                if limits.min <= low and high <= limits.max:
                    return cls(data.astype(kind))
        intercept = _text(low)
        slope = _text((high - low) / 65535) if high > low else "1"
        steps = np.rint((data.astype(np.float64) - float(intercept)) / float(slope))
        return cls(np.clip(steps, 0, 65535).astype(np.uint16), slope, intercept)


def _text(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return str(format_number_as_ds(float(value)))


def _ds(values: NDArray) -> list[str]:
    return [_text(float(v)) for v in np.asarray(values, float).ravel()]


@dataclass(frozen=True)
class _Geometry:
    """An affine in DICOM's words. row: direction of growing columns; LPS, mm."""

    row: NDArray[np.float64]
    column: NDArray[np.float64]
    edges: NDArray[np.float64]
    step: NDArray[np.float64]
    origin: NDArray[np.float64]

    @classmethod
    def of(cls, volume: Volume) -> _Geometry:
        affine = _RAS_TO_LPS @ volume.affine
        edges = np.linalg.norm(affine[:3, :3], axis=0)
        row, column = affine[:3, 0] / edges[0], affine[:3, 1] / edges[1]
        if abs(float(row @ column)) > 1e-4:
            raise InputError(
                "columns and rows are not perpendicular",
                code="wrong_affine",
                field="volume",
                expected="an affine without in-plane shear, to be written as DICOM",
            )
        return cls(row, column, edges, affine[:3, 2], affine[:3, 3])

    def position(self, k: int) -> NDArray[np.float64]:
        return self.origin + k * self.step
