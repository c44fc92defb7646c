"""Fixtures for all tests: one small real cohort and bundle, made once and kept."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything numeric is imported: small arrays, shared cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
# The port after a free one need not be free: a test that wants gRPC names a port.
os.environ.setdefault("LESIONLENS_GRPC_PORT", "0")

import pytest

from tests.support import tiny_bundle as tiny


@pytest.fixture(scope="session")
def tiny_cohort() -> Path:
    """Folder of a synthetic cohort of 60 lesions. Read it, don't write in it."""
    return tiny.tiny_cohort()


@pytest.fixture(scope="session")
def tiny_bundle() -> Path:
    """Folder of a bundle that the real pipeline made of that cohort. Copy before changing it."""
    return tiny.tiny_bundle()
