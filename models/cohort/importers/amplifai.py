"""AMPLIFAI: multi-phase liver CT with masks of the lesion and of three features, and LI-RADS.

    SRC/<case>/ct/<case>_{ART,VEN,DEL,DRY}.nii.gz or  SRC/<case>/<case>_{0,1,2,3}.nii.gz
    SRC/<case>/annotations/lesion.nii.gz          or  SRC/<case>/<case>[_<phase>]_lesion.seg.nrrd
    ... aphe, washout, capsule in the same way, NIfTI or NRRD
    SRC/labels.csv                                case_id, label

A case is a lesion with one category. Arterial and at least one late phase are there; others may be
missing. The names of the distributed feature masks are not documented, so they are found by
pattern: what is left of the file's name beside case, phase and ending.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from models.cohort.importers import base
from models.cohort.importers.base import Found, Head, Reading, Skip, box_of, centroid_mm
from models.cohort.importers.mask_files import mask_stem, place_mask, read_mask
from models.cohort.load import Mask
from models.cohort.nifti import read_nifti
from models.cohort.table import read_table
from models.errors import InputError
from models.volume import Volume
from wire.cohort import FeatureStatus

NAME = "amplifai"
VERSION = "1"
HELP = """Import AMPLIFAI (multi-phase CT) from SOURCE into the cohort OUT.

SOURCE holds a folder a case and a CSV 'case_id,label' with the LI-RADS category. Masks of the
lesion, of non-rim arterial hyperenhancement, non-peripheral washout and enhancing capsule are taken
where they are; a case may lack a late phase.

\b
Example:
  lesionlens cohort import amplifai AMPLIFAI build/amplifai
  lesionlens cohort import amplifai AMPLIFAI build/amplifai --classes group --no-mask absent
