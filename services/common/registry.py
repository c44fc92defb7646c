"""Which bundle is in production, and which was: an append-only history in the ledger's database.

    promote   the bundle goes into production; the one before it is archived
    rollback  the one that was in production before comes back; the present one is archived
    archive   a bundle is set aside: a rollback passes over it

States follow from the history: `production` is what the last event says, `archived` is what was in
production before or was set aside, anything else in the store is a `candidate`. Rows are numbered
without gaps and never changed. Whoever writes takes the next number: of two who write at once one
finds it taken, looks at the history again and writes after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import sqlalchemy as sa

from models.errors import LensError, Unavailable
from services.common.database import create, guarded, open_engine

Action = Literal["promote", "rollback", "archive"]
State = Literal["candidate", "production", "archived"]

REGISTRY_SCHEMA = 1
_TRIES = 50

_metadata = sa.MetaData()
_versions = sa.Table(
    "registry_schema", _metadata, sa.Column("version", sa.Integer, primary_key=True)
)
_events = sa.Table(
    "promotions",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("bundle", sa.String(64), nullable=False),
    sa.Column("previous", sa.String(64)),
    sa.Column("production", sa.String(64)),
    sa.Column("note", sa.String(1000), nullable=False),
)


@dataclass(frozen=True)
class Event:
    """One row. at: seconds since the epoch, UTC, never before the row above.

    bundle: hash of the bundle that the action is about (for a rollback: the one that came back).
    previous, production: hash of the bundle in production before and after; None: no bundle was.
    """

    number: int
    at: float
    who: str
    action: Action
    bundle: str
    previous: str | None
    production: str | None
    note: str


class Registry:
    """The history behind any SQLAlchemy URL. Safe for many threads and processes.

    Every method raises Unavailable where the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        create(self._engine, _metadata, _versions, REGISTRY_SCHEMA)

    def close(self) -> None:
        self._engine.dispose()

    def history(self) -> list[Event]:
        """All events, oldest first."""
        with guarded(), self._engine.connect() as c:
            rows = c.execute(sa.select(_events).order_by(_events.c.number))
            return [Event(**row._mapping) for row in rows]

    def production(self) -> str | None:
        """Hash of the bundle in production now. One row: cheap enough to ask each second."""
        last = sa.select(_events.c.production).order_by(_events.c.number.desc()).limit(1)
        with guarded(), self._engine.connect() as c:
            return c.scalar(last)

    def promote(self, bundle: str, who: str, note: str = "") -> Event | None:
        """Put a bundle into production. None where it is there already."""

        def event(history: Sequence[Event], at: float) -> Event | None:
            now = _production(history)
            if now == bundle:
                return None
            return Event(len(history) + 1, at, who, "promote", bundle, now, bundle, note)

        return self._append(event)

    def rollback(self, who: str, note: str = "") -> Event:
        """Bring back what was in production before. LensError (nothing_before) if nothing was."""

        def event(history: Sequence[Event], at: float) -> Event:
            now, before = _production(history), earlier(history)
            if before is None:
                raise LensError(
                    "there is no earlier bundle to go back to",
                    code="nothing_before",
                    field="production",
                    found=now or "no bundle was ever promoted",
                )
            return Event(len(history) + 1, at, who, "rollback", before, now, before, note)

        appended = self._append(event)
        assert appended is not None
        return appended

    def archive(self, bundle: str, who: str, note: str = "") -> Event | None:
        """Set a bundle aside. None where it is already. LensError where it is in production."""

        def event(history: Sequence[Event], at: float) -> Event | None:
            now = _production(history)
            if now == bundle:
                raise LensError(
                    "the bundle is in production; promote another one first",
                    code="in_production",
                    field="bundle",
                    found=bundle,
                )
            if bundle in _set_aside(history):
                return None
            return Event(len(history) + 1, at, who, "archive", bundle, now, now, note)

        return self._append(event)

    def _append(self, event: Callable[[Sequence[Event], float], Event | None]) -> Event | None:
        for _ in range(_TRIES):
            history = self.history()
            at = max(time.time(), history[-1].at if history else 0.0)
            new = event(history, at)
            if new is None:
                return None
            try:
                with guarded(), self._engine.begin() as c:
                    c.execute(sa.insert(_events).values(**asdict(new)))
            except sa.exc.IntegrityError:
                continue  # another one took the number: decide again on what is true now
            return new
        raise Unavailable(
            "the history keeps changing; try again", code="ledger_busy", retry_after=1
        )


def states(history: Sequence[Event], bundles: Sequence[str]) -> dict[str, State]:
    """The state of each bundle."""
    now = _production(history)
    used = {e.bundle for e in history} | {e.previous for e in history}
    return {
        b: "production" if b == now else "archived" if b in used else "candidate" for b in bundles
    }


def production_at(history: Sequence[Event], at: float) -> Event | None:
    """The event that put into production what was there at the time `at`; None: nothing was."""
    moves = [e for e in history if e.action != "archive" and e.at <= at]
    return moves[-1] if moves else None


def production_between(history: Sequence[Event], start: float, end: float) -> list[Event]:
    """All that were in production at some time in [start, end), oldest first, by their events."""
    before = production_at(history, start)
    inside = [e for e in history if e.action != "archive" and start < e.at < end]
    return [*([before] if before is not None else []), *inside]


def earlier(history: Sequence[Event]) -> str | None:
    """What a rollback would bring back: the promotions form a stack, and a rollback takes from it.

    After promote A, B, C and a rollback (B) another rollback gives A, not C.
    """
    stack: list[str] = []
    for e in history:
        if e.action == "promote":
            stack.append(e.bundle)
        elif e.action == "rollback":
            while stack and stack[-1] != e.bundle:
                stack.pop()
    aside, now = _set_aside(history), _production(history)
    return next((b for b in reversed(stack[:-1]) if b not in aside and b != now), None)


def _production(history: Sequence[Event]) -> str | None:
    return history[-1].production if history else None


def _set_aside(history: Sequence[Event]) -> set[str]:
    """Bundles whose last event was `archive`."""
    last = {e.bundle: e.action for e in history}
    return {bundle for bundle, action in last.items() if action == "archive"}
