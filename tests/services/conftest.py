"""One front door for the tests of all rooms that talk to it, and a small synthetic study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.cohort.nifti import nifti_bytes
from models.volume import Volume
from tests.support.front_server import Front, await_ready, free_port, start_front, stop

PHASES = ("arterial", "portal_venous", "delayed")


@pytest.fixture(scope="session")
def front(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """The front door on free ports, small limits so that they can be met; shared memory is on."""
    home = tmp_path_factory.mktemp("front")
    port, grpc_port = free_port(), free_port()
    process = start_front(
        tiny_bundle,
        home,
        port,
        LESIONLENS_MAX_BODY_MB="8",
        LESIONLENS_MAX_VOLUME_MB="16",
        LESIONLENS_GRPC_PORT=str(grpc_port),
        LESIONLENS_SHARED_MEMORY="true",
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process, home / "stderr.log")
        yield Front(url, tiny_bundle, process, home / "stderr.log", grpc=f"127.0.0.1:{grpc_port}")
    finally:
        stop(process)


@pytest.fixture(scope="session")
def volumes() -> dict[str, Volume]:
    """Three small synthetic phases with a bright block where BOX is."""
    rng = np.random.default_rng(7)
    found = {}
    for i, phase in enumerate(PHASES):
        data = rng.normal(100, 5, (28, 28, 14)).astype(np.float32)
        data[8:20, 8:20, 4:10] += 60 - 25 * i
        found[phase] = Volume.make(data, np.diag([1.5, 1.5, 3.0, 1.0]))
    return found


@pytest.fixture(scope="session")
def files(volumes: dict[str, Volume]) -> dict[str, tuple[str, bytes, str]]:
    """The phases as parts of a form."""
    return {
        phase: (f"{phase}.nii.gz", nifti_bytes(volume), "application/gzip")
        for phase, volume in volumes.items()
    }
