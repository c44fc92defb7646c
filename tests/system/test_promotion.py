"""Promotions and a rollback while clients keep asking: no request fails, and none is answered by a
bundle that was not in production then.

The networks are real and small, each with weights of its own, so that an answer shows which of them
computed it, whatever hash it carries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import httpx
import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import load_model
from models.bundle.write import write_bundle
from models.reasons.predict import predict
from models.voi import extract
from models.volume import Box, Study, Volume
from services.cli.stack import Stack, free_ports
from services.common import promotion
from services.common.registry import Event
from services.common.remote import RemoteModel
from services.common.settings import Settings
from services.common.store import PRODUCTION, register
from tests.models.bundle import tiny_onnx
from tests.support.load import Crowd, ask_oip, npy, oip_body

pytestmark = pytest.mark.system

BUNDLES, REQUESTS, JOBS = 4, 2000, 8
BOX = "8,8,4,20,20,10"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Four bundles of different weights."""
    folder = tmp_path_factory.mktemp("bundles")
    for i in range(BUNDLES):
        write_bundle(folder / str(i), tiny_onnx.parts(i, name=f"tiny-{i}"))
    return [read_bundle(folder / str(i)) for i in range(BUNDLES)]


@pytest.fixture(scope="module")
def site(
    bundles: list[Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stack, Settings]]:
    """Redis, the front door and a worker that follow production, where the first bundle is."""
    port, redis_port = free_ports(2)
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, bundle=PRODUCTION, port=port, redis_port=redis_port, resident=2)
    for bundle in bundles:
        register(bundle.path, settings)
    promotion.promote(bundles[0].hash, settings, "test", "the first")
    with Stack(settings) as stack:
        yield stack, settings


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    rng = np.random.default_rng(7)
    data = rng.normal(100, 5, (3, 28, 28, 14)).astype(np.float32)
    data[:, 8:20, 8:20, 4:10] += np.array([60, 35, 10], np.float32)[:, None, None, None]
    return data


def expected_logits(bundle: Bundle, voxels: np.ndarray) -> np.ndarray:
    """What POST /v1/predictions must answer, computed in this process."""
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    phases = bundle.manifest.phases
    corners = [int(v) for v in BOX.split(",")]
    study = Study.make(
        {p: Volume.make(v, affine) for p, v in zip(phases, voxels, strict=True)},
        {p: Box(tuple(corners[:3]), tuple(corners[3:])) for p in phases},  # type: ignore[arg-type]
        phases,
    )
    answer = predict(extract(study, bundle.preprocessing), bundle, load_model(bundle))
    return np.array(answer.logits)


def explained(client: httpx.Client, body: bytes, seed: int) -> tuple[str, np.ndarray]:
    """One explanation job from acceptance to document."""
    query = f"spacing=1.5,1.5,3&box={BOX}&passes=3&map_steps=2&seed={seed}"
    accepted = client.post(
        f"/v1/explanations?{query}", content=body, headers={"Content-Type": "application/x-npy"}
    )
    accepted.raise_for_status()
    status = accepted.json()
    while status["state"] in ("queued", "running"):
        time.sleep(0.1)
        answer = client.get(status["links"]["self"])
        answer.raise_for_status()
        status = answer.json()
    assert status["state"] == "done", status
    document = status["result"]
    return document["provenance"]["bundle"], np.zeros(0)


def served(client: httpx.Client) -> str:
    return str(client.get("/v1/models").raise_for_status().json()["models"][0]["bundle"])


