"""Many explanations at once: the bulk lane.

    lesions -> blobs -> ledger rows, in one transaction -> messages in the bulk queue, in one group

A bulk job is a job like any other, with the same id and the same bytes as answer; it only waits in
a queue of its own, which workers look into when nobody waits in the interactive one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from models.errors import NotFound, Unavailable
from models.reasons.explain import explanation_id
from models.voi import Lesion
from services.common.batches import Batches
from services.common.ledger import Job
from services.explain import keys
from services.explain.jobs import Jobs
from wire.api import BatchStatus, ExplanationParameters, JobState, JobSummary, Problem

RETRY_AFTER = 5


class BulkFull(Unavailable):
    """As many bulk jobs wait as may."""

    code = "bulk_full"
    status = 429


class Bulk:
    """Composed beside Jobs, over the same ledger. Methods block: call them from a thread."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.batches = Batches(jobs.ledger)

    @staticmethod
    def new_batch() -> str:
        return f"bat-{secrets.token_hex(10)}"

    def submit(
        self,
        lesions: Sequence[Lesion],
        parameters: ExplanationParameters,
        bundle: str,
        batch: str,
    ) -> list[Job]:
        """Accept a job a lesion, or find those that were asked for before; in the lesions' order.

        Raises BulkFull where too many wait, Unavailable where Redis or the ledger is down: then
        nothing was accepted.
        """
        jobs, ledger = self.jobs, self.jobs.ledger
        asked = parameters.model_dump(mode="json")
        wanted: dict[str, tuple[Job, Lesion]] = {}
        order = []
        for lesion in lesions:
            content = lesion.id  # a hash over all voxels: once
            job_id = explanation_id(content, bundle, parameters)
            wanted[job_id] = (Job(job_id, content, bundle, asked, lane="bulk"), lesion)
            order.append(job_id)
        before = ledger.get_many(order)
        todo = [i for i in wanted if i not in before or jobs.to_renew(before[i])]
        if todo:
            jobs.broker.check()
            self._check_room(len(todo))
            for i in todo:
                key = keys.lesion(wanted[i][0].lesion)
                if not jobs.blobs.exists(key):
                    jobs.blobs.put(key, wanted[i][1].to_bytes(), quick=True)
            ledger.add_many([wanted[i][0] for i in todo if i not in before])
            for i in todo:
                if i in before:
                    ledger.renew(before[i], "bulk")
        self.batches.add(batch, order)
        now = ledger.get_many(order)
        new = [now[i] for i in todo if now[i].state is JobState.QUEUED]
        if new:
            jobs.send_many(new)  # where Redis went away just now, the reconciler sends them
        return [now[i] for i in order]

    def status(self, batch: str) -> BatchStatus:
        """Counts by state. Raises NotFound for a batch that nothing was accepted for."""
        counts = self.batches.counts(batch)
        if not counts:
            raise NotFound("no such batch", field="batch", found=batch[:80])
        return BatchStatus(
            batch=batch,
            jobs=sum(counts.values()),
            states={state: counts.get(state, 0) for state in JobState},
            finished=all(state.final for state in counts),
        )

    def _check_room(self, more: int) -> None:
        waiting, most = self.jobs.ledger.queued("bulk"), self.jobs.settings.bulk_queue
        if waiting and waiting + more > most:
            raise BulkFull(
                f"{waiting} bulk jobs wait already, and at most {most} may; send the rest later",
                retry_after=RETRY_AFTER,
            )


def summary(job: Job) -> JobSummary:
    return JobSummary(
        id=job.id,
        state=job.state,
        error=Problem.model_validate(job.error) if job.error else None,
    )
