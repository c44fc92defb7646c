"""Batches: which jobs were asked for together. A table beside the ledger's, in the same database.

A job may stand in several batches, since what was asked before is not computed again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from services.common.database import create, guarded
from services.common.ledger import JOBS, Job, Ledger
from wire.api import JobState

BATCHES_SCHEMA = 1

_metadata = sa.MetaData()
_versions = sa.Table(
    "batches_schema", _metadata, sa.Column("version", sa.Integer, primary_key=True)
)
_members = sa.Table(
    "batch_jobs",
    _metadata,
    sa.Column("batch", sa.String(64), primary_key=True),
    sa.Column("job", sa.String(64), primary_key=True),
)


class Batches:
    """Safe for many threads and processes. Methods raise Unavailable where the database is away."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._engine = ledger.engine
        create(self._engine, _metadata, _versions, BATCHES_SCHEMA)

    def add(self, batch: str, job_ids: Sequence[str]) -> None:
        """Make the jobs members of a batch; those that are members already stay so."""
        wanted = list(dict.fromkeys(job_ids))
        here = sa.select(_members.c.job).where(
            _members.c.batch == batch, _members.c.job.in_(wanted)
        )
        for _ in range(3):
            try:
                with guarded(), self._engine.begin() as c:
                    there = set(c.scalars(here))
                    rows = [{"batch": batch, "job": job} for job in wanted if job not in there]
                    if rows:
                        c.execute(sa.insert(_members), rows)
                return
            except sa.exc.IntegrityError:
                continue  # another request added one of them between the look and the insert

    def counts(self, batch: str) -> dict[JobState, int]:
        """Number of the batch's jobs by state; no state at all for an unknown batch."""
        query = (
            sa.select(JOBS.c.state, sa.func.count())
            .join(_members, _members.c.job == JOBS.c.id)
            .where(_members.c.batch == batch)
            .group_by(JOBS.c.state)
        )
        with guarded(), self._engine.connect() as c:
            return {JobState(state): int(n) for state, n in c.execute(query)}

    def jobs(self, batch: str, after: str = "", limit: int = 1000) -> list[Job]:
        """The batch's jobs by id, those behind `after`, at most `limit`."""
        query = (
            sa.select(_members.c.job)
            .where(_members.c.batch == batch, _members.c.job > after)
            .order_by(_members.c.job)
            .limit(limit)
        )
        with guarded(), self._engine.connect() as c:
            ids = list(c.scalars(query))
        found = self._ledger.get_many(ids)
        return [found[i] for i in ids if i in found]
