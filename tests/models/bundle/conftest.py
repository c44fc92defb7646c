"""One tiny bundle a session; tests that damage it work on a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_onnx

from models.bundle.parts import BundleParts
from models.bundle.write import write_bundle


@pytest.fixture(scope="session")
def tiny_parts() -> BundleParts:
    return tiny_onnx.parts()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_parts: BundleParts) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(folder, tiny_parts)
    return folder


@pytest.fixture
def bundle_copy(tmp_path: Path, tiny_bundle: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
