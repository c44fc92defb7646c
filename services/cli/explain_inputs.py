"""What the command line names, as volumes and boxes: NIfTI, DICOM, a cohort's lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.cohort.format import read_cohort
from models.cohort.load import load_study
from models.cohort.nifti import read_nifti
from models.errors import InputError
from models.vocabulary import liver_mri
from models.volume import Box, Study, Volume

_WAYS = "--arterial, --portal-venous and --delayed; --cohort and --lesion; or --dicom"


@dataclass(frozen=True)
class Source:
    """The options that say what to explain, as typed."""

    files: Mapping[str, Path] = field(default_factory=dict)
    dicom: Path | None = None
    cohort: Path | None = None
    lesion: str | None = None
    boxes: Sequence[str] = ()

    def check(self) -> None:
        """Raises InputError unless exactly one way of naming a lesion is used, and in full."""
        given = [bool(self.files), self.dicom is not None, self.cohort is not None]
        if sum(given) != 1:
            raise InputError(
                "nothing to explain" if not any(given) else "more than one source is given",
                code="wrong_source",
                expected=_WAYS,
            )
        if (self.cohort is None) != (self.lesion is None):
            raise InputError("needs --cohort beside it", code="wrong_source", field="lesion") if (
                self.cohort is None
            ) else InputError(
                "which lesion of the cohort?", code="wrong_source", field="lesion",
                expected="--lesion ID",
            )  # fmt: skip
        if self.cohort is not None and self.boxes:
            raise InputError(
                "a cohort's lesion brings its own box", code="wrong_source", field="box"
            )
        if self.cohort is None and not self.boxes:
            raise InputError(
                "a box is missing", code="wrong_box", field="box",
                expected='--box "x0,y0,z0,x1,y1,z1", voxel indices, half open',
            )  # fmt: skip

    def phases(self) -> list[str]:
        """Phase ids when no bundle is at hand: the default ones, or as they were given."""
        known = liver_mri().phase_ids
        return known if set(self.files) <= set(known) else list(self.files)

    def study(
        self,
        phases: Sequence[str],
        max_bytes: int | None = None,
        optional: Sequence[str] = (),
    ) -> Study:
        """Read everything. optional: may be missing. Raises InputError or CohortError."""
        self.check()
        if self.cohort is not None and self.lesion is not None:
            cohort = read_cohort(self.cohort)
            return load_study(cohort, cohort.find(self.lesion), phases, optional)
        if self.dicom is not None:
            from models.cohort.dicom import read_phases

            volumes = read_phases(self.dicom, phases, optional=optional, max_bytes=max_bytes)
        else:
            volumes = {p: read_volume(path, p, max_bytes) for p, path in self.files.items()}
            unknown = [p for p in volumes if p not in phases]
            if unknown:
                raise InputError(
                    "an unknown phase", code="unknown_field", field=unknown[0],
                    expected=", ".join(phases),
                )  # fmt: skip
        return Study.make(volumes, parse_boxes(self.boxes, phases), phases, optional)


def read_volume(path: Path, field: str, max_bytes: int | None = None) -> Volume:
    """A NIfTI file, a DICOM file or a folder with one DICOM series, told apart by content."""
    if path.is_dir() or _is_dicom(path):
        from models.cohort.dicom import read_series

        return read_series(path, field=field, max_bytes=max_bytes)
    return read_nifti(path, field=field, max_bytes=max_bytes)


def parse_boxes(texts: Sequence[str], phases: Sequence[str]) -> Box | dict[str, Box]:
    """'x0,y0,z0,x1,y1,z1' once, on the first phase, or 'phase=...' for each phase."""
    named: dict[str, Box] = {}
    for text in texts:
        phase, separator, corners = text.rpartition("=")
        name = phase.strip().replace("-", "_") if separator else ""
        place = f"box.{name}" if name else "box"
        if name and name not in phases:
            raise InputError(
                "a box for an unknown phase", code="wrong_box", field=place,
                expected=", ".join(phases),
            )  # fmt: skip
        if name in named:
            raise InputError("a second box", code="wrong_box", field=place, expected="one")
        named[name] = Box.parse(corners, field=place)
    if "" not in named:
        return named
    if len(named) > 1:
        raise InputError(
            "either one box or one for each phase", code="wrong_box", field="box",
            found=", ".join(n or "one without a phase" for n in named),
        )  # fmt: skip
    return named[""]


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".ima")
