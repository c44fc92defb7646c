"""One explanation job, from claim to result; knows nothing of Celery.

    claim -> lesion from blobs -> explain() with the model at the inference service
          -> blobs: document, maps, report -> finish, in one step

While it works it beats in the ledger. Whoever cancels the job, or takes it for dead, wins: the next
beat fails and the work stops.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from models.bundle.read import Bundle
from models.errors import LensError, Unavailable
from models.model import Model
from models.reasons.explain import document_bytes, explain, maps_bytes
from models.report.page import render
from models.voi import Lesion
from services.common.blobs import Blobs
from services.common.events import Events
from services.common.ledger import Job, Ledger
from services.explain import faults, keys
from services.explain.jobs import event_data
from services.explain.patient import Kept, PatientModel
from wire.api import ExplanationParameters, JobState

BEAT = 1.0
SAY_EVERY = 0.1
# Nobody watches a bulk job: its steps are told no more often than its worker gives a sign of life.
SAY_BULK_EVERY = 1.0

_log = logging.getLogger(__name__)


class LostJob(Exception):
    """The job was cancelled or given to another worker."""


class Runner:
    """Composed once a worker process.

    bundle_of: a bundle by its hash; each job is computed with the one that it was accepted for.
    connect: opens the model of that hash at the inference service. attempts: claims before a job is
    given up. time_up: what the queue raises into the work at the time limit. patience: seconds to
    wait for the inference service before the job goes back to the ledger.
    """

    def __init__(
        self,
        bundle_of: Callable[[str], Bundle],
        connect: Callable[[str], Model],
        *,
        ledger: Ledger,
        blobs: Blobs,
        events: Events,
        attempts: int,
        time_up: type[Exception] = TimeoutError,
        patience: float = 20.0,
    ) -> None:
        self._bundle_of = bundle_of
        self._models = Kept(connect)
        self._ledger = ledger
        self._blobs = blobs
        self._events = events
        self._attempts = attempts
        self._time_up = time_up
        self._patience = patience

    def run(self, job_id: str) -> JobState | None:
        """Work on a job, whatever happens. Returns its state as left; None: nothing to do here."""
        job = self._ledger.claim(job_id)
        if job is None:
            return None
        if job.attempts > self._attempts:
            return self._fail(job, faults.too_many_attempts(job.attempts - 1))
        self._say("state", job)
        try:
            with _Beat(self._ledger, job) as beat:
                self._work(job, beat)
        except LostJob:
            _log.info("job %s: cancelled, or given to another worker", job.id)
            return None
        except Unavailable as error:
            # Not the job's fault: it waits in the ledger, and the reconciler sends it again.
            _log.warning("job %s: %s; it waits", job.id, error.line)
            stage = f"waiting: {error.message}"
            return self._after(self._ledger.release(job, stage, forgive=True))
        except LensError as error:
            return self._fail(job, error)
        except self._time_up:
            return self._fail(job, faults.time_limit())
        except Exception:
            _log.exception("job %s failed", job.id)
            return self._fail(job, faults.internal())
        return JobState.DONE

    def _work(self, job: Job, beat: _Beat) -> None:
        bulk = job.lane == "bulk"
        if not bulk:
            beat.step("reading the lesion", 0.0)
        bundle = self._bundle_of(job.bundle)
        lesion = Lesion.from_bytes(self._blobs.get(keys.lesion(job.lesion)))
        parameters = ExplanationParameters.model_validate(job.parameters)
        said = time.monotonic() if bulk else 0.0

        def progress(stage: str, fraction: float) -> None:
            nonlocal said
            new_stage = stage != beat.stage
            now = time.monotonic()
            beat.check()
            if now - said >= SAY_BULK_EVERY if bulk else new_stage or now - said >= SAY_EVERY:
                said = now
                beat.step(stage, fraction)
                here = replace(job, stage=stage, progress=fraction)
                self._say("progress", here)

        def waiting(error: Unavailable) -> None:
            beat.step(f"waiting: {error.message}", None)

        model = PatientModel(lambda: self._models.take(job.bundle), waiting, self._patience)
        if model.info.bundle != job.bundle:
            raise faults.other_bundle("the inference service", model.info.bundle, job.bundle)
        result = explain(lesion, bundle, model, parameters, progress)
        self._models.give_back(job.bundle)
        progress("writing the report", 0.99)
        prefix = keys.result(job.id)
        if bulk:
            # A report costs a fifth of an explanation, and packing maps 2 %: done when asked for.
            raw = maps_bytes(result.maps, compressed=False)
            self._blobs.put(f"{prefix}/{keys.RAW_MAPS}", raw)
        else:
            self._blobs.put(f"{prefix}/{keys.MAPS}", maps_bytes(result.maps))
            page = render(result.document, lesion, result.maps)
            self._blobs.put(f"{prefix}/{keys.REPORT}", page.encode("utf-8"))
        self._blobs.put(f"{prefix}/{keys.DOCUMENT}", document_bytes(result.document))
        if self._after(self._ledger.finish(job, prefix)) is None:
            raise LostJob

    def _fail(self, job: Job, error: LensError) -> JobState | None:
        _log.warning("job %s failed: %s", job.id, error.line)
        return self._after(self._ledger.fail(job, faults.problem(error)))

    def _after(self, job: Job | None) -> JobState | None:
        if job is None:
            return None
        self._say("state", job)
        return job.state

    def _say(self, kind: Any, job: Job) -> None:
        self._events.publish(job.id, kind, event_data(job))


class _Beat:
    """Beats once a second from a thread of its own; step() is the beat with news."""

    def __init__(self, ledger: Ledger, job: Job) -> None:
        self._ledger = ledger
        self._job = job
        self._stop = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
        self.stage = ""

    def __enter__(self) -> _Beat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def step(self, stage: str, fraction: float | None) -> None:
        """Raises LostJob where the job is no longer ours."""
        self.check()
        self.stage = stage
        if not self._ledger.beat(self._job, stage, fraction):
            raise LostJob

    def check(self) -> None:
        """Raises LostJob where the last beat found the job gone."""
        if self._lost:
            raise LostJob

    def _run(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                if not self._ledger.beat(self._job):
                    self._lost = True
                    return
            except Unavailable:
                continue  # the ledger may come back before anybody misses us
