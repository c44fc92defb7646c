"""The bundle that this deployment serves, by LESIONLENS_BUNDLE."""

from __future__ import annotations

from models.bundle.read import Bundle, read_bundle
from models.errors import BundleError
from services.common.settings import Settings


def open_bundle(settings: Settings) -> Bundle:
    """Read and check it, every checksum. Raises BundleError."""
    if settings.bundle is None:
        raise BundleError(
            "no bundle is given",
            code="bundle_missing",
            field="LESIONLENS_BUNDLE",
            expected="the folder of a model bundle",
        )
    return read_bundle(settings.bundle, verify=True)
