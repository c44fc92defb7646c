"""Several bundles in one process: swaps, versions on demand, promotions that are turned down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.bundle.write import write_bundle
from models.errors import BundleError, NotFound, Unavailable
from services.common.bundles import Bundles
from services.common.problems import install
from services.common.registry import Registry
from services.common.settings import Settings
from services.common.store import PRODUCTION, register
from services.inference import catalogue, oip
from services.inference.core import Core
from services.inference.fleet import Fleet
from services.inference.follow import Follower
from tests.models.bundle import tiny_onnx
from tests.support.load import ask_oip, oip_body

GONE = "b-00000000000000000000"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    return Settings(home=home, bundle=PRODUCTION, resident=2, sessions=1, queue=1)


@pytest.fixture(scope="module")
def hashes(site: Settings, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three stored bundles of different weights."""
    found = []
    for i in range(3):
        folder = tmp_path_factory.mktemp("bundle")
        write_bundle(folder, tiny_onnx.parts(i, name=f"tiny-{i}"))
        found.append(register(folder, site).removeprefix("lesionlens:"))
    return found


def make(site: Settings, first: str) -> Fleet:
    bundles = Bundles(site)
    return Fleet(bundles.of(first), bundles, site)


def run(work: Callable[[Fleet], Awaitable[None]], site: Settings, first: str) -> None:
    """Work on a loaded fleet, and close it."""

    async def whole() -> None:
        fleet = make(site, first)
        await fleet.load()
        try:
            await work(fleet)
        finally:
            await fleet.close()

    asyncio.run(whole())


def test_before_loading_nothing_is_served(site: Settings, hashes: list[str]) -> None:
    fleet = make(site, hashes[0])
    assert not fleet.ready
    assert fleet.bundle.hash == hashes[0]
    with pytest.raises(Unavailable):
        _ = fleet.current


def test_a_swap_leaves_what_runs_alone(site: Settings, hashes: list[str]) -> None:
    x = np.ones((1, 3, 8, 8, 8), np.float32)

    async def work(fleet: Fleet) -> None:
        old = fleet.current
        before = old.model.forward(x, ["scores"])["scores"]
        await fleet.swap(hashes[1])
        assert fleet.current.bundle.hash == fleet.bundle.hash == hashes[1]
        assert fleet.resident == [hashes[1], hashes[0]]
        await fleet.swap(hashes[2])
        assert fleet.resident == [hashes[2], hashes[1]]  # two are kept
        np.testing.assert_array_equal(old.model.forward(x, ["scores"])["scores"], before)
        again = await fleet.host(hashes[0])  # and the first comes back when it is asked for
        assert again is not old
        np.testing.assert_array_equal(again.model.forward(x, ["scores"])["scores"], before)
        assert fleet.current.bundle.hash == hashes[2]
        assert fleet.resident == [hashes[2], hashes[0]]

    run(work, site, hashes[0])


def test_many_who_ask_at_once_load_it_once(site: Settings, hashes: list[str]) -> None:
    async def work(fleet: Fleet) -> None:
        asks = [asyncio.ensure_future(fleet.host(hashes[1])) for _ in range(5)]
        await asyncio.sleep(0)
        asks[0].cancel()  # a client that hangs up does not stop the others
        hosts = await asyncio.gather(*asks[1:])
        assert len({id(host) for host in hosts}) == 1

    run(work, site, hashes[0])


@pytest.mark.parametrize("version", [GONE, "2", "../../etc/passwd", "latest"])
def test_no_such_version(site: Settings, hashes: list[str], version: str) -> None:
    async def work(fleet: Fleet) -> None:
        with pytest.raises(NotFound):
            await fleet.host(version)
        with pytest.raises(BundleError):
            await fleet.swap(version)
        assert fleet.current.bundle.hash == hashes[0]

    run(work, site, hashes[0])


