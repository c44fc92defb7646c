"""A small real cohort and bundle for tests, made by the real pipeline and kept between runs.

Sixty synthetic lesions, two epochs, few passes: about half a minute once. It lies under
build/test-bundle/<hash of the source files that decide it>, so a changed source makes a new one.
The network in it has learnt little: it is there to be loaded, served and explained, not to be
right.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "test-bundle"
LESIONS, SPLITS, SEED, EPOCHS = 60, (36, 12, 12), 7, 2

# What decides the cohort, and with it what decides the bundle.
COHORT_SOURCES = (
    "models/cohort",
    "models/volume.py",
    "models/vocabulary.py",
    "proto/wire/cohort.py",
)
BUNDLE_SOURCES = (
    *COHORT_SOURCES,
    "models/attribution",
    "models/cnn",
    "models/consistency",
    "models/imaging",
    "models/relevance",
    "models/bundle",
    "models/probes",
    "models/evaluation",
    "models/ood",
    "models/passes.py",
    "models/voi.py",
    "models/liver_mri.json",
    "proto/wire/bundle.py",
    "proto/wire/explanation.py",
    "services/training",
    "tests/support/tiny_bundle.py",
)


def tiny_cohort() -> Path:
    """Folder of the cohort; made where it is not there yet."""
    return _cached("cohort", COHORT_SOURCES, _make_cohort)


def tiny_bundle() -> Path:
    """Folder of the bundle; made where it is not there yet."""
    cohort = tiny_cohort()
    return _cached("bundle", BUNDLE_SOURCES, lambda folder: _make_bundle(cohort, folder))


def _make_cohort(folder: Path) -> None:
    from models.cohort.phantom.generate import generate

    generate(folder, n=LESIONS, seed=SEED, splits=SPLITS)


def _make_bundle(cohort: Path, folder: Path) -> None:
    from services.training.pipeline import train

    with tempfile.TemporaryDirectory(dir=HOME) as work:
        result = train(cohort, Path(work), tiny_profile(), SEED, store=False)
        shutil.copytree(result.bundle, folder, dirs_exist_ok=True)


def tiny_profile():  # type: ignore[no-untyped-def]
    """The demo profile with everything made small."""
    from models.cnn.architecture import Architecture
    from services.training.profiles import profile

    small = Architecture(name="tiny", channels=(8, 12, 16, 24), fc=24)
    return profile("demo", epochs=EPOCHS).model_copy(
        update={
            "name": "tiny",
            "architecture": small,
            "passes": 6,
            "reference_passes": 3,
            "pairs": 4,
            "bootstraps": 50,
        }
    )


def _cached(kind, sources, make):  # type: ignore[no-untyped-def]
    """The folder for this hash of the sources. A lock keeps test processes from making it twice."""
    HOME.mkdir(parents=True, exist_ok=True)
    folder = HOME / f"{kind}-{_hash(sources)}"
    with (HOME / f".{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            fresh = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=HOME))
            try:
                make(fresh)
                fresh.chmod(0o755)
                fresh.rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _hash(sources) -> str:  # type: ignore[no-untyped-def]
    digest = hashlib.sha256()
    for source in sources:
        path = ROOT / source
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.suffix in (".py", ".json") and file.is_file():
                digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
