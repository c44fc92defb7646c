from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.bundle.read import Bundle, read_bundle
from models.voi import Lesion
from tests.support import lesions
from tests.support.redis_servers import KINDS, RedisServer, require


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The embedded server, one a module."""
    server = RedisServer("embedded", tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module", params=KINDS)
def each_redis(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """A server of each kind, not started yet."""
    require(request.param)
    server = RedisServer(request.param, tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="session")
def lesion(tiny_cohort: Path, bundle: Bundle) -> Lesion:
    return lesions.lesion(tiny_cohort, bundle.manifest.phases, bundle.preprocessing)
