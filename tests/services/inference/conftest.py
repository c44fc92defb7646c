"""A bundle of a few hundred weights, for tests that need no lesion."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.bundle.read import Bundle, read_bundle
from models.bundle.write import write_bundle
from services.inference.host import ModelHost
from tests.models.bundle import tiny_onnx


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("small")
    write_bundle(folder, tiny_onnx.parts())
    return read_bundle(folder)


@pytest.fixture(scope="session")
def host(small: Bundle) -> ModelHost:
    return ModelHost(small, threads=1, chunk=4)
