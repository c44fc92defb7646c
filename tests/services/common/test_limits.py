"""Bodies beyond the limit, pickled, compressed or stalled never reach a route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from services.common import limits
from services.common.compression import ENCODINGS, compressed
from services.common.limits import BodyLimits, is_pickle_type
from services.common.problems import install

LIMIT = 1000


class Client:
    """Posts to an app in this process."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def post(self, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post(path, **options)

        return asyncio.run(ask())


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.05)


@pytest.fixture(scope="module")
def client() -> Client:
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @app.post("/headers")
    async def headers(request: Request) -> list[str]:
        return list(request.headers)

    @app.post("/swallow")
    async def swallow(request: Request) -> str:
        try:
            await request.body()
        except Exception:
            return "swallowed"
        return "read"

    @app.post("/break")
    async def broken() -> None:
        raise RuntimeError("a secret")

    @app.post("/v2/break")
    async def broken_too() -> None:
        raise RuntimeError("a secret")

    app.add_middleware(BodyLimits, max_bytes=LIMIT)
    install(app)
    return Client(app)


async def _chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 100):
        yield b"x" * 100


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_up_to_the_limit(client: Client, size: int) -> None:
    assert client.post("/echo", content=b"x" * size).json() == size


def test_a_declared_body_is_refused_unread(client: Client) -> None:
    answer = client.post("/echo", content=b"x" * (LIMIT + 1))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:lesionlens:problem:too_large"
    assert problem["field"] == "body"
    assert problem["expected"]


def test_a_streamed_body_is_cut_off(client: Client) -> None:
    assert client.post("/echo", content=_chunks(LIMIT)).json() == LIMIT
    assert client.post("/echo", content=_chunks(LIMIT + 100)).status_code == 413


def test_a_route_cannot_hide_it(client: Client) -> None:
    assert client.post("/swallow", content=_chunks(LIMIT + 100)).status_code == 413


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.bentoml+pickle",
        "application/x-pickle",
        "application/pickle; charset=x",
        "Application/Python-Pickle",
        "application/x-python-pickle",
        "application/x-joblib",
        "application/octet-stream+pickle",
    ],
)
def test_pickle_is_refused(client: Client, kind: str) -> None:
    for path in ("/echo", "/nowhere"):
        answer = client.post(path, content=b"x", headers={"content-type": kind})
        assert answer.status_code == 415
        assert answer.json()["found"].lower() in kind.lower()


def test_other_types_are_no_pickle() -> None:
    for kind in ("", "application/json", "multipart/form-data; boundary=a", "application/x-npy"):
        assert not is_pickle_type(kind)


def _compressed(client: Client, encoding: str, body: bytes) -> httpx.Response:
    return client.post("/echo", content=body, headers={"content-encoding": encoding})


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_compressed_body_is_expanded(client: Client, encoding: str) -> None:
    for size in (0, 1, LIMIT):
        answer = _compressed(client, encoding, compressed(b"x" * size, encoding))
        assert answer.json() == size
    headers = {"content-encoding": encoding}
    found = client.post("/headers", content=compressed(b"x", encoding), headers=headers).json()
    assert not {"content-encoding", "content-length"} & set(found)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_expands_beyond_the_limit_is_refused(client: Client, encoding: str) -> None:
    for size in (LIMIT + 1, 64 << 20):
        bomb = compressed(b"x" * size, encoding)
        if len(bomb) <= LIMIT:
            assert _compressed(client, encoding, bomb).status_code == 413
    assert len(compressed(b"x" * (LIMIT + 1), encoding)) < LIMIT


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_that_is_not_what_it_says(client: Client, encoding: str) -> None:
    whole = compressed(b"x" * 100 + bytes(range(200)), encoding)
    for body in (b"", b"x", b"no such thing at all", whole[:-3], whole + b"more"):
        answer = _compressed(client, encoding, body)
        assert (answer.status_code, answer.json()["field"]) == (400, "Content-Encoding")


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "compress"])
def test_other_encodings_are_refused(client: Client, encoding: str) -> None:
    answer = _compressed(client, encoding, b"x")
    assert (answer.status_code, answer.json()["field"]) == (415, "Content-Encoding")


def test_nothing_of_a_crash_is_told(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    answer = client.post("/break")
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:lesionlens:problem:internal_error"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "a secret" in caplog.text  # the server's own log has it
    assert client.post("/v2/break").json()["error"]


def test_a_silent_client_is_let_go() -> None:
    sent: list[dict[str, Any]] = []
    arriving = [{"type": "http.request", "body": b"x", "more_body": True}]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        raise AssertionError("the body never ends")

    async def receive() -> Any:
        if not arriving:
            await asyncio.sleep(60)
        return arriving.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(BodyLimits(app, LIMIT, stall_seconds=0.05)(scope, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["type"].endswith("upload_stalled")
    assert sent[-1]["more_body"] is False
