"""DICOM files -> slices -> stacks: what lies in a folder, from headers alone.

A stack is one volume's worth of slices: one series, or one time point of a series that holds
several. Pixels are read only when a stack is loaded (models.cohort.dicom).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError

_SAME_PLACE_MM = 0.01
_SAME_DIRECTION = 1e-3
# What tells time points of one series apart, most telling first.
_TIME_POINTS = ("temporal", "acquisition_number", "trigger", "time", "echo", "image_type")


@dataclass(frozen=True)
class Slice:
    """One image file's header. Positions in mm, LPS; times in seconds since an arbitrary day."""

    path: Path
    series: str
    study: str
    patient: str
    rows: int
    columns: int
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float
    number: str
    description: str
    protocol: str
    modality: str
    body_part: str
    study_description: str
    image_type: tuple[str, ...]
    contrast: str
    technique: tuple[float, ...]
    temporal: str
    acquisition_number: str
    echo: str
    trigger: float | None
    time: float | None
    bolus: float | None

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def depth(self) -> float:
        """Position along the normal, mm."""
        return float(self.position @ self.normal)


@dataclass(frozen=True)
class Stack:
    """Slices of one volume, sorted by position along their normal."""

    slices: tuple[Slice, ...]
    time: float | None
    part: str = ""

    @property
    def first(self) -> Slice:
        return self.slices[0]

    @property
    def seconds(self) -> float | None:
        """Start of the acquisition after the injection, where the header tells both."""
        if self.time is None or self.first.bolus is None:
            return None
        after = self.time - self.first.bolus
        after += 86400 if after < -43200 else 0  # over midnight
        return after if -3600 <= after <= 7200 else None

    @property
    def text(self) -> str:
        """Words in which a phase may be named."""
        return f"{self.first.description} {self.first.protocol}"

    @property
    def label(self) -> str:
        """For messages: series number, description, slices."""
        s = self.first
        words = clean(s.description or s.protocol) or "no description"
        count = f"{len(self.slices)} slice{'s' if len(self.slices) != 1 else ''}"
        return f"series {clean(s.number) or '?'}{self.part} '{words}' ({count})"


@dataclass(frozen=True)
class Found:
    """What a folder holds. other: why files that are DICOM, but no slice of a stack, were left."""

    stacks: tuple[Stack, ...]
    files: int
    other: tuple[str, ...]


def pydicom() -> Any:
    """The pydicom module, imported when needed. Raises InputError where it is not installed."""
    try:
        import pydicom as module
    except ModuleNotFoundError:
        raise InputError(
            "reading DICOM needs the package pydicom",
            code="missing_package",
            expected="pip install 'lesionlens[dicom]'",
        ) from None
    return module


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """pydicom warns of every oddity of a header; what matters is said in one line here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def scan(path: Path, *, field: str) -> Found:
    """Read the headers of a file, or of every DICOM file below a folder, and sort them in stacks.

    Files that are not DICOM are passed over in a folder. Raises InputError: not_found, not_dicom,
    truncated, and for a single file also why its image cannot be used.
    """
    pydicom()
    if not path.exists():
        raise InputError("no such file or folder", code="not_found", field=field, found=path.name)
    single = path.is_file()
    files = [path] if single else sorted(p for p in path.rglob("*") if p.is_file())
    return scan_files(files, field=field, single=single)


def scan_files(files: Sequence[Path], *, field: str, single: bool = False) -> Found:
    """`scan` of these files. single: one file, so that what is wrong with it is told."""
    pydicom()
    slices: list[Slice] = []
    other: list[str] = []
    for file in files:
        if not looks_like_dicom(file, field):
            continue
        try:
            slices.append(_slice(file, field))
        except InputError as error:
            if single or error.code in ("truncated", "unreadable"):
                raise
            other.append(error.found or error.message)
    if not slices and not other:
        raise InputError(
            "not a DICOM file" if single else "no DICOM files in the folder",
            code="not_dicom",
            field=field,
            found=files[0].name if single else f"{len(files)} file{'s' if len(files) != 1 else ''}",
            expected="DICOM images of an MR or CT study",
        )
    return Found(tuple(_stacks(slices)), len(files), tuple(other))


def looks_like_dicom(path: Path, field: str) -> bool:
    """By the preamble, or by a plausible first element where an old file has none."""
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError as error:
        raise InputError(
            "the file cannot be read",
            code="unreadable",
            field=field,
            found=f"{path.name} ({error.strerror})",
        ) from None
    bare = head[:4] in (b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00")
    return head[128:132] == b"DICM" or bare


def read_file(path: Path, field: str, *, pixels: bool) -> Any:
    """pydicom's Dataset. Raises InputError where the file is cut off or damaged."""
    try:
        with quiet():
            return pydicom().dcmread(path, stop_before_pixels=not pixels, force=True)
    except InputError:
        raise
    except OSError as error:
        reason = f" ({error.strerror})" if error.strerror else ""
        raise damaged(path, field, f"the file ends early{reason}") from None
    except Exception as error:  # a damaged header can raise nearly anything
        raise damaged(path, field, str(error)[:80] or type(error).__name__) from None