def test_three_promotions_and_a_rollback_drop_no_request(
    site: tuple[Stack, Settings], bundles: list[Bundle], voxels: np.ndarray, record_property
) -> None:
    stack, settings = site
    x = np.random.default_rng(3).normal(size=(1, 3, 8, 8, 8)).astype(np.float32)
    scores = {b.hash: load_model(b).forward(x, ["scores"])["scores"].ravel() for b in bundles}
    logits = {b.hash: expected_logits(b, voxels) for b in bundles}
    assert len({tuple(np.round(v, 3)) for v in scores.values()}) == BUNDLES
    first = bundles[0].hash
    body, headers = oip_body(x)
    study = npy(voxels)

    def new_client() -> httpx.Client:
        return httpx.Client(base_url=stack.url, timeout=60, trust_env=False)

    def rest(client: httpx.Client) -> tuple[str, np.ndarray]:
        answer = client.post(
            f"/v1/predictions?spacing=1.5,1.5,3&box={BOX}",
            content=study,
            headers={"Content-Type": "application/x-npy"},
        )
        answer.raise_for_status()
        return answer.json()["bundle"], np.array(answer.json()["logits"])

    crowd = Crowd()
    asks = {
        "oip": lambda client, _n: ask_oip(client, body, headers),
        "rest": lambda client, _n: rest(client),
        "pinned": lambda client, _n: ask_oip(client, body, headers, first),
        "job": lambda client, n: explained(client, study, n),
    }
    for kind in ("oip", "oip", "rest", "rest", "pinned", "job"):
        crowd.start(kind, partial(asks[kind], new_client()))
    # A worker's own way to the model: it stays with the bundle that it began with.
    remote = RemoteModel(stack.url, bundle=first)
    crowd.start(
        "remote", lambda _n: (first, remote.forward(x, ["scores"])["scores"].ravel().astype(float))
    )

    seen: list[tuple[Event, float]] = []  # a change of production, and when the service showed it
    steps = [
        lambda: promotion.promote(bundles[1].hash, settings, "test"),
        lambda: promotion.promote(bundles[2].hash, settings, "test"),
        lambda: promotion.promote(bundles[3].hash, settings, "test"),
        lambda: promotion.rollback(settings, "test", "back"),
    ]
    try:
        with new_client() as watch:
            for number, step in enumerate(steps, 1):
                until(lambda n=number: enough(crowd, n / (len(steps) + 1)), crowd)
                step()
                with promotion.opened(settings) as registry:
                    event = registry.history()[-1]
                until(lambda e=event: served(watch) == e.production, crowd)
                seen.append((event, time.time()))
            until(lambda: enough(crowd, 1.0), crowd)
    finally:
        crowd.stop()

    assert crowd.failures == []
    assert len(crowd.answers) >= REQUESTS
    assert [e.action for e, _ in seen] == ["promote", "promote", "promote", "rollback"]
    assert seen[-1][0].production == bundles[2].hash
    shown = [time_ for _, time_ in seen]
    spans = [(first, 0.0, shown[0])]  # bundle, in production from, served at most until
    for (event, _), until_ in zip(seen, [*shown[1:], np.inf], strict=True):
        spans.append((str(event.production), event.at, until_))
    for answer in crowd.answers:
        if answer.kind in ("pinned", "remote"):
            assert answer.bundle == first
        else:
            assert any(
                answer.bundle == bundle and answer.ended >= start and answer.began <= end
                for bundle, start, end in spans
            ), answer
        if answer.kind in ("oip", "pinned", "remote"):
            np.testing.assert_allclose(answer.values, scores[answer.bundle], atol=1e-6)
        elif answer.kind == "rest":
            np.testing.assert_allclose(answer.values, logits[answer.bundle], atol=1e-4)
    for kind in ("oip", "rest"):
        assert {a.bundle for a in crowd.answers if a.kind == kind} == {b.hash for b in bundles}
    assert len({a.bundle for a in crowd.answers if a.kind == "job"}) > 1
    lags = [shown_at - event.at for event, shown_at in seen]
    record_property("answers", {k: crowd.count(k) for k in ("oip", "rest", "job", "pinned")})
    record_property("seconds_from_promotion_to_service", [round(lag, 2) for lag in lags])
    print({k: crowd.count(k) for k in ("oip", "rest", "job", "pinned", "remote")}, lags)


def enough(crowd: Crowd, share: float) -> bool:
    return (
        len(crowd.answers) >= REQUESTS * share
        and crowd.count("job") >= JOBS * share
        and crowd.count("rest") >= 0.1 * REQUESTS * share
    )


def until(condition, crowd: Crowd, seconds: float = 240.0) -> None:  # type: ignore[no-untyped-def]
    """Wait, and give up at the first failed request: more of them would say nothing new."""
    end = time.monotonic() + seconds
    while not condition():
        assert not crowd.failures, crowd.failures[:3]
        assert time.monotonic() < end, {k: crowd.count(k) for k in ("oip", "rest", "job")}
        time.sleep(0.1)
