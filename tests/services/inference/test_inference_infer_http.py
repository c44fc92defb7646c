"""The hot route as ASGI: the same answers and layers as FastAPI's, leave, deadlines, sharing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from models.bundle.read import Bundle
from services.common.settings import Settings
from services.front.app import FrontDoor, create_app
from services.inference.infer_http import InferRoute
from tests.models.bundle import tiny_onnx
from tests.support.load import oip_body

PATH = "/v2/models/classifier/infer"
Test = Callable[[FrontDoor], Coroutine[Any, Any, None]]


@pytest.fixture
def serve(small: Bundle, tmp_path: Path) -> Callable[..., None]:
    """Run a test against the loaded app, without its neighbours."""

    def serve(test: Test, **settings: Any) -> None:
        values: dict[str, Any] = {"sessions": 1, "queue": 4, "home": tmp_path}
        site = Settings(**(values | settings))

        async def whole() -> None:
            app = create_app(small, site)
            await app.fleet.load()
            try:
                await asyncio.wait_for(test(app), 60)
            finally:
                await app.fleet.close()

        asyncio.run(whole())

    return serve


class Client:
    """One request over ASGI; `leave` is the end of its connection."""

    def __init__(self, path: str, body: bytes, headers: dict[str, str], parts: int = 1) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "scheme": "http",
            "state": {},
        }
        cuts = np.linspace(0, len(body), parts + 1).astype(int)
        self.parts = [body[a:b] for a, b in pairwise(cuts)]
        self.gone = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def leave(self) -> None:
        self.gone.set()

    async def receive(self) -> dict[str, Any]:
        if self.parts:
            part = self.parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self.parts)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message.get("body", b"")

    async def ask(self, app: Any) -> Client:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def said(self) -> Any:
        return json.loads(self.body)


def client(rows: int = 1, seed: int = 3, path: str = PATH, **parameters: Any) -> Client:
    body, headers = oip_body(tiny_onnx.images(rows, seed))
    return Client(path, *with_parameters(body, headers, parameters), parts=3)


def with_parameters(
    body: bytes, headers: dict[str, str], parameters: dict[str, Any]
) -> tuple[bytes, dict[str, str]]:
    length = int(headers["Inference-Header-Content-Length"])
    head = json.loads(body[:length]) | {"parameters": parameters}
    text = json.dumps(head).encode()
    return text + body[length:], {"Inference-Header-Content-Length": str(len(text))}


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


class Busy:
    """Holds the one thread of the scheduler."""

    def __init__(self, app: FrontDoor) -> None:
        self._app = app
        self._open = threading.Event()
        self._entered = threading.Event()

    def _wait(self) -> None:
        self._entered.set()
        assert self._open.wait(30)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._app.fleet.run(self._wait))
        await asyncio.to_thread(self._entered.wait, 30)

    async def __aexit__(self, *_: object) -> None:
        self._open.set()
        await self._task


@pytest.mark.parametrize("way", ["express", "framework"])
def test_both_ways_give_the_same(serve: Any, way: str, hash_of: Callable[[], str]) -> None:
    async def test(app: FrontDoor) -> None:
        async def framework(*call: Any) -> None:
            await FastAPI.__call__(app, *call)

        through = app if way == "express" else framework
        for path in (PATH, f"/v2/models/classifier/versions/{hash_of()}/infer"):
            answer = await client(path=path).ask(through)
            assert answer.status == 200
            expected = tiny_onnx.expected_outputs(tiny_onnx.images(1, 3))["scores"]
            np.testing.assert_allclose(
                answer.said["outputs"][0]["data"], expected.ravel(), atol=1e-5
            )
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert int(answer.headers["content-length"]) == len(answer.body)
            assert answer.headers["content-type"] == "application/json"
            assert answer.scope["route"].path.endswith("/infer")
            assert "{model}" in answer.scope["route"].path
        gone = await client(path="/v2/models/nothing/infer").ask(through)
        pickled = await Client(PATH, b"x", {"Content-Type": "application/x-pickle"}).ask(through)
        packed = await Client(PATH, b"x", {"Content-Encoding": "br"}).ask(through)
        long = await Client(PATH, b"x", {"Content-Length": str(2 << 20)}).ask(through)
        short = await Client(PATH, b"x", {"Inference-Header-Content-Length": "-1"}).ask(through)
        answers = [gone, pickled, packed, long, short]
        assert [a.status for a in answers] == [404, 415, 415, 413, 400]
        for answer in answers:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert isinstance(answer.said["error"], str)

    serve(test, max_body_mb=1)


@pytest.fixture
def hash_of(small: Bundle) -> Callable[[], str]:
    return lambda: small.hash


@pytest.mark.parametrize(
    ("method", "path", "owned"),
    [
        ("POST", PATH, True),
        ("POST", "/v2/models/x/versions/1/infer", True),
        ("GET", PATH, False),
        ("POST", PATH + "/", False),
        ("POST", "/v2/models/a/b/infer", False),
        ("POST", "/v2/models//infer", False),
        ("POST", "/v1/predictions", False),
    ],
)
def test_what_the_route_owns(method: str, path: str, owned: bool) -> None:
    assert InferRoute.owns({"type": "http", "method": method, "path": path}) is owned
    assert not InferRoute.owns({"type": "lifespan"})


def test_numbers_as_text_are_the_same_numbers(serve: Any) -> None:
    async def test(app: FrontDoor) -> None:
        x = tiny_onnx.images(5, 1)  # enough to be read beside the event loop
        message = {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.tolist()}
            ],
            "outputs": [{"name": "conv1_map"}],
        }
        body = json.dumps(message).encode()
        assert len(body) > 1 << 14
        answer = await Client(PATH, body, {}, parts=4).ask(app)
        (output,) = answer.said["outputs"]
        expected = tiny_onnx.expected_outputs(x)["conv1_map"]
        np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), expected, atol=1e-4)
        broken = await Client(PATH, body[:-9], {}).ask(app)
        assert broken.status == 400

    serve(test)


def test_a_client_that_leaves_is_not_served(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(app: FrontDoor) -> None:
        ran: list[int] = []
        forward = app.fleet.current.model.forward
        monkeypatch.setattr(
            app.fleet.current.model,
            "forward",
            lambda x, names: ran.append(len(x)) or forward(x, names),
        )
        async with Busy(app):
            gone, stays = client(), client()
            asks = [asyncio.create_task(c.ask(app)) for c in (gone, stays)]
            await asyncio.sleep(0.05)
            gone.leave()
            await asks[0]
            assert gone.status == 499
            assert not asks[1].done()
        await asks[1]
        assert stays.status == 200
        assert ran == [1]
        for _ in range(5):  # its place came back
            assert (await client().ask(app)).status == 200

    serve(test)


def test_a_client_that_leaves_in_mid_body_gives_its_place_back(serve: Any) -> None:
    async def test(app: FrontDoor) -> None:
        for _ in range(8):  # more than there are places
            cut_off = client()
            part = cut_off.parts[0]

            async def receive(parts: list[bytes] = [part]) -> dict[str, Any]:  # noqa: B006
                if parts:
                    return {"type": "http.request", "body": parts.pop(), "more_body": True}
                return {"type": "http.disconnect"}

            cut_off.receive = receive  # type: ignore[method-assign]
            await cut_off.ask(app)
            assert cut_off.status == 499
        assert (await client().ask(app)).status == 200

    serve(test)


def test_a_full_queue_refuses_before_a_body_is_read(serve: Any) -> None:
    async def test(app: FrontDoor) -> None:
        async with Busy(app):
            waiting = [asyncio.create_task(client().ask(app)) for _ in range(2)]
            await asyncio.sleep(0.02)
            refused = client()
            await refused.ask(app)
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.said["type"].endswith(":queue_full")
            assert len(refused.parts) == 3  # nothing of it was read
        assert [c.status for c in await asyncio.gather(*waiting)] == [200, 200]

    serve(test, queue=1)


def test_a_deadline_that_passed_is_504(serve: Any) -> None:
    async def test(app: FrontDoor) -> None:
        async with Busy(app):
            late = await client(timeout=20_000).ask(app)
            assert late.status == 504
            assert late.said["type"].endswith(":deadline_exceeded")
            assert late.said["field"] == "timeout"
        assert (await client(timeout=30_000_000, priority=1).ask(app)).status == 200
        wrong = await client(timeout="soon").ask(app)
        assert wrong.status == 400
        assert wrong.said["field"] == "timeout"

    serve(test)


def test_requests_that_share_a_run_get_their_own_rows(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(app: FrontDoor) -> None:
        runs: list[int] = []
        forward = app.fleet.current.model.forward
        monkeypatch.setattr(
            app.fleet.current.model,
            "forward",
            lambda x, names: runs.append(len(x)) or forward(x, names),
        )
        clients = [client(seed=seed) for seed in range(4)]
        clients += [client(seed=4, alone=True), client(rows=2, seed=5), client(seed=6)]
        async with Busy(app):
            asks = [asyncio.create_task(c.ask(app)) for c in clients]
            await asyncio.sleep(0.1)
        await asyncio.gather(*asks)
        assert sorted(runs) == [1, 2, 5]
        for seed, asked in enumerate(clients):
            x = tiny_onnx.images(2 if seed == 5 else 1, seed)
            expected = tiny_onnx.expected_outputs(x)["scores"]
            (output,) = asked.said["outputs"]
            assert output["shape"] == list(expected.shape)
            np.testing.assert_allclose(output["data"], expected.ravel(), atol=1e-5)

    serve(test, merge_rows=8, queue=16)
