"""Explanation jobs as the API sees them: submit, status, results, cancel.

    submit:  lesion -> blob -> ledger row (from here on it is accepted) -> queue message

A job's id is the hash of all that its answer depends on: what was asked before is not computed
again, and a message that gets lost or doubled does no harm.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models.errors import InputError, NotFound, Unavailable
from models.reasons.explain import explanation_id, maps_bytes, maps_from_bytes
from models.voi import Lesion
from services.common.blobs import Blobs
from services.common.broker import Broker
from services.common.events import Events
from services.common.ledger import Job, Ledger
from services.common.settings import Settings
from services.explain import keys
from wire.api import ExplanationParameters, JobLinks, JobState, JobStatus, Problem
from wire.explanation import Explanation

if TYPE_CHECKING:
    from celery import Celery

BASE = "/v1/explanations"


class Gone(NotFound):
    """The job was there; its result was kept as long as the settings say."""

    code = "expired"
    status = 410


class Conflict(InputError):
    """The job's state does not allow it."""

    code = "conflict"
    status = 409


class Jobs:
    """Composed once a process. Methods block for milliseconds: call them from a thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger,
        blobs: Blobs,
        events: Events,
        broker: Broker,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.blobs = blobs
        self.events = events
        self.broker = broker

    @cached_property
    def celery(self) -> Celery:
        """Made when the first message is sent, or by services.front.later."""
        from services.explain.celery_app import make_app

        return make_app(self.settings)

    def submit(
        self, lesion: Lesion, parameters: ExplanationParameters, bundle: str
    ) -> tuple[Job, bool]:
        """Accept a job, or find the one that was asked for before. (job, was it new work?)

        bundle: hash of the bundle that the job is computed with, whenever that will be.

        Raises Unavailable where Redis or the ledger is down: then nothing was accepted.
        """
        lesion_id = lesion.id
        job_id = explanation_id(lesion_id, bundle, parameters)
        before = self.ledger.get(job_id)
        if before is not None and not self.to_renew(before):
            return self._hastened(before), False
        self.broker.check()
        self.blobs.put(keys.lesion(lesion_id), lesion.to_bytes())
        job, new = self.ledger.add(
            job_id,
            lesion=lesion_id,
            bundle=bundle,
            parameters=parameters.model_dump(mode="json"),
        )
        if not new and self.to_renew(job):
            again = self.ledger.renew(job)
            job, new = (again, True) if again else (self.find(job_id), False)
        if new:
            self.say(job)
            self.send(job)
        return job, new

    def send(self, job: Job) -> bool:
        """Put the job's id in the queue. False where Redis is down: the reconciler will."""
        from services.explain.celery_app import send_job

        try:
            send_job(self.celery, job.id, job.lane)
        except Unavailable:
            return False
        return True

    def send_many(self, jobs: Sequence[Job]) -> bool:
        """As `send`, in a few round trips."""
        from services.explain.celery_app import send_jobs

        try:
            send_jobs(self.celery, jobs)
        except Unavailable:
            return False
        return True

    def say(self, job: Job) -> None:
        """Publish the job's state to whoever listens."""
        self.events.publish(job.id, "state", event_data(job))

    def find(self, job_id: str) -> Job:
        """NotFound for an id that was never accepted, Gone for one that has expired."""
        job = self.ledger.get(job_id)
        if job is None:
            raise NotFound("no such explanation", field="id", found=job_id[:80])
        if self._expired(job):
            raise Gone(
                "the result has expired; ask for the explanation again",
                field="id",
                found=job_id,
                expected=f"results are kept {self.settings.result_days} days",
            )
        return job

    def status(self, job: Job) -> JobStatus:
        """The job for a client, with the document where it is done."""
        end = job.finished_at
        return JobStatus(
            id=job.id,
            state=job.state,
            stage=job.stage,
            progress=round(job.progress, 4),
            accepted_at=_rfc3339(job.accepted_at),
            finished_at=_rfc3339(end) if end else None,
            seconds=round(max(end - job.accepted_at, 0), 3) if end else None,
            error=Problem.model_validate(job.error) if job.error else None,
            links=JobLinks(
                self=f"{BASE}/{job.id}",
                events=f"{BASE}/{job.id}/events",
                report=f"{BASE}/{job.id}/report.html",
                maps=f"{BASE}/{job.id}/maps",
            ),
            result=json.loads(self.read(job, keys.DOCUMENT)) if job.result else None,
        )

    def read(self, job: Job, name: str) -> bytes:
        """One result of a done job, the exact bytes. Conflict where it is not done."""
        if job.state is not JobState.DONE:
            raise Conflict(
                "the explanation is not done",
                code="not_done",
                field="state",
                found=job.state.value,
                expected="done",
            )
        if job.result is None:
            raise Gone("the result has expired; ask for the explanation again", found=job.id)
        return self.blobs.get(f"{job.result}/{name}")

    def lesion(self, job: Job) -> Lesion:
        return Lesion.from_bytes(self.blobs.get(keys.lesion(job.lesion)))

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued or running job; a cancelled one stays so. Conflict for done or failed."""
        for _ in range(20):
            job = self.find(job_id)
            if job.state is JobState.CANCELLED:
                return job
            if job.state.final:
                raise Conflict(
                    f"the explanation is {job.state.value} already",
                    field="state",
                    found=job.state.value,
                    expected="queued or running",
                )
            cancelled = self.ledger.cancel(job)
            if cancelled is not None:
                self.say(cancelled)
                return cancelled
        raise Unavailable("the job keeps changing hands; try again", retry_after=1)

    def maps(self, job: Job) -> bytes:
        """All maps of a done job, .npz; of a bulk job they are packed when somebody asks."""

        def make() -> bytes:
            return maps_bytes(maps_from_bytes(self.read(job, keys.RAW_MAPS)))

        return self._made(job, keys.MAPS, make)

    def report(self, job: Job) -> bytes:
        """The page of a done job; that of a bulk job is made when somebody asks."""

        def make() -> bytes:
            from models.report.page import render  # its library costs start time

            document = Explanation.model_validate_json(self.read(job, keys.DOCUMENT))
            maps = maps_from_bytes(self.maps(job))
            return render(document, self.lesion(job), maps).encode("utf-8")

        return self._made(job, keys.REPORT, make)

    def _made(self, job: Job, name: str, make: Callable[[], bytes]) -> bytes:
        """A result that is there, or is made now and kept. Made twice, it has the same bytes."""
        done = job.state is JobState.DONE and job.result is not None
        key = f"{job.result}/{name}"
        if not done or self.blobs.exists(key):
            return self.read(job, name)
        data = make()
        self.blobs.put(key, data)
        return data

    def _hastened(self, job: Job) -> Job:
        """A bulk job that still waits is now waited for by somebody."""
        if job.lane == "interactive" or job.state is not JobState.QUEUED:
            return job
        hastened = self.ledger.hasten(job)
        if hastened is None:
            return job
        self.send(hastened)  # the message in the bulk queue finds the job taken, and is dropped
        return hastened

    def _expired(self, job: Job) -> bool:
        if job.finished_at is None:
            return False
        return time.time() - job.finished_at > self.settings.result_days * 86400

    def to_renew(self, job: Job) -> bool:
        """Failed and cancelled jobs may be asked again, and done ones whose result is gone."""
        if job.state is not JobState.DONE:
            return job.state.final
        return (
            self._expired(job)
            or job.result is None
            or not self.blobs.exists(f"{job.result}/{keys.DOCUMENT}")
        )


def event_data(job: Job) -> dict[str, Any]:
    """The data of an event: small, and the same shape for every kind."""
    data: dict[str, Any] = {
        "id": job.id,
        "state": job.state.value,
        "stage": job.stage,
        "progress": round(job.progress, 4),
    }
    if job.error:
        data["error"] = job.error
    return data


def _rfc3339(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
