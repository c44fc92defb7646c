"""The reconciler: makes the queue agree with the ledger, so that an accepted job is never lost.

Runs in every API process, every two seconds. Several at once are harmless: each repair is one
compare-and-swap in the ledger, and a message too many is dropped by the worker that gets it.
"""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.concurrency import run_in_threadpool

from models.errors import LensError, Unavailable
from services.common.ledger import Job
from services.explain import faults, keys
from services.explain.jobs import Jobs

EVERY = 2.0
# A worker beats every second; this much silence means that it is gone. Wrong alarms are harmless.
SILENCE = 5.0
# A message usually reaches a worker, or the queue's list, within milliseconds.
GRACE = 4.0
CLEAN_EVERY = 600.0

_log = logging.getLogger(__name__)


class Reconciler:
    """tick() is one round, in a thread; run() repeats it until cancelled."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._cleaned = 0.0

    async def run(self) -> None:
        troubled = False
        while True:
            try:
                await run_in_threadpool(self.tick)
                troubled = False
            except LensError as error:
                if not troubled:
                    _log.warning("reconciler: %s; trying on", error.line)
                troubled = True
            except Exception:
                _log.exception("reconciler: a round failed; trying on")
            await asyncio.sleep(EVERY)

    def tick(self) -> int:
        """One round; returns the number of jobs that were put in the queue again."""
        now = time.time()
        for job in self._jobs.ledger.silent(now - SILENCE):
            self._give_back(job)
        sent = self._send_missing(now)
        if now - self._cleaned > CLEAN_EVERY:
            self._cleaned = now
            self._clean(now)
        return sent

    def _give_back(self, job: Job) -> None:
        """A worker went silent: the job waits again, or fails after its last attempt."""
        jobs = self._jobs
        if job.attempts >= jobs.settings.job_attempts:
            after = jobs.ledger.fail(job, faults.problem(faults.too_many_attempts(job.attempts)))
        else:
            after = jobs.ledger.release(job, "waiting for a worker: the last one went silent")
            if after is not None:
                jobs.send(after)
        if after is not None:
            _log.warning("job %s: its worker went silent, attempt %d", job.id, job.attempts)
            jobs.say(after)

    def _send_missing(self, now: float) -> int:
        """Send again what is queued in the ledger and not in the queue."""
        jobs = self._jobs
        late = jobs.ledger.waiting(now - GRACE)
        if not late:
            return 0
        # With a long queue look less often: its list is read whole.
        length = jobs.broker.length()
        late = [job for job in late if job.enqueued_at < now - GRACE - length / 200]
        if not late:
            return 0
        there = jobs.broker.waiting()
        jobs.ledger.seen_in_queue([job.id for job in late if job.id in there])
        lost = [job for job in late if job.id not in there and jobs.ledger.enqueue_again(job)]
        if lost and not jobs.send_many(lost):
            raise Unavailable("the queue cannot be reached")
        return len(lost)

    def _clean(self, now: float) -> None:
        """Delete the blobs of expired results."""
        jobs = self._jobs
        for job in jobs.ledger.expired(now - jobs.settings.result_days * 86400):
            dropped = jobs.ledger.drop_result(job)
            if dropped is None:
                continue
            for name in keys.RESULTS:
                jobs.blobs.delete(f"{job.result}/{name}")
            if not jobs.ledger.lesion_in_use(job.lesion):
                jobs.blobs.delete(keys.lesion(job.lesion))
