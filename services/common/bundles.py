"""Bundles by their hash: the one that was given as a folder, and all those in the model store.

What was accepted under one bundle is finished under that bundle, whatever is in production by then.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from models.bundle.read import Bundle, read_bundle
from models.errors import BundleError
from services.common.settings import Settings
from services.common.store import PRODUCTION, find, resolve


class Bundles:
    """Opens bundles once and keeps the last few. Thread-safe; holds no weights."""

    def __init__(self, settings: Settings, keep: int = 4) -> None:
        self._settings = settings
        self._keep = keep
        self._open: OrderedDict[str, Bundle] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def follows(self) -> bool:
        """Does the settings' bundle change with promotions?"""
        return self._settings.bundle == PRODUCTION

    def served(self) -> Bundle:
        """The bundle that the settings name, every checksum verified. Raises BundleError."""
        if self._settings.bundle is None:
            raise BundleError(
                "no bundle is given",
                code="bundle_missing",
                field="LESIONLENS_BUNDLE",
                expected=f"the folder of a model bundle, or '{PRODUCTION}'",
            )
        return self.add(read_bundle(resolve(None, self._settings)))

    def add(self, bundle: Bundle) -> Bundle:
        """Make a bundle known by its hash."""
        with self._lock:
            self._open[bundle.hash] = bundle
            self._open.move_to_end(bundle.hash)
            while len(self._open) > self._keep:
                self._open.popitem(last=False)
        return bundle

    def of(self, wanted: str) -> Bundle:
        """The bundle of this hash, verified. Raises BundleError (bundle_missing if it is gone)."""
        with self._lock:
            known = self._open.get(wanted)
            if known is not None:
                self._open.move_to_end(wanted)
        if known is not None:
            return known
        opened = read_bundle(self._folder(wanted))
        if opened.hash != wanted:
            raise BundleError(
                "the store's folder holds another bundle",
                code="bundle_checksum",
                field="bundle",
                found=opened.hash,
                expected=wanted,
            )
        return self.add(opened)

    def _folder(self, wanted: str) -> Path:
        try:
            return find(wanted, self._settings)
        except BundleError:
            named = self._settings.bundle
            if named is None or ":" in named:
                raise
            given = read_bundle(named)  # the folder may have fallen out of what is kept
            if given.hash != wanted:
                raise
            return given.path
