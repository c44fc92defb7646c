"""DICOM in: a series as a Volume, a study's phases as Volumes.

Array index order is [column, row, slice]; slices are sorted along their normal (row direction x
column direction), as ITK and GDCM do. DICOM's LPS axes become RAS by two signs; voxels are never
resampled or flipped. Intensities are the stored ones with the rescale slope and intercept applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cohort.dicom_phase import assign, phase_times, usable
from models.cohort.dicom_slices import (
    Found,
    Slice,
    Stack,
    clean,
    damaged,
    overlapping,
    quiet,
    read_file,
    scan,
    scan_files,
)
from models.errors import InputError, TooLarge
from models.volume import Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_series(path: Path, *, field: str = "volume", max_bytes: int | None = None) -> Volume:
    """Read one series: a file (one slice, [X, Y, 1]) or a folder that holds exactly one.

    max_bytes bounds the float32 volume. Raises InputError naming `field`: not_found, not_dicom,
    ambiguous_series, unsupported_multiframe, unsupported_transfer_syntax, truncated, no_geometry,
    uneven_slices, wrong_modality, wrong_dtype; TooLarge.
    """
    return read_stack(_one_stack(path, field), field=field, max_bytes=max_bytes)


def _one_stack(path: Path, field: str) -> Stack:
    found = scan(path, field=field)
    if len(found.stacks) != 1 or overlapping(found.stacks[0]):
        raise InputError(
            "not one series",
            code="ambiguous_series",
            field=field,
            found=_inventory(found),
            expected="a folder with the slices of one series at one time point",
        )
    return found.stacks[0]


def read_phases(
    folder: Path,
    phases: Sequence[str],
    *,
    optional: Sequence[str] = (),
    max_bytes: int | None = None,
) -> dict[str, Volume]:
    """Find the contrast phases in a folder of DICOM files and read them.

    Folders named by phase ids are taken at their word. Otherwise phases are inferred from
    acquisition, trigger and bolus times first, from descriptions second (see dicom_phase.py).
    optional: phases that may be missing; without folders only where no series is left over that
    might be the one.
    Raises InputError, one line: missing_phase (which phases, which series were found),
    ambiguous_phase (which series compete), not_liver, and what read_series raises.
    """
    stacks = find_phases(folder, phases, optional=optional)
    return {phase: read_stack(s, field=phase, max_bytes=max_bytes) for phase, s in stacks.items()}


def find_phases(
    folder: Path,
    phases: Sequence[str],
    *,
    optional: Sequence[str] = (),
    files: Sequence[Path] | None = None,
) -> dict[str, Stack]:
    """Phase -> its slices, from headers alone; otherwise as read_phases.

    files: what to look at where no folder is named by a phase; all below `folder` if None.
    """
    field = "dicom"
    named = [phase for phase in phases if (folder / phase).is_dir()]
    if named and all(phase in named or phase in optional for phase in phases):
        return {phase: _one_stack(folder / phase, phase) for phase in named}
    found = scan(folder, field=field) if files is None else scan_files(files, field=field)
    _one_study(found)
    times = phase_times(phases)
    candidates = usable(found.stacks)
    chosen = assign(candidates, times, found.stacks, found.other, optional)
    return {phase: candidates[chosen[phase]] for phase in phases if phase in chosen}


def _one_study(found: Found) -> None:
    for name in ("patient", "study"):
        if len({getattr(s.first, name) for s in found.stacks}) > 1:
            raise InputError(
                "more than one patient" if name == "patient" else "more than one study",
                code="ambiguous_study",
                field="dicom",
                found=_inventory(found),
                expected="a folder with one study of one patient",
            )


def _inventory(found: Found) -> str:
    shown = [stack.label for stack in found.stacks[:6]]
    if len(found.stacks) > 6:
        shown.append(f"{len(found.stacks) - 6} more")
    if found.other:
        count = len(found.other)
        shown.append(f"{count} other DICOM file{'s' if count != 1 else ''} ({found.other[0]})")
    return ", ".join(shown) or "no image series"


def read_stack(stack: Stack, *, field: str, max_bytes: int | None = None) -> Volume:
    """The voxels of a stack that `find_phases` or `scan` found. Raises InputError, TooLarge."""
    first, count = stack.first, len(stack.slices)
    size = first.rows * first.columns * count * 4
    if max_bytes is not None and size > max_bytes:
        raise TooLarge(
            "the series is too large",
            field=field,
            found=f"{first.columns} x {first.rows} x {count} voxels, {size / 2**20:.1f} MiB",
            expected=f"at most {max_bytes / 2**20:.1f} MiB",
        )
    affine = _affine(stack, field)
    plane = _pixels(first, field)  # before anything as large as the header says is reserved
    data = np.empty((first.columns, first.rows, count), dtype=np.float32)
    for k, item in enumerate(stack.slices):
        data[:, :, k] = (plane if k == 0 else _pixels(item, field)).T
    return Volume.make(data, affine, field=field)


def _affine(stack: Stack, field: str) -> NDArray[np.float64]:
    """[column, row, slice] -> mm, RAS+. PS3.3 C.7.6.2.1.1, with the slices' own positions."""
    first, last, count = stack.first, stack.slices[-1], len(stack.slices)
    if overlapping(stack):
        raise InputError(
            "two slices lie at one place",
            code="ambiguous_series",
            field=field,
            found=stack.label,
            expected="one slice a position",
        )
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = first.normal * first.thickness
    if count > 1:
        gaps = np.diff([s.depth for s in stack.slices])
        if gaps.max() - gaps.min() > max(0.05 * float(np.median(gaps)), 0.02):
            raise InputError(
                "the slices are not evenly spaced; one may be missing",
                code="uneven_slices",
                field=field,
                found=f"gaps of {gaps.min():.2f} to {gaps.max():.2f} mm in {stack.label}",
                expected="one distance",
            )
        affine[:3, 2] = (last.position - first.position) / (count - 1)
    affine[:3, 3] = first.position
    return _LPS_TO_RAS @ affine


def _pixels(item: Slice, field: str) -> NDArray[np.float64]:
    """[row, column], rescaled."""
    ds = read_file(item.path, field, pixels=True)
    if "PixelData" not in ds and "FloatPixelData" not in ds and "DoubleFloatPixelData" not in ds:
        raise damaged(item.path, field, "no pixel data")
    stored = _decode(ds, item, field)
    if stored.shape != (item.rows, item.columns):
        raise damaged(item.path, field, f"pixels of shape {stored.shape}")
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    return stored * float(1 if slope is None else slope) + float(intercept or 0)


def _decode(ds: Any, item: Slice, field: str) -> NDArray[np.float64]:
    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None)
    try:
        with quiet():
            if syntax is None:  # an old file without a header of its own
                _assume_default(ds)
            return np.asarray(ds.pixel_array, dtype=np.float64)
    except MemoryError:
        raise
    except Exception as error:
        text = str(error)
        if "missing dependencies" in text or "plugins are missing" in text:
            name = clean(str(getattr(syntax, "name", syntax)), 60)
            raise InputError(
                "no decoder is installed for this compression",
                code="unsupported_transfer_syntax",
                field=field,
                found=f"{item.path.name}: {name}",
                expected="uncompressed DICOM, or pip install 'pylibjpeg[all]'",
            ) from None
        raise damaged(item.path, field, text or type(error).__name__) from None


def _assume_default(ds: Any) -> None:
    """DICOM's default transfer syntax, PS3.5 section 10.1."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian

    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
