"""The SQL database behind the ledger and the registry: opening it, and errors as Unavailable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from models.errors import LensError, Unavailable


def open_engine(url: str) -> sa.Engine:
    """An engine for any SQLAlchemy URL; `sqlite://` lives in memory and dies with it."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    if parsed.database in (None, "", ":memory:"):
        return sa.create_engine(
            parsed, poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
    engine = sa.create_engine(parsed, connect_args={"timeout": 10})

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=10000")  # first, so that setting WAL waits its turn
        cursor.execute("PRAGMA journal_mode=WAL")  # readers never wait for the writer
        cursor.execute("PRAGMA synchronous=FULL")  # what was answered with 202 survives power loss
        cursor.close()

    return engine


@contextmanager
def guarded() -> Iterator[None]:
    """A database that cannot be reached is Unavailable (ledger_down)."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError):
        raise Unavailable("the ledger cannot be reached", code="ledger_down") from None


def create(
    engine: sa.Engine,
    tables: sa.MetaData,
    versions: sa.Table,
    version: int,
    upgrades: Mapping[int, str] | None = None,
) -> None:
    """Create the tables where they are not there yet. versions: a table with a column `version`.

    upgrades: version -> the one statement that leads to the next. Raises LensError (ledger_schema)
    where the tables are there in a version that no upgrade leads away from.
    """
    _patiently(engine, lambda: _create(engine, tables, versions, version, upgrades or {}))


def _create(
    engine: sa.Engine,
    tables: sa.MetaData,
    versions: sa.Table,
    version: int,
    upgrades: Mapping[int, str],
) -> None:
    with guarded(), engine.begin() as c:
        if c.dialect.name == "postgresql":  # two processes may create the tables at once
            c.execute(sa.text("SELECT pg_advisory_xact_lock(7307191)"))
        tables.create_all(c)
        found = c.scalar(sa.select(sa.func.max(versions.c.version)))
        if found is None:
            c.execute(sa.insert(versions).values(version=version))
            return
        while found != version and found in upgrades:
            # The number first: it is the lock under which one of several processes upgrades.
            step = sa.update(versions).where(versions.c.version == found)
            if c.execute(step.values(version=found + 1)).rowcount:
                c.execute(sa.text(upgrades[found]))
            found += 1
        if found != version:
            raise LensError(
                f"the {versions.name.removesuffix('_schema')} has another schema version",
                code="ledger_schema",
                field="ledger",
                found=str(found),
                expected=str(version),
            )


def _patiently(engine: sa.Engine, step: Callable[[], None], seconds: float = 5.0) -> None:
    """Try again where two processes open a new SQLite file at once.

    Setting WAL and creating a table do not wait their turn under busy_timeout; both are harmless
    when they are done twice.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return step()
        except (Unavailable, sa.exc.IntegrityError):  # the other one wrote the version first
            if engine.dialect.name != "sqlite" or time.monotonic() > end:
                raise
            time.sleep(0.05)
