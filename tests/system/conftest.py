"""One running stack for the tests of the whole path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.stack import Stack, free_ports
from services.common.settings import Settings


@pytest.fixture(scope="session")
def stack(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Embedded Redis, the inference service and a worker on free ports."""
    port, grpc_port, redis_port = free_ports(3)
    settings = Settings(
        home=tmp_path_factory.mktemp("site"),
        bundle=tiny_bundle,
        port=port,
        grpc_port=grpc_port,
        redis_port=redis_port,
    )
    with Stack(settings) as running:
        yield running
