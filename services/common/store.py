"""The BentoML model store: where trained bundles are registered, and how a name becomes a folder.

bentoml is imported only when the store itself is asked; a bundle given as a folder needs none.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.bundle.read import read_bundle
from models.errors import BundleError
from services.common.configured import read_settings
from services.common.settings import Settings

NAME = "lesionlens"


@dataclass(frozen=True)
class Stored:
    """One bundle in the store. created: RFC 3339."""

    tag: str
    path: Path
    created: str
    metadata: dict[str, Any]


def register(bundle: Path, settings: Settings | None = None) -> str:
    """Copy a bundle into the store as 'lesionlens:<hash>' and return that tag.

    Verifies every checksum first (BundleError). A bundle that is already there stays as it is.
    """
    manifest = read_bundle(bundle).manifest
    store = _bentoml(settings)
    tag = f"{NAME}:{manifest.hash}"
    try:
        return str(store.models.get(tag).tag)
    except store.exceptions.NotFound:
        pass
    labels = {"architecture": manifest.architecture}
    facts = {
        "hash": manifest.hash,
        "trained_on": manifest.trained_on,
        "synthetic": manifest.synthetic,
        "classes": list(manifest.classes),
    }
    with store.models.create(tag, labels=labels, metadata=facts) as model:
        for source in sorted(bundle.iterdir()):
            if source.is_file():
                shutil.copyfile(source, Path(model.path) / source.name)
    return tag


def resolve(ref: str | Path | None, settings: Settings | None = None) -> Path:
    """A folder, 'lesionlens:latest' or 'lesionlens:<hash>', or nothing -> the bundle's folder.

    Nothing means settings.bundle, and where that is unset the newest bundle in the store. Raises
    BundleError (bundle_missing) with what to do. The bundle is found here, not verified.
    """
    settings = settings or read_settings()
    wanted = ref if ref is not None else settings.bundle
    if wanted is not None and (isinstance(wanted, Path) or ":" not in wanted):
        folder = Path(wanted)
        if folder.is_dir():
            return folder
        raise BundleError(
            "there is no such folder",
            code="bundle_missing",
            field="bundle",
            found=folder.name,
            expected=f"a bundle's folder, or '{NAME}:latest' from the model store",
        )
    tag = str(wanted) if wanted is not None else f"{NAME}:latest"
    store = _bentoml(settings)
    try:
        return Path(store.models.get(tag).path)
    except (store.exceptions.BentoMLException, ValueError):
        raise BundleError(
            "the model store has no such bundle",
            code="bundle_missing",
            field="bundle",
            found=tag,
            expected="a registered bundle: 'lesionlens train' registers one",
        ) from None


def stored(settings: Settings | None = None) -> list[Stored]:
    """All registered bundles, newest first."""
    store = _bentoml(settings)
    try:
        models = store.models.list(NAME)
    except store.exceptions.NotFound:
        return []
    found = [
        Stored(
            tag=str(model.tag),
            path=Path(model.path),
            created=model.info.creation_time.isoformat(timespec="seconds"),
            metadata=dict(model.info.metadata),
        )
        for model in models
    ]
    return sorted(found, key=lambda s: s.created, reverse=True)


def _bentoml(settings: Settings | None) -> Any:
    """bentoml with its tracking off and its home where this project keeps state.

    Both are read from the environment when bentoml is first imported.
    """
    home = ((settings or read_settings()).home / "bentoml").resolve()
    if "BENTOML_HOME" not in os.environ:
        home.mkdir(parents=True, exist_ok=True)
        os.environ["BENTOML_HOME"] = str(home)
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml
    import bentoml.exceptions
    import bentoml.models

    return bentoml
