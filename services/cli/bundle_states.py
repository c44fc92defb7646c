"""lesionlens bundle list, promote, rollback, archive, history: the states of stored bundles."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from models.errors import InputError
from services.common.configured import read_settings
from services.common.store import NAME, stored

if TYPE_CHECKING:  # needs an SQL package, which `bundle verify` can do without
    from services.common.registry import Event

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _signed(command: Callable[..., Any]) -> Callable[..., Any]:
    """--note and --who: what the history keeps beside the action."""
    note = click.option("--note", default="", metavar="TEXT", help="Why; kept in the history.")
    who = click.option("--who", metavar="NAME", help="Who decided; default: user@host.")
    return note(who(command))


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(as_json: bool) -> None:
    """List the bundles in the model store, newest first, each with its state.

    \b
    production   what a following service serves
    candidate    registered, never in production
    archived     was in production, or was set aside
    """
    from services.common import promotion
    from services.common.registry import states

    settings = read_settings()
    found = stored(settings)
    with promotion.opened(settings) as registry:
        state = states(registry.history(), [one.hash for one in found])
    if as_json:
        rows = [
            {"tag": one.tag, "state": state[one.hash], "created": one.created} | _facts(one.facts)
            for one in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    if not found:
        click.echo("the model store is empty; 'lesionlens train' registers what it trains")
    for one in found:
        kind = " (synthetic)" if one.facts.get("synthetic") else ""
        trained = f"trained on {one.facts.get('trained_on', 'unknown data')}{kind}"
        click.echo(f"{one.tag}  {state[one.hash]:<10}  {one.created}  {trained}")


@click.command()
@click.argument("bundle")
@_signed
def promote(bundle: str, note: str, who: str | None) -> None:
    """Put a bundle into production.

    Its checksums are verified and its graphs run on the stored sample first; a bundle that fails is
    refused and nothing changes. The one that was in production becomes archived. Services that were
    started with lesionlens:production load the new one and swap, without dropping a request.

    BUNDLE is a hash or its beginning, lesionlens:latest, or a bundle's folder (it is registered).

    \b
    lesionlens bundle promote b-7143acd4 --note "passed the reader study"
    """
    from services.common import promotion

    settings = read_settings()
    promoted, new = promotion.promote(bundle, settings, who or promotion.me(), note)
    said = "is in production" if new else "is in production already"
    click.echo(f"{NAME}:{promoted} {said}")


@click.command()
@_signed
def rollback(note: str, who: str | None) -> None:
    """Bring back the bundle that was in production before.

    Twice goes two promotions back. What was set aside with `archive` is passed over.

    \b
    lesionlens bundle rollback --note "more false alarms on scanner 2"
    """
    from services.common import promotion

    event = promotion.rollback(read_settings(), who or promotion.me(), note)
    click.echo(f"{NAME}:{event.production} is in production again, in place of {event.previous}")


@click.command()
@click.argument("bundle")
@_signed
def archive(bundle: str, note: str, who: str | None) -> None:
    """Set a bundle aside, so that no rollback brings it back. Its files stay.

    \b
    lesionlens bundle archive b-7143acd4 --note "trained on a cohort that was withdrawn"
    """
    from services.common import promotion

    archived, new = promotion.archive(bundle, read_settings(), who or promotion.me(), note)
    click.echo(f"{NAME}:{archived} is archived" + ("" if new else " already"))


@click.command()
@click.option("--on", "on", metavar="DATE", help="2026-11-23, or a moment: 2026-11-23T14:05Z.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def history(on: str | None, as_json: bool) -> None:
    """Who put which bundle into production, when and why; times are UTC.

    With --on: what was in production on that day, or at that moment.

    \b
    lesionlens bundle history
    lesionlens bundle history --on 2026-11-23
    """
    from services.common import promotion

    with promotion.opened(read_settings()) as registry:
        events = registry.history()
    if on is None:
        chosen, lines = events, [_line(e) for e in events] or ["nothing was ever promoted"]
    else:
        chosen, lines = _on(events, on)
    if as_json:
        click.echo(json.dumps([asdict(e) | {"at": _utc(e.at)} for e in chosen], indent=2))
    else:
        click.echo("\n".join(lines))


def _on(events: Sequence[Event], text: str) -> tuple[list[Event], list[str]]:
    """The promotions that were in force then, and what to say of each."""
    from services.common.registry import production_at, production_between

    start, end = _span(text)
    if end is None:
        now = production_at(events, start)
        chosen = [now] if now is not None else []
    else:
        chosen = production_between(events, start, end)
    if chosen:
        return chosen, [f"{NAME}:{e.production}  since {_line(e)}" for e in chosen]
    first = f"; the first promotion was at {_utc(events[0].at)}" if events else ""
    return [], [f"no bundle was in production on {text}{first}"]


def _span(text: str) -> tuple[float, float | None]:
    """A day as [start, end) or a moment as (moment, None), seconds UTC. Raises InputError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            "not a date", field="on", found=text[:60], expected="2026-11-23 or 2026-11-23T14:05Z"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > datetime.now(UTC):
        raise InputError("the future is not known", field="on", found=text[:60])
    if _DAY.fullmatch(text):
        return moment.timestamp(), (moment + timedelta(days=1)).timestamp()
    return moment.timestamp(), None


def _line(e: Event) -> str:
    before = f", in place of {e.previous}" if e.previous and e.previous != e.production else ""
    note = f": {e.note}" if e.note else ""
    return f"{_utc(e.at)}  {e.action} {e.bundle}{before}, by {e.who}{note}"


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    return {k: facts.get(k) for k in ("name", "trained_on", "synthetic", "schema_version")}
