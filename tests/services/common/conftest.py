from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis_servers import KINDS, RedisServer, require


@pytest.fixture(scope="module", params=KINDS)
def redis_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """A running server of each kind, one a module."""
    require(request.param)
    server = RedisServer(request.param, tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
