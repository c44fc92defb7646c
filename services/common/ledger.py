"""The ledger: what was accepted, in SQL, so that losing Redis loses no job.

Steps of a job, each one compare-and-swap UPDATE:

    claim    queued           -> running    one attempt more, a new fence
    beat     running          -> running    sign of life, stage, progress
    release  running          -> queued     given back, or its worker went silent
    finish   running          -> done
    fail     queued, running  -> failed
    cancel   queued, running  -> cancelled
    renew    final            -> queued     asked for again; the caller decides when that is right

`fence` grows whenever the job changes hands, and a worker's steps name the fence that it was given:
one that was taken for dead can no longer write.

A job's lane says which queue its message belongs in: somebody waits for an interactive one, while
bulk ones fill what time is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import sqlalchemy as sa

from models.errors import Unavailable
from services.common.database import create, guarded, open_engine
from wire.api import JobState

LEDGER_SCHEMA = 2
Lane = Literal["interactive", "bulk"]
WAITING = "waiting for a worker"

_metadata = sa.MetaData()
_versions = sa.Table("ledger_schema", _metadata, sa.Column("version", sa.Integer, primary_key=True))
_jobs = sa.Table(
    "jobs",
    _metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("lesion", sa.String(64), nullable=False, index=True),
    sa.Column("bundle", sa.String(64), nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("stage", sa.String(200), nullable=False),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("accepted_at", sa.Float, nullable=False),
    sa.Column("enqueued_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("heartbeat", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("result", sa.String(200)),
    sa.Column("lane", sa.String(16), nullable=False, server_default="interactive"),
)
JOBS = _jobs  # for tables that point at jobs
_UPGRADES = {1: "ALTER TABLE jobs ADD COLUMN lane VARCHAR(16) NOT NULL DEFAULT 'interactive'"}

_OPEN = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Job:
    """One row. Times are seconds since the epoch, UTC; `result` is a prefix in the blob store."""

    id: str
    lesion: str
    bundle: str
    parameters: dict[str, Any]
    state: JobState = JobState.QUEUED
    stage: str = WAITING
    progress: float = 0.0
    attempts: int = 0
    fence: int = 0
    accepted_at: float = 0.0
    enqueued_at: float = 0.0
    started_at: float | None = None
    heartbeat: float | None = None
    finished_at: float | None = None
    error: dict[str, Any] | None = None
    result: str | None = None
    lane: Lane = "interactive"


class Ledger:
    """The jobs table behind any SQLAlchemy URL; `sqlite://` lives in memory and dies with it.

    Safe for many threads and processes. Every method raises Unavailable where the database cannot
    be reached. Open it after a fork, not before.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        create(self._engine, _metadata, _versions, LEDGER_SCHEMA, _UPGRADES)

    @property
    def engine(self) -> sa.Engine:
        """For tables beside the jobs, in the same database."""
        return self._engine

    def close(self) -> None:
        self._engine.dispose()

    def get(self, job_id: str) -> Job | None:
        with guarded(), self._engine.connect() as c:
            row = c.execute(sa.select(_jobs).where(_jobs.c.id == job_id)).one_or_none()
        return _job(row) if row is not None else None

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """The jobs that are known, by id."""
        found: dict[str, Job] = {}
        with guarded(), self._engine.connect() as c:
            for ids in _chunks(job_ids):
                rows = c.execute(sa.select(_jobs).where(_jobs.c.id.in_(ids)))
                found |= {row.id: _job(row) for row in rows}
        return found

    def add_many(self, jobs: Sequence[Job]) -> list[bool]:
        """Accept jobs as queued now, in one transaction. Which of them were new?"""
        there = self.get_many([job.id for job in jobs])
        now = time.time()
        new = {
            job.id: replace(job, state=JobState.QUEUED, accepted_at=now, enqueued_at=now)
            for job in jobs
            if job.id not in there
        }
        if new:
            try:
                with guarded(), self._engine.begin() as c:
                    c.execute(sa.insert(_jobs), [_values(job) for job in new.values()])
            except sa.exc.IntegrityError:  # somebody accepted one of them meanwhile
                for job in list(new.values()):
                    if not self.add(
                        job.id,
                        lesion=job.lesion,
                        bundle=job.bundle,
                        parameters=job.parameters,
                        lane=job.lane,
                    )[1]:
                        del new[job.id]  # fmt: skip
        return [job.id in new and new.pop(job.id) is not None for job in jobs]

    def add(
        self,
        job_id: str,
        *,
        lesion: str,
        bundle: str,
        parameters: dict[str, Any],
        lane: Lane = "interactive",
    ) -> tuple[Job, bool]:
        """Accept a job as queued. (row, False) where the id is there, whatever its state."""
        now = time.time()
        new = Job(job_id, lesion, bundle, parameters, accepted_at=now, enqueued_at=now, lane=lane)
        try:
            with guarded(), self._engine.begin() as c:
                c.execute(sa.insert(_jobs).values(**_values(new)))
        except sa.exc.IntegrityError:
            there = self.get(job_id)
            if there is None:
                raise Unavailable("the ledger changed meanwhile; try again") from None
            return there, False
        return new, True

    def claim(self, job_id: str) -> Job | None:
        """Take a queued job. None where it is not queued: a duplicate, done, cancelled, unknown."""
        job = self.get(job_id)
        if job is None:
            return None
        now = time.time()
        return self._step(
            job,
            (JobState.QUEUED,),
            state=JobState.RUNNING,
            stage="started",
            progress=0.0,
            attempts=job.attempts + 1,
            fence=job.fence + 1,
            started_at=now,
            heartbeat=now,
        )

    def beat(self, job: Job, stage: str | None = None, progress: float | None = None) -> bool:
        """Sign of life from the holder of `job`. False: it lost the job and must stop."""
        change: dict[str, Any] = {"heartbeat": time.time()}
        if stage is not None:
            change["stage"] = stage[:200]
        if progress is not None:
            change["progress"] = min(max(float(progress), 0.0), 1.0)
        return self._step(job, (JobState.RUNNING,), **change) is not None

    def release(self, job: Job, stage: str = WAITING, *, forgive: bool = False) -> Job | None:
        """running -> queued. forgive: the attempt was not the job's fault and does not count."""
        return self._step(
            job,
            (JobState.RUNNING,),
            state=JobState.QUEUED,
            stage=stage[:200],
            progress=0.0,
            attempts=max(job.attempts - 1, 0) if forgive else job.attempts,
            fence=job.fence + 1,
            enqueued_at=time.time(),
        )

    def finish(self, job: Job, result: str) -> Job | None:
        """running -> done, with the prefix of its blobs."""
        return self._step(
            job,
            (JobState.RUNNING,),
            state=JobState.DONE,
            stage="done",
            progress=1.0,
            result=result,
            error=None,
            finished_at=time.time(),
        )

    def fail(self, job: Job, error: dict[str, Any]) -> Job | None:
        """queued or running -> failed, with the problem that says why."""
        return self._step(
            job,
            _OPEN,
            state=JobState.FAILED,
            stage="failed",
            fence=job.fence + 1,
            error=error,
            finished_at=time.time(),
        )

    def cancel(self, job: Job) -> Job | None:
        """queued or running -> cancelled."""
        return self._step(
            job,
            _OPEN,
            state=JobState.CANCELLED,
            stage="cancelled",
            fence=job.fence + 1,
            finished_at=time.time(),
        )

    def hasten(self, job: Job) -> Job | None:
        """Somebody waits for a queued bulk job now: it changes to the interactive lane."""
        return self._step(job, (JobState.QUEUED,), also=("lane",), lane="interactive")

    def renew(self, job: Job, lane: Lane = "interactive") -> Job | None:
        """final -> queued, as if it had just been accepted."""
        now = time.time()
        return self._step(
            job,
            tuple(s for s in JobState if s.final),
            state=JobState.QUEUED,
            stage=WAITING,
            progress=0.0,
            attempts=0,
            fence=job.fence + 1,
            accepted_at=now,
            enqueued_at=now,
            started_at=None,
            heartbeat=None,
            finished_at=None,
            error=None,
            result=None,
            lane=lane,
        )

    def drop_result(self, job: Job) -> Job | None:
        """Forget where an expired result was; the row stays, so that its id answers 410."""
        return self._step(job, (JobState.DONE,), result=None)

    def enqueue_again(self, job: Job) -> bool:
        """Note that a queued job is put in the queue now. True for one of many that ask at once."""
        at = {"enqueued_at": time.time()}
        return self._step(job, (JobState.QUEUED,), also=("enqueued_at",), **at) is not None

    def seen_in_queue(self, job_ids: Sequence[str]) -> None:
        """Note that the messages of these queued jobs are where they belong, as of now."""
        with guarded(), self._engine.begin() as c:
            for ids in _chunks(job_ids):
                same = (_jobs.c.id.in_(ids), _jobs.c.state == JobState.QUEUED)
                c.execute(sa.update(_jobs).where(*same).values(enqueued_at=time.time()))

    def silent(self, before: float, limit: int = 100) -> list[Job]:
        """Running jobs whose last sign of life is older than `before`."""
        return self._select(_jobs.c.state == JobState.RUNNING, _jobs.c.heartbeat < before, limit)

    def beating(self, since: float) -> bool:
        """Has any running job given a sign of life after `since`?"""
        return bool(self._select(_jobs.c.state == JobState.RUNNING, _jobs.c.heartbeat >= since, 1))

    def waiting(self, before: float, limit: int = 1000) -> list[Job]:
        """Queued jobs that were put in the queue before `before`, oldest first."""
        return self._select(_jobs.c.state == JobState.QUEUED, _jobs.c.enqueued_at < before, limit)

    def expired(self, before: float, limit: int = 100) -> list[Job]:
        """Done jobs that finished before `before` and still have a result."""
        return self._select(
            sa.and_(_jobs.c.state == JobState.DONE, _jobs.c.result.is_not(None)),
            _jobs.c.finished_at < before,
            limit,
        )

    def lesion_in_use(self, lesion: str) -> bool:
        """Does any job that is open, or has a result, read this lesion?"""
        use = sa.or_(_jobs.c.state.in_(_OPEN), _jobs.c.result.is_not(None))
        with guarded(), self._engine.connect() as c:
            return c.scalar(sa.select(sa.exists().where(_jobs.c.lesion == lesion, use))) or False

    def queued(self, lane: Lane) -> int:
        """Number of jobs that wait in a lane."""
        which = (_jobs.c.state == JobState.QUEUED, _jobs.c.lane == lane)
        query = sa.select(sa.func.count()).select_from(_jobs).where(*which)
        with guarded(), self._engine.connect() as c:
            return int(c.scalar(query) or 0)

    def counts(self) -> dict[JobState, int]:
        """Number of jobs a state."""
        query = sa.select(_jobs.c.state, sa.func.count()).group_by(_jobs.c.state)
        with guarded(), self._engine.connect() as c:
            found = {JobState(state): int(n) for state, n in c.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def _select(self, which: Any, when: Any, limit: int) -> list[Job]:
        query = sa.select(_jobs).where(which, when).order_by(_jobs.c.accepted_at).limit(limit)
        with guarded(), self._engine.connect() as c:
            return [_job(row) for row in c.execute(query)]

    def _step(
        self, job: Job, allowed: Sequence[JobState], also: Sequence[str] = (), **change: Any
    ) -> Job | None:
        """The compare-and-swap: applies only while the row still has `job`'s state and fence."""
        if job.state not in allowed:
            return None
        same = [_jobs.c[name] == getattr(job, name) for name in ("id", "state", "fence", *also)]
        with guarded(), self._engine.begin() as c:
            done = c.execute(sa.update(_jobs).where(*same).values(**change)).rowcount == 1
        return replace(job, **change) if done else None


def _values(job: Job) -> dict[str, Any]:
    return {f.name: getattr(job, f.name) for f in fields(Job)}


def _chunks(ids: Sequence[str], most: int = 500) -> Iterator[Sequence[str]]:
    """Databases bound the number of values in one statement."""
    for start in range(0, len(ids), most):
        yield ids[start : start + most]


def _job(row: sa.Row) -> Job:
    values = dict(row._mapping)
    return Job(**{**values, "state": JobState(values["state"])})