def damaged(path: Path, field: str, reason: str) -> InputError:
    return InputError(
        "the DICOM file is truncated or damaged",
        code="truncated",
        field=field,
        found=f"{path.name}: {clean(reason, 80)}",
        expected="a complete DICOM file",
    )


def _slice(path: Path, field: str) -> Slice:
    ds = read_file(path, field, pixels=False)
    try:
        with quiet():
            _refuse(ds, path, field)
            return _facts(ds, path)
    except InputError:
        raise
    except Exception as error:
        raise damaged(path, field, str(error)) from None


def _refuse(ds: Any, path: Path, field: str) -> None:
    """Raise InputError for a DICOM object that is no single slice of intensities in space."""
    kind = clean(str(getattr(ds.get("SOPClassUID", ""), "name", "")), 60) or "unknown object"

    def refuse(message: str, code: str, found: str, expected: str) -> InputError:
        where = f"{path.name}: {found}"
        return InputError(message, code=code, field=field, found=where, expected=expected)

    if len(ds) == 0:
        raise damaged(path, field, "no data elements")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > 1 or kind.startswith("Enhanced"):
        raise refuse(
            "multi-frame (enhanced) DICOM is not supported",
            "unsupported_multiframe",
            f"{kind}, {frames} frame{'s' if frames != 1 else ''}",
            "one file a slice (archives can export enhanced objects as classic ones)",
        )
    if not ds.get("Rows") or not ds.get("Columns"):
        raise refuse("no image in the DICOM object", "not_an_image", kind, "an MR or CT image")
    modality = str(ds.get("Modality") or "")
    if modality not in ("MR", "CT", ""):
        raise refuse("not an MR or CT image", "wrong_modality", f"{kind}, {modality}", "MR or CT")
    light = str(ds.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(ds.get("SamplesPerPixel") or 1) != 1 or light != "MONOCHROME2":
        raise refuse("not a greyscale image", "wrong_dtype", f"{kind}, {light}", "MONOCHROME2")
    for name, size in (
        ("ImagePositionPatient", 3),
        ("ImageOrientationPatient", 6),
        ("PixelSpacing", 2),
    ):
        value = ds.get(name)
        try:
            good = value is not None and np.isfinite(np.asarray(value, float)).sum() == size
        except (TypeError, ValueError):
            good = False
        if not good:
            raise refuse(
                "the image has no place in space", "no_geometry", f"{kind} without {name}",
                "position, orientation and pixel spacing",
            )  # fmt: skip


def _facts(ds: Any, path: Path) -> Slice:
    def text(name: str) -> str:
        value = ds.get(name)
        return "" if value is None else str(value).strip()

    return Slice(
        path=path,
        series=text("SeriesInstanceUID"),
        study=text("StudyInstanceUID"),
        patient=text("PatientID"),
        rows=int(ds.Rows),
        columns=int(ds.Columns),
        position=np.asarray(ds.ImagePositionPatient, float),
        orientation=np.asarray(ds.ImageOrientationPatient, float),
        spacing=(float(ds.PixelSpacing[0]), float(ds.PixelSpacing[1])),
        thickness=_number(ds, "SpacingBetweenSlices") or _number(ds, "SliceThickness") or 1.0,
        number=text("SeriesNumber"),
        description=text("SeriesDescription"),
        protocol=text("ProtocolName"),
        modality=text("Modality"),
        body_part=text("BodyPartExamined"),
        study_description=text("StudyDescription"),
        image_type=tuple(str(v).upper() for v in ds.get("ImageType") or ()),
        contrast=text("ContrastBolusAgent"),
        technique=tuple(
            round(_number(ds, n) or 0.0, 2) for n in ("RepetitionTime", "EchoTime", "FlipAngle")
        ),
        temporal=text("TemporalPositionIdentifier"),
        acquisition_number=text("AcquisitionNumber"),
        echo=text("EchoNumbers"),
        trigger=_number(ds, "TriggerTime"),
        time=_acquired(ds),
        bolus=_moment(_date(ds), text("ContrastBolusStartTime")),
    )


def _number(ds: Any, name: str) -> float | None:
    value = ds.get(name)
    try:
        return float(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        return None


def _date(ds: Any) -> str:
    names = ("AcquisitionDate", "SeriesDate", "StudyDate")
    return next((str(ds.get(n)) for n in names if ds.get(n)), "20000101")


def _acquired(ds: Any) -> float | None:
    whole = re.fullmatch(r"(\d{8})(\d{4,6}(?:\.\d*)?).*", str(ds.get("AcquisitionDateTime") or ""))
    if whole:
        return _moment(whole[1], whole[2])
    return _moment(_date(ds), str(ds.get("AcquisitionTime") or ""))


def _moment(date: str, time: str) -> float | None:
    """DICOM DA and TM -> seconds; also the colons and dots of the 1980s."""
    day = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", date.replace(".", "").strip())
    clock = re.fullmatch(r"(\d\d)(\d\d)?(\d\d)?(\.\d*)?", time.replace(":", "").strip())
    if not clock:
        return None
    try:
        ordinal = dt.date(*map(int, day.groups())).toordinal() if day else 0
    except ValueError:
        ordinal = 0
    hours, minutes, seconds = (int(v or 0) for v in clock.groups()[:3])
    return ordinal * 86400.0 + hours * 3600 + minutes * 60 + seconds + float((clock[4] or "") + "0")


def _stacks(slices: Sequence[Slice]) -> list[Stack]:
    """Group by series and grid, then split what holds several time points."""
    groups: list[list[Slice]] = []
    for item in slices:
        for group in groups:
            if _same_grid(group[0], item):
                group.append(item)
                break
        else:
            groups.append([item])
    stacks = [stack for group in groups for stack in _split(group)]
    return sorted(stacks, key=lambda s: (len(s.first.number), s.first.number, s.time or 0, s.part))


def _same_grid(a: Slice, b: Slice) -> bool:
    return (
        a.series == b.series
        and (a.rows, a.columns) == (b.rows, b.columns)
        and bool(np.allclose(a.spacing, b.spacing, atol=1e-3))
        and bool(np.allclose(a.orientation, b.orientation, atol=_SAME_DIRECTION))
    )


def _split(group: list[Slice]) -> list[Stack]:
    group = sorted(group, key=lambda s: s.depth)
    whole = Stack(tuple(group), min((s.time for s in group if s.time is not None), default=None))
    if not overlapping(whole):
        return [whole]
    for name in _TIME_POINTS:
        parts: dict[object, list[Slice]] = {}
        for item in group:
            parts.setdefault(getattr(item, name), []).append(item)
        stacks = [Stack(tuple(part), _part_time(part)) for part in parts.values()]
        if len({len(s.slices) for s in stacks}) == 1 and not any(map(overlapping, stacks)):
            return _timed(stacks)
    return [whole]


def _part_time(part: list[Slice]) -> float | None:
    return min((s.time for s in part if s.time is not None), default=None)


def _timed(stacks: list[Stack]) -> list[Stack]:
    """In time order; trigger times tell where the time points share one acquisition time."""
    if len({s.time for s in stacks}) == 1 and all(s.first.trigger is not None for s in stacks):
        stacks = [replace(s, time=(s.time or 0.0) + (s.first.trigger or 0) / 1000) for s in stacks]
    stacks.sort(key=lambda s: (s.time or 0.0, s.first.temporal.zfill(6)))
    return [replace(s, part=f", time point {i + 1}") for i, s in enumerate(stacks)]


def overlapping(stack: Stack) -> bool:
    """Two slices at one place: the stack holds more than one volume."""
    depths = np.array([s.depth for s in stack.slices])
    return bool(len(depths) > 1 and np.diff(depths).min() < _SAME_PLACE_MM)


def clean(text: str, length: int = 40) -> str:
    """Header text for a message: one line, printable, short."""
    line = "".join(c if c.isprintable() else " " for c in text).strip()
    return line if len(line) <= length else line[: length - 1] + "…"
