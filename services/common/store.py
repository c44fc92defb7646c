"""The BentoML model store: where trained bundles are registered, and how a name becomes a folder.

    <store>/models/lesionlens/<hash>/      one bundle, and BentoML's model.yaml
    <store>/models/lesionlens/latest       the hash that was registered last

bentoml is imported only to register; whoever reads (a worker has no bentoml) reads the folders.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.bundle.manifest import MANIFEST
from models.bundle.read import read_bundle
from models.bundle.variant import FOLDER
from models.errors import BundleError
from services.common.configured import read_settings
from services.common.settings import Settings

NAME = "lesionlens"
LATEST, PRODUCTION = f"{NAME}:latest", f"{NAME}:production"
HASH = re.compile(r"b-[0-9a-f]{20}")


@dataclass(frozen=True)
class Stored:
    """One bundle in the store. created: RFC 3339, when it was registered. facts: its manifest."""

    hash: str
    path: Path
    created: str
    facts: dict[str, Any]

    @property
    def tag(self) -> str:
        return f"{NAME}:{self.hash}"


def register(bundle: Path, settings: Settings | None = None) -> str:
    """Copy a bundle into the store as 'lesionlens:<hash>' and return that tag.

    Verifies every checksum first (BundleError). A bundle that is already there stays as it is; one
    that is there in part, since an earlier copy was cut off, is copied again.
    """
    settings = settings or read_settings()
    manifest = read_bundle(bundle).manifest
    tag = f"{NAME}:{manifest.hash}"
    there = settings.models / manifest.hash
    if there.exists():
        with suppress(BundleError):
            return f"{NAME}:{read_bundle(there).hash}"
        shutil.rmtree(there)
    bentoml, store = _bentoml(settings.models.parent)
    labels = {"architecture": manifest.architecture}
    facts = {
        "hash": manifest.hash,
        "trained_on": manifest.trained_on,
        "synthetic": manifest.synthetic,
        "classes": list(manifest.classes),
    }
    with bentoml.models.create(tag, labels=labels, metadata=facts, _model_store=store) as model:
        for source in sorted(bundle.iterdir()):
            if source.is_file():
                shutil.copyfile(source, Path(model.path) / source.name)
            elif source.name == FOLDER:
                shutil.copytree(source, Path(model.path) / source.name)
    return tag


def resolve(ref: str | Path | None, settings: Settings | None = None) -> Path:
    """A folder, 'lesionlens:production|latest|<hash>', or nothing -> the bundle's folder.

    Nothing means settings.bundle; where that is unset, the bundle in production, and where nothing
    was promoted yet, the newest in the store. Raises BundleError (bundle_missing) with what to do.
    The bundle is found here, not verified.
    """
    settings = settings or read_settings()
    wanted = str(ref) if ref is not None else settings.bundle
    if wanted is None:
        now = in_production(settings)
        return find(now, settings) if now else _latest(settings)
    if isinstance(ref, Path) or ":" not in wanted:
        folder = Path(wanted)
        if folder.is_dir():
            return folder
        raise BundleError(
            "there is no such folder",
            code="bundle_missing",
            field="bundle",
            found=folder.name,
            expected=f"a bundle's folder, or '{LATEST}' from the model store",
        )
    if wanted == PRODUCTION:
        now = in_production(settings)
        if now is None:
            raise BundleError(
                "no bundle is in production",
                code="nothing_promoted",
                field="bundle",
                found=wanted,
                expected=f"'lesionlens bundle promote {NAME}:<hash>' first",
            )
        return find(now, settings)
    if wanted == LATEST:
        return _latest(settings)
    return find(wanted.removeprefix(f"{NAME}:"), settings)


def find(bundle: str, settings: Settings) -> Path:
    """The folder of the stored bundle of this hash. Raises BundleError (bundle_missing)."""
    folder = settings.models / bundle
    if HASH.fullmatch(bundle) is None or not (folder / MANIFEST).is_file():
        raise _missing(f"{NAME}:{bundle[:60]}")
    return folder


def in_production(settings: Settings) -> str | None:
    """Hash of the bundle in production by the settings' ledger; None where nothing was promoted.

    Makes no ledger where there is none, and needs no SQL package then.
    """
    if settings.ledger_url is None and not (settings.home / "ledger.sqlite").exists():
        return None
    from services.common.registry import Registry

    registry = Registry(settings.ledger)
    try:
        return registry.production()
    finally:
        registry.close()


def stored(settings: Settings | None = None) -> list[Stored]:
    """All registered bundles, newest first. Their manifests are read, not verified."""
    settings = settings or read_settings()
    found = []
    for folder in settings.models.iterdir() if settings.models.is_dir() else ():
        if HASH.fullmatch(folder.name) is None or not (folder / MANIFEST).is_file():
            continue
        try:
            facts = json.loads((folder / MANIFEST).read_bytes())
        except ValueError:
            facts = None
        made = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, UTC)
        created = made.isoformat(timespec="seconds").replace("+00:00", "Z")
        # A damaged one is listed too: whoever looks for it finds it, and `verify` says what it is.
        facts = facts if isinstance(facts, dict) else {}
        found.append(Stored(hash=folder.name, path=folder, created=created, facts=facts))
    return sorted(found, key=lambda s: (s.created, s.hash), reverse=True)


def _latest(settings: Settings) -> Path:
    try:
        named = (settings.models / "latest").read_text("utf-8").strip()
        return find(named, settings)
    except (OSError, ValueError, BundleError):
        newest = stored(settings)
        if newest:
            return newest[0].path
        raise _missing(LATEST) from None


def _missing(tag: str) -> BundleError:
    return BundleError(
        "the model store has no such bundle",
        code="bundle_missing",
        field="bundle",
        found=tag,
        expected="a registered bundle: 'lesionlens train' registers one, 'lesionlens bundle list' "
        "shows them; the store lies in LESIONLENS_HOME",
    )


def _bentoml(folder: Path) -> tuple[Any, Any]:
    """bentoml, and the store in `folder`: by name, whatever bentoml's own home is."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("BENTOML_HOME")
    os.environ["BENTOML_HOME"] = str(folder.parent)  # made at import; else ~/bentoml would be
    try:
        import bentoml
        import bentoml.models
        from bentoml._internal.models.model import ModelStore
    finally:
        if before is None:
            del os.environ["BENTOML_HOME"]
        else:
            os.environ["BENTOML_HOME"] = before
    return bentoml, ModelStore(folder)
