"""SEG objects by highdicom and RT structure sets by hand, drawn on series that are on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def slices(series: Path) -> list[pydicom.Dataset]:
    """The slices of one series, sorted as the readers sort them."""
    found = [pydicom.dcmread(p) for p in sorted(series.glob("*.dcm"))]
    first = np.asarray(found[0].ImageOrientationPatient, float)
    normal = np.cross(first[:3], first[3:])
    return sorted(found, key=lambda d: float(np.dot(normal, d.ImagePositionPatient)))


def write_seg(
    path: Path,
    series: Path,
    masks: Mapping[str, np.ndarray],
    *,
    kind: str = "BINARY",
    tracking: str | None = None,
) -> None:
    """One segment a label; masks [X, Y, Z] on the grid of the series, 0/1 or fractions."""
    source = slices(series)
    stack = np.stack([m.transpose(2, 1, 0) for m in masks.values()], axis=-1)
    labelmap = kind == "LABELMAP"
    pixels = (
        (stack * np.arange(1, len(masks) + 1)).max(axis=-1).astype(np.uint8)
        if labelmap
        else stack.astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    )
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
            tracking_uid=tracking,
            tracking_id=label if tracking else None,
        )
        for number, label in enumerate(masks, start=1)
    ]
    hd.seg.Segmentation(
        source_images=source,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=90,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    ).save_as(path)


def write_rtstruct(path: Path, series: Path, contours: Mapping[str, list[np.ndarray]]) -> None:
    """One structure a name; contours [N, 3] in mm, LPS, closed."""
    source = slices(series)[0]
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    ds.SOPInstanceUID = generate_uid()
    ds.Modality = "RTSTRUCT"
    for name in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID"):
        setattr(ds, name, source.get(name))
    ds.SeriesInstanceUID = generate_uid()
    used = Dataset()
    used.SeriesInstanceUID = source.SeriesInstanceUID
    study, frame = Dataset(), Dataset()
    study.RTReferencedSeriesSequence = [used]
    frame.RTReferencedStudySequence = [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, closed) in enumerate(contours.items(), start=1):
        named, drawn = Dataset(), Dataset()
        named.ROINumber, named.ROIName = number, name
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = []
        for points in closed:
            item = Dataset()
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            item.ContourData = [f"{v:.4f}" for v in points.ravel()]
            drawn.ContourSequence.append(item)
        ds.StructureSetROISequence.append(named)
        ds.ROIContourSequence.append(drawn)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