def test_the_queue_is_one_for_all_bundles(site: Settings, hashes: list[str]) -> None:
    async def work(fleet: Fleet) -> None:
        with fleet.admit():
            await fleet.swap(hashes[1])
            with fleet.admit(), pytest.raises(Unavailable) as full, fleet.admit():
                pass
            assert full.value.code == "queue_full"
        with fleet.admit():
            pass

    run(work, site, hashes[0])


def test_promotions_are_followed_and_a_bad_bundle_is_refused(
    site: Settings,
    hashes: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = Registry("sqlite://")
    monkeypatch.setattr(logging.getLogger("lesionlens"), "propagate", True)

    async def work(fleet: Fleet) -> None:
        follower = Follower(fleet, registry)
        assert not await follower.tick()  # nothing promoted yet: what is served stays
        registry.promote(hashes[1], "ann")
        assert await follower.tick()
        assert not await follower.tick()
        assert fleet.current.bundle.hash == hashes[1]
        registry.promote(GONE, "ann")  # as if its files were lost after it was promoted
        with caplog.at_level(logging.INFO, "lesionlens.follow"):
            for _ in range(3):
                assert not await follower.tick()
        assert fleet.current.bundle.hash == hashes[1]
        refusals = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert len(refusals) == 1
        assert GONE in refusals[0]
        assert f"{hashes[1]} stays" in refusals[0]
        registry.promote(hashes[2], "ann")
        assert await follower.tick()
        registry.rollback("ann")  # back to the bad one: refused again, what is served stays
        assert not await follower.tick()
        assert fleet.current.bundle.hash == hashes[2]

    run(work, site, hashes[0])


@pytest.fixture
def client(site: Settings, hashes: list[str]) -> Iterator[TestClient]:
    """The routes that tell versions apart, in this process."""
    fleet = make(site, hashes[0])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await fleet.load()
        yield
        await fleet.close()

    registry = Registry("sqlite://")
    registry.promote(hashes[2], "ann")
    registry.promote(hashes[0], "ann")
    app = FastAPI(lifespan=lifespan)
    app.include_router(oip.build_router(Core(fleet)))
    app.include_router(catalogue.build_router(fleet, site, registry))
    install(app)
    with TestClient(app) as client:
        yield client


def test_a_version_is_a_bundle(client: TestClient, hashes: list[str]) -> None:
    x = tiny_onnx.images(1, 3)
    body, headers = oip_body(x)
    for version, seed, name in [("", 0, hashes[0]), ("1", 0, hashes[0]), (hashes[1], 1, hashes[1])]:
        bundle, scores = ask_oip(client, body, headers, version)  # type: ignore[arg-type]
        assert bundle == name
        expected = tiny_onnx.expected_outputs(x, seed)["scores"].ravel()
        np.testing.assert_allclose(scores, expected, atol=1e-5)
    of: dict[str, Any] = client.get(f"/v2/models/classifier/versions/{hashes[1]}").json()
    assert of["versions"] == [hashes[1]]
    assert of["parameters"]["bundle"] == hashes[1]
    assert client.get("/v2/models/classifier").json()["versions"] == [hashes[0], hashes[1]]
    index = client.post("/v2/repository/index").json()
    assert {(m["name"], m["version"]) for m in index} == {
        (m, h) for m in ("classifier", "gradients", "passes", "paths") for h in hashes[:2]
    }
    for path in ("", "/config", "/ready"):
        gone = client.get(f"/v2/models/classifier/versions/{GONE}{path}")
        assert gone.status_code == 404
        assert "no such version" in gone.json()["error"]


def test_the_catalogue_says_what_is_what(client: TestClient, hashes: list[str]) -> None:
    said = client.get("/v1/models").json()
    assert [m["bundle"] for m in said["models"]] == [hashes[0]]
    assert said["follows"]
    assert said["loaded"] == [hashes[0]]
    assert {m["bundle"]: m["state"] for m in said["store"]} == {
        hashes[0]: "production",
        hashes[1]: "candidate",
        hashes[2]: "archived",
    }
