"""Settings: where a real Redis is named, what a child process is handed, one line for a fault."""

from __future__ import annotations

import pytest

from models.errors import InputError
from services.common.configured import read_settings
from services.common.settings import Settings


def test_either_name_of_the_redis_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LESIONLENS_REDIS_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert Settings().redis == "redis://127.0.0.1:6390/0"
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/1")
    assert Settings().redis == "redis://elsewhere/1"
    monkeypatch.setenv("LESIONLENS_REDIS_URL", "redis://ours/2")
    assert Settings().redis == "redis://ours/2"
    assert Settings(redis_url="redis://chosen/3").redis == "redis://chosen/3"


def test_a_child_process_reads_back_what_it_is_handed(monkeypatch: pytest.MonkeyPatch) -> None:
    handed = Settings(port=4321, redis_url="redis://ours/2")
    for name, value in handed.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == handed


def test_grpc_listens_beside_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LESIONLENS_GRPC_PORT")
    assert Settings(_env_file=None).grpc == 3001
    assert Settings(_env_file=None, port=4000).grpc == 4001
    assert Settings(_env_file=None, port=4000, grpc_port=9000).grpc == 9000
    assert Settings(_env_file=None, grpc_port=0).grpc is None


def test_a_value_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESIONLENS_PORT", "abc")
    with pytest.raises(InputError) as fault:
        read_settings()
    assert fault.value.field == "LESIONLENS_PORT"
