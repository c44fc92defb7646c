"""A cohort's explanations for a person: the bar, what failed, where the table is, the exit code."""

from __future__ import annotations

import click

from services.cli.bar import bar
from services.cli.bulk import Tally, Wish, explain_cohort

SHOWN = 20


def explain_shown(wish: Wish) -> int:
    """Explain a cohort. 0 where every lesion has its explanation, 1 where some have none."""
    with bar("explaining") as tell:
        tally = explain_cohort(wish, tell)
    for reason in tally.reasons[:SHOWN]:
        click.echo(f"failed: {reason}", err=True)
    if len(tally.reasons) > SHOWN:
        click.echo(f"failed: and {len(tally.reasons) - SHOWN} more, see the table", err=True)
    click.echo(_sentence(tally))
    return 1 if tally.failed else 0


def _sentence(tally: Tally) -> str:
    parts = [f"{tally.done} explained in {tally.seconds:.0f} s"]
    if tally.before:
        parts.append(f"{tally.before} were before")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    return f"{', '.join(parts)}: {tally.summary}"
