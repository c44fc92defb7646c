"""More than the service can do, offered to the real process: what must hold however fast it is."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.front_server import Front, await_ready, free_port, start_front, stop
from tests.support.load import oip_body

pytestmark = pytest.mark.system

PATH = "/v2/models/classifier/infer"
CLIENTS, REQUESTS, QUEUE = 40, 8, 3


@pytest.fixture(scope="module")
def narrow(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """One thread and three places to wait."""
    home = tmp_path_factory.mktemp("narrow")
    port = free_port()
    process = start_front(
        tiny_bundle, home, port, LESIONLENS_SESSIONS="1", LESIONLENS_QUEUE=str(QUEUE)
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process, home / "stderr.log")
        yield Front(url, tiny_bundle, process, home / "stderr.log")
    finally:
        stop(process)


@pytest.fixture(scope="module")
def shape(narrow: Front) -> list[int]:
    metadata = httpx.get(f"{narrow.url}/v2/models/classifier").json()
    return list(metadata["inputs"][0]["shape"][1:])


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    return sum(float(v) for v in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


def test_every_request_is_answered_or_refused(narrow: Front, shape: list[int]) -> None:
    """Small and large requests, with and without deadlines, from clients of which some leave."""
    rng = np.random.default_rng(0)
    bodies = [oip_body(rng.normal(size=(rows, *shape)).astype(np.float32)) for rows in (1, 24)]
    seen: Counter[int] = Counter()

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=narrow.url, timeout=60) as http:
            for i in range(REQUESTS):
                body, headers = bodies[(number + i) % 8 == 0]
                if number % 10 == 9:  # one in ten leaves before its answer may be there
                    try:
                        await http.post(PATH, content=body, headers=headers, timeout=0.01)
                    except httpx.TimeoutException:
                        continue
                answer = await http.post(PATH, content=body, headers=headers)
                seen[answer.status_code] += 1
                if answer.status_code == 200:
                    assert answer.json()["outputs"][0]["name"] == "scores"
                else:
                    assert answer.status_code == 503, answer.text
                    assert int(answer.headers["retry-after"]) >= 1
                    assert answer.json()["type"].endswith(":queue_full")

    async def crowd() -> None:
        await asyncio.wait_for(asyncio.gather(*map(client, range(CLIENTS))), 120)

    before = metric(narrow.url, "lesionlens_inference_refused_total")
    asyncio.run(crowd())
    assert seen[200] > 0
    assert seen[503] > 0
    assert metric(narrow.url, "lesionlens_inference_refused_total") - before >= seen[503]
    assert metric(narrow.url, "lesionlens_inference_queue_depth") == 0
    body, headers = bodies[0]
    for _ in range(2 * (QUEUE + 1)):  # no place was lost
        assert httpx.post(narrow.url + PATH, content=body, headers=headers).status_code == 200


def test_health_is_answered_while_it_is_busy(narrow: Front, shape: list[int]) -> None:
    body, headers = oip_body(np.zeros((64, *shape), np.float32))

    async def whole() -> None:
        async with httpx.AsyncClient(base_url=narrow.url, timeout=60) as http:
            busy = [
                asyncio.create_task(http.post(PATH, content=body, headers=headers))
                for _ in range(QUEUE + 1)
            ]
            for path in ("/livez", "/readyz", "/metrics"):
                assert (await http.get(path)).status_code == 200
            assert {a.status_code for a in await asyncio.gather(*busy)} == {200}

    asyncio.run(whole())
