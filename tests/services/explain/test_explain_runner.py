"""The work on a job, with the model in this process: what can happen to it on the way."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle.read import Bundle
from models.bundle.runtime import load_model
from models.errors import Unavailable
from models.model import Model, ModelInfo
from models.reasons.explain import document_bytes, explain, explanation_id
from models.voi import Lesion
from services.common.blobs import Blobs
from services.common.bundles import Bundles
from services.common.events import MemoryEvents
from services.common.ledger import Job, Ledger
from services.common.settings import Settings
from services.explain import keys
from services.explain.runner import Runner
from wire.api import ExplanationParameters, JobState

ASKED = ExplanationParameters(passes=3, map_steps=2)


class Scene:
    """A ledger, blobs and events in memory, one accepted job, and a runner."""

    def __init__(self, bundle: Bundle, lesion: Lesion) -> None:
        self.bundle = bundle
        self.lesion = lesion
        self.ledger = Ledger("sqlite://")
        self.blobs = Blobs(f"memory://{uuid.uuid4().hex}")
        self.events = MemoryEvents()
        self.blobs.put(keys.lesion(lesion.id), lesion.to_bytes())
        self.id = explanation_id(lesion.id, bundle.manifest.hash, ASKED)
        self.accept(bundle.manifest.hash)

    def accept(self, bundle_hash: str) -> None:
        self.ledger.add(
            self.id, lesion=self.lesion.id, bundle=bundle_hash, parameters=ASKED.model_dump()
        )

    def bundle_of(self, wanted: str) -> Bundle:
        return Bundles(Settings(home=Path("/nowhere"), bundle=self.bundle.path)).of(wanted)

    def runner(self, connect: Callable[[], Model], **more: float) -> Runner:
        return Runner(
            self.bundle_of,
            lambda _: connect(),
            ledger=self.ledger,
            blobs=self.blobs,
            events=self.events,
            attempts=3,
            patience=more.get("patience", 5.0),
        )

    @property
    def job(self) -> Job:
        job = self.ledger.get(self.id)
        assert job is not None
        return job


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return load_model(bundle, threads=1)


@pytest.fixture
def scene(bundle: Bundle, lesion: Lesion) -> Scene:
    return Scene(bundle, lesion)


class Around:
    """A model that does something before each forward call."""

    def __init__(self, model: Model, before: Callable[[], None]) -> None:
        self._model = model
        self._before = before
        self.gradients: Callable[..., dict[str, Any]] = model.gradients
        self.passes: Callable[..., dict[str, Any]] = model.passes
        self.paths: Callable[..., dict[str, Any]] = model.paths

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    def forward(self, x, outputs):  # type: ignore[no-untyped-def]
        self._before()
        return self._model.forward(x, outputs)


def test_the_result_is_what_explain_gives_in_process(scene: Scene, model: Model) -> None:
    assert scene.runner(lambda: model).run(scene.id) is JobState.DONE
    expected = explain(scene.lesion, scene.bundle, model, ASKED)
    assert scene.job.result == keys.result(scene.id)
    prefix = keys.result(scene.id)
    assert scene.blobs.get(f"{prefix}/{keys.DOCUMENT}") == document_bytes(expected.document)
    assert b"<html" in scene.blobs.get(f"{prefix}/{keys.REPORT}")[:500].lower()
    said = [(e.kind, e.data["state"]) for e in scene.events._streams[scene.id]]
    assert said[0] == ("state", "running")
    assert ("progress", "running") in said
    assert said[-1] == ("state", "done")


def test_the_same_message_twice_is_worked_on_once(scene: Scene, model: Model) -> None:
    runner = scene.runner(lambda: model)
    assert runner.run(scene.id) is JobState.DONE
    first = scene.job
    assert runner.run(scene.id) is None
    assert scene.job == first
    assert runner.run("exp-unknown") is None


def test_a_cancelled_job_stops_between_stages(scene: Scene, model: Model) -> None:
    def cancel() -> None:
        scene.ledger.cancel(scene.job)

    def never(*_: object) -> dict[str, Any]:
        raise AssertionError("the work went on")

    cancelling = Around(model, cancel)
    cancelling.gradients = cancelling.passes = cancelling.paths = never
    assert scene.runner(lambda: cancelling).run(scene.id) is None
    assert scene.job.state is JobState.CANCELLED
    assert not scene.blobs.exists(f"{keys.result(scene.id)}/{keys.DOCUMENT}")


def test_a_job_that_was_given_to_another_is_left_alone(scene: Scene, model: Model) -> None:
    def take_away() -> None:
        if scene.job.attempts == 1:
            scene.ledger.release(scene.job)
            scene.ledger.claim(scene.id)

    assert scene.runner(lambda: Around(model, take_away)).run(scene.id) is None
    assert (scene.job.state, scene.job.attempts) == (JobState.RUNNING, 2)


def test_a_short_absence_of_the_inference_service_is_waited_out(scene: Scene, model: Model) -> None:
    misses = [2]

    def away() -> None:
        if misses[0]:
            misses[0] -= 1
            raise Unavailable("the inference service is down")

    opened = []

    def connect() -> Model:
        opened.append(1)
        return Around(model, away)

    assert scene.runner(connect).run(scene.id) is JobState.DONE
    assert len(opened) == 3


def test_the_model_is_kept_between_jobs_that_end_well(scene: Scene, model: Model) -> None:
    misses = [0]

    def away() -> None:
        if misses[0]:
            misses[0] -= 1
            raise Unavailable("the inference service is down")

    opened = []

    def connect() -> Model:
        opened.append(1)
        return Around(model, away)

    runner = scene.runner(connect)
    assert runner.run(scene.id) is JobState.DONE
    scene.ledger.renew(scene.job)
    assert runner.run(scene.id) is JobState.DONE
    assert len(opened) == 1
    misses[0] = 1
    scene.ledger.renew(scene.job)
    assert runner.run(scene.id) is JobState.DONE  # on a second one, opened after the trouble
    assert len(opened) == 2


def test_after_a_job_that_failed_the_model_is_opened_afresh(scene: Scene, model: Model) -> None:
    faulty = [True]

    def break_down() -> None:
        if faulty[0]:
            raise RuntimeError("a fault")

    opened = []

    def connect() -> Model:
        opened.append(1)
        return Around(model, break_down)

    runner = scene.runner(connect)
    assert runner.run(scene.id) is JobState.FAILED
    faulty[0] = False
    scene.ledger.renew(scene.job)
    assert runner.run(scene.id) is JobState.DONE
    assert len(opened) == 2


def test_a_long_absence_gives_the_job_back_without_counting(scene: Scene) -> None:
    def connect() -> Model:
        raise Unavailable("the inference service is down")

    started = time.monotonic()
    assert scene.runner(connect, patience=0.5).run(scene.id) is JobState.QUEUED
    assert time.monotonic() - started < 3
    assert scene.job.attempts == 0
    assert "inference service is down" in scene.job.stage


def test_a_bundle_that_is_gone_fails_the_job(scene: Scene, model: Model) -> None:
    scene.id = "exp-other"
    scene.accept("b-00000000000000000000")
    assert scene.runner(lambda: model).run(scene.id) is JobState.FAILED
    assert scene.job.error is not None
    assert scene.job.error["type"] == "urn:lesionlens:problem:bundle_missing"
    assert scene.job.error["found"] == "lesionlens:b-00000000000000000000"


def test_a_server_with_another_bundle_is_refused(scene: Scene, model: Model) -> None:
    class Other(Around):
        @property
        def info(self) -> ModelInfo:
            info = model.info
            return ModelInfo("b-other", info.classes, info.phases, info.taps, info.input_shape)

    assert scene.runner(lambda: Other(model, lambda: None)).run(scene.id) is JobState.FAILED
    assert scene.job.error is not None
    assert "inference service has another bundle" in scene.job.error["detail"]


def test_a_fault_inside_fails_the_job_and_shows_nothing_of_it(scene: Scene, model: Model) -> None:
    def bug() -> None:
        raise RuntimeError("secret /path/of/the/server")

    assert scene.runner(lambda: Around(model, bug)).run(scene.id) is JobState.FAILED
    assert scene.job.error is not None
    assert scene.job.error["type"] == "urn:lesionlens:problem:internal_error"
    assert "secret" not in json.dumps(scene.job.error)


def test_a_lesion_that_is_gone_fails_the_job(scene: Scene, model: Model) -> None:
    scene.blobs.delete(keys.lesion(scene.lesion.id))
    assert scene.runner(lambda: model).run(scene.id) is JobState.FAILED


def test_the_worker_beats_while_it_works(scene: Scene, model: Model) -> None:
    beats = set()

    def slow() -> None:
        end = time.monotonic() + 2.4
        while time.monotonic() < end:
            beats.add(scene.job.heartbeat)
            time.sleep(0.05)

    calls = [0]

    def once() -> None:
        calls[0] += 1
        if calls[0] == 1:
            slow()

    assert scene.runner(lambda: Around(model, once)).run(scene.id) is JobState.DONE
    assert len(beats) >= 3