"""
PHASES = ("arterial", "portal_venous", "delayed")
PRECONTRAST = "precontrast"
_PHASE_WORDS = {
    "arterial": ("0", "a", "art", "arterial"),
    "portal_venous": ("1", "v", "pv", "ven", "venous", "portal"),
    "delayed": ("2", "d", "del", "delayed", "late"),
    PRECONTRAST: ("3", "dry", "pre", "native", "precontrast"),
}
_MASK_WORDS = {
    "lesion": ("lesion", "tumor", "tumour"),
    "arterial_hyperenhancement": ("aphe", "arterialhyperenhancement"),
    "washout": ("washout",),
    "enhancing_capsule": ("capsule",),
}
# Where a feature is looked for first, when its mask names no phase or stands on several.
_HOME = {
    "lesion": PHASES,
    "arterial_hyperenhancement": PHASES,
    "washout": ("portal_venous", "delayed", "arterial"),
    "enhancing_capsule": ("portal_venous", "delayed", "arterial"),
}
CATEGORIES = ("LR-1", "LR-2", "LR-3", "LR-4", "LR-5", "LR-M", "LR-TIV")
_GROUPS = {
    "LR-1": "benign", "LR-2": "benign", "LR-3": "indeterminate", "LR-4": "hcc", "LR-5": "hcc",
    "LR-M": "malignant_not_hcc", "LR-TIV": "tumor_in_vein",
}  # fmt: skip


class Options(base.Options):
    """Options of this importer."""

    missing: Literal["skip", "keep"] = Field(
        "keep",
        description="A lesion that lacks a phase: skip it, or keep it (arterial and one late phase "
        "must be there) for networks that are trained with phase dropout.",
    )
    labels: Path | None = Field(None, description="The CSV of labels where it is not in SOURCE.")
    classes: Literal["category", "ordinal", "group"] = Field(
        "category",
        description="Classes: the seven LI-RADS categories; LR-1 to LR-5 with LR-M and LR-TIV set "
        "aside as out of distribution; or groups (LR-1,2 benign, LR-3 indeterminate, LR-4,5 hcc, "
        "LR-M, LR-TIV).",
    )
    no_mask: Literal["unknown", "absent"] = Field(
        "unknown",
        description="A feature without a mask in a case that has a lesion mask: not assessed, or "
        "absent.",
    )
    precontrast: bool = Field(False, description="Take the phase without contrast as a fourth one.")


def head(source: Path, options: Options) -> Head:
    """Facts of the set. Raises InputError where there is no table of labels."""
    _labels(source, options)
    return Head(
        name="AMPLIFAI",
        version="2026",
        licence="as its parts: WAW-TACE, HCC-TACE-SEG, TCGA-LIHC, PLC-CECT",
        source="AMPLIFAI challenge, MICCAI 2026",
        modality="CT",
        phases=PHASES + ((PRECONTRAST,) if options.precontrast else ()),
        classes=tuple(dict.fromkeys(_class(c, options)[0] for c in CATEGORIES
                                    if _class(c, options)[1] is None)),
        features=tuple(name for name in _MASK_WORDS if name != "lesion"),
        required=(PHASES[0],),
        notes=("CT numbers are not MR intensities: train on one modality at a time",),
    )  # fmt: skip


def find(source: Path, options: Options) -> Iterator[Found | Skip]:
    """A lesion a row of the table, and a Skip for every folder of images that it does not name."""
    labels = _labels(source, options)
    for case, text in labels:
        try:
            yield _case(source, case, text, options)
        except InputError as error:
            yield Skip(case, error)
    for folder in sorted(p for p in source.iterdir() if p.is_dir()):
        if folder.name not in dict(labels) and any(_images(folder, options)):
            yield Skip(folder.name, InputError("no label", code="no_label", field="case_id"))


def read(found: Found, options: Options) -> Reading:
    """Images and masks of a case, each mask placed on its phase by its coordinates."""
    volumes = {p: read_nifti(path, field=f"image.{p}") for p, path in found.files.items()}
    drawn: dict[str, dict[str, NDArray[np.bool_]]] = {}
    notes: list[str] = []
    for key, path in found.masks.items():
        name, _, said = key.partition("@")
        mask = read_mask(path, field=f"masks.{key}")
        phase = said if said in volumes else _phase_of(mask, volumes, name)
        voxels = place_mask(mask, volumes[phase])
        if mask.data.any() and not voxels.any():
            raise InputError(
                "the mask lies outside of the image", code="wrong_grid", field=f"masks.{key}"
            )
        drawn.setdefault(name, {})[phase] = voxels
    boxes, centres = {}, {}
    for phase, voxels in drawn["lesion"].items():
        if not voxels.any():
            continue
        voxels, note = _largest(voxels)
        drawn["lesion"][phase] = voxels
        boxes[phase] = box_of(voxels)
        centres[phase] = centroid_mm(voxels, volumes[phase])
        notes += [f"{phase}: {note}"] if note else []
    if not boxes:
        raise InputError("the mask is empty", code="empty_mask", field="masks.lesion")
    masks = {name: _joined(name, by_phase, volumes) for name, by_phase in drawn.items()}
    features: dict[str, FeatureStatus] = {
        name: "present" if mask.voxels.any() else "absent"
        for name, mask in masks.items()
        if name != "lesion"
    }
    if options.no_mask == "absent":
        features = {n: features.get(n, "absent") for n in _MASK_WORDS if n != "lesion"}
    return Reading(volumes, boxes, masks, centres, features, tuple(notes))


def _labels(source: Path, options: Options) -> list[tuple[str, str]]:
    """(case, category as written), in the table's order; a case that stands twice stays twice."""
    tables = [options.labels] if options.labels else sorted(source.glob("*.csv"))
    for path in tables:
        table = read_table(path)
        if {"case_id", "label"} <= set(table.columns):
            return [(row["case_id"], row["label"]) for row in table.rows if row["case_id"]]
    raise InputError(
        "no table of labels", code="wrong_layout", field="source",
        found=", ".join(p.name for p in tables) or f"no CSV in {source.name}",
        expected="a CSV with the columns case_id and label",
    )  # fmt: skip


def _case(source: Path, case: str, text: str, options: Options) -> Found:
    folder = source / case
    if not re.fullmatch(r"\w[\w.-]*", case) or not folder.is_dir():
        raise InputError("no folder of this case", code="not_found", field="case_id", found=case)
    class_id, split = _class(category(text), options)
    files = dict(_images(folder, options))
    if not set(files) & set(PHASES[1:]):
        raise InputError(
            "no late phase", code="missing_phase", field="image",
            found=", ".join(files) or "no image", expected="arterial and portal venous or delayed",
        )  # fmt: skip
    masks = _masks(folder, case)
    if not any(key.partition("@")[0] == "lesion" for key in masks):
        raise InputError(
            "no mask of the lesion", code="missing_mask", field="masks.lesion",
            found=", ".join(masks) or "no mask", expected="annotations/lesion.nii.gz or .seg.nrrd",
        )  # fmt: skip
    return Found(
        case, case, class_id, files, masks=masks, split=split, facts={"category": category(text)}
    )


