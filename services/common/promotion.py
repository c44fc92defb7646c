"""Promote, roll back, archive: verify the stored bundle as a server would, then write history."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.errors import BundleError
from services.common.registry import Event, Registry, earlier
from services.common.settings import Settings
from services.common.store import NAME, find, register, resolve, stored


@contextmanager
def opened(settings: Settings) -> Iterator[Registry]:
    """The registry of the settings' ledger, made where there is none."""
    if settings.ledger_url is None:
        settings.home.mkdir(parents=True, exist_ok=True)
    registry = Registry(settings.ledger)
    try:
        yield registry
    finally:
        registry.close()


def promote(reference: str, settings: Settings, who: str, note: str = "") -> tuple[str, bool]:
    """Put a bundle into production once its checksums and parity hold: (hash, is that new?).

    reference: 'lesionlens:<hash>', a hash or its beginning, 'lesionlens:latest', or a bundle's
    folder, which is registered first. Raises BundleError, and then nothing has changed.
    """
    bundle = named(reference, settings)
    load_model(find(bundle, settings), settings.threads)
    with opened(settings) as registry:
        return bundle, registry.promote(bundle, who, note) is not None


def rollback(settings: Settings, who: str, note: str = "") -> Event:
    """Bring back what was in production before, verified too. LensError where nothing was."""
    with opened(settings) as registry:
        before = earlier(registry.history())
        if before is not None:
            load_model(find(before, settings), settings.threads)
        event = registry.rollback(who, note)
        if event.bundle != before:  # somebody promoted meanwhile: check what came back as well
            load_model(find(event.bundle, settings), settings.threads)
        return event


def archive(reference: str, settings: Settings, who: str, note: str = "") -> tuple[str, bool]:
    """Set a bundle aside: (hash, is that new?). LensError where it is in production."""
    bundle = named(reference, settings)
    with opened(settings) as registry:
        return bundle, registry.archive(bundle, who, note) is not None


def named(reference: str, settings: Settings) -> str:
    """The hash that a person means; a folder outside of the store is registered. BundleError."""
    if "/" in reference or (":" not in reference and not reference.startswith("b-")):
        return register(resolve(reference, settings), settings).removeprefix(f"{NAME}:")
    short = reference.removeprefix(f"{NAME}:")
    if short in ("latest", "production"):
        return read_bundle(resolve(f"{NAME}:{short}", settings)).hash
    fits = [one.hash for one in stored(settings) if one.hash.startswith(short)]
    if len(fits) > 1 and len(short) > 2:
        raise BundleError(
            "several bundles begin like this",
            code="bundle_ambiguous",
            field="bundle",
            found=reference[:60],
            expected=", ".join(sorted(fits)),
        )
    return fits[0] if len(fits) == 1 and len(short) > 2 else find(short, settings).name


def me() -> str:
    """Who is at work here, for the history: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