def category(text: str) -> str:
    """'LR-5' from 'LR-5', 'LR5', '5', 'lr-tiv', 'LR-M', 'M'. Raises InputError for another."""
    word = re.sub(r"[\s_-]", "", text).upper().removeprefix("LIRADS").removeprefix("LR")
    made = f"LR-{word.removesuffix('.0')}"
    if made not in CATEGORIES:
        raise InputError(
            "no LI-RADS category", code="unknown_class", field="label", found=text[:40] or "empty",
            expected=", ".join(CATEGORIES),
        )  # fmt: skip
    return made


def _class(category: str, options: Options) -> tuple[str, str | None]:
    """Class id and split of a category."""
    if options.classes == "group":
        return _GROUPS[category], None
    name = category.lower().replace("-", "_")
    aside = options.classes == "ordinal" and category in ("LR-M", "LR-TIV")
    return name, "outside" if aside else None


def _images(folder: Path, options: Options) -> Iterator[tuple[str, Path]]:
    """Phase -> image: named by phase or number, in ct/ or in the case's folder."""
    wanted = PHASES + ((PRECONTRAST,) if options.precontrast else ())
    for phase in wanted:
        for word in _PHASE_WORDS[phase]:
            paths = [
                path
                for place in (folder / "ct", folder)
                for name in (f"{folder.name}_{word}", f"{folder.name}_{word.upper()}")
                for path in (place / f"{name}.nii.gz", place / f"{name}.nii")
                if path.is_file()
            ]
            if paths:
                yield phase, paths[0]
                break


def _masks(folder: Path, case: str) -> dict[str, Path]:
    """'<lesion or feature id>[@<phase>]' -> mask file, wherever it lies in the case's folder."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        stem = mask_stem(path)
        if stem is None or path.parent.name == "ct":
            continue
        key = _mask_key(stem.removeprefix(case))
        if key is not None:
            found.setdefault(key, path)
    return found


def _mask_key(text: str) -> str | None:
    words = [w for w in re.split(r"[^a-z0-9]+", text.lower()) if w]
    names = [n for n, known in _MASK_WORDS.items() if any(w in known for w in words)]
    if len(names) != 1:
        return None
    rest = [w for w in words if w not in _MASK_WORDS[names[0]]]
    phase = next((p for p, known in _PHASE_WORDS.items() if any(w in known for w in rest)), None)
    return f"{names[0]}@{phase}" if phase else names[0]


def _phase_of(mask: Volume, volumes: Mapping[str, Volume], name: str) -> str:
    """The phase that a mask without a phase was drawn on: by grid, else where it is looked for."""
    order = [p for p in (*_HOME[name], *volumes) if p in volumes]
    same = [
        p
        for p in order
        if volumes[p].shape == mask.shape and np.allclose(volumes[p].affine, mask.affine, atol=1e-3)
    ]
    return (same or order)[0]


def _largest(voxels: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], str]:
    """The largest connected part: a category is of one lesion. A note where more was dropped."""
    parts, count = ndimage.label(voxels, np.ones((3, 3, 3)))
    if count == 1:
        return voxels, ""
    sizes = np.bincount(parts.ravel())[1:]
    kept = parts == sizes.argmax() + 1
    share = sizes.max() / sizes.sum()
    return kept, f"the largest of {count} parts of the lesion's mask was kept, {share:.0%} of it"


def _joined(
    name: str, by_phase: Mapping[str, NDArray[np.bool_]], volumes: Mapping[str, Volume]
) -> Mask:
    """One mask of a feature: on the phase where it is looked for, joined with the others."""
    home = next(p for p in (*_HOME[name], *volumes) if p in by_phase)
    if name == "lesion" and not by_phase[home].any():
        home = next(p for p in by_phase if by_phase[p].any())
    voxels = by_phase[home]
    if name != "lesion":
        for phase, other in by_phase.items():
            if phase != home:
                drawn = Volume(other.astype(np.float32), volumes[phase].affine)
                voxels = voxels | place_mask(drawn, volumes[home])
    return Mask(home, voxels)
