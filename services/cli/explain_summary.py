"""A short summary of an explanation for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.reasons.words import percent
from wire.explanation import Explanation


def show(document: Explanation, out: Path | None = None, console: Console | None = None) -> None:
    """Class, cautions, text, found features, where the files are."""
    say = (console or Console(highlight=False)).print
    prediction = document.prediction
    top = prediction.probabilities[0]
    say(f"[bold]{escape(prediction.label)}[/bold]  {percent(top.probability)}")
    others = [f"{c.label} {percent(c.probability)}" for c in prediction.probabilities[1:3]]
    say(
        f"[dim]then {escape(', '.join(others))}; {prediction.pass_agreement:.0%} of "
        f"{document.provenance.passes} passes agree[/dim]"
    )
    for caution in document.cautions:
        say(f"[yellow]! {escape(caution.text)}[/yellow]")
    say()
    say(escape(document.text))
    say()
    say(_features(document))
    if out is not None:
        say(f"\nwritten: {out / 'report.html'}, explanation.json, maps.npz", soft_wrap=True)
    origin = "trained on synthetic lesions; " if document.synthetic else ""
    say(f"[dim]{origin}bundle {document.provenance.bundle}; {document.disclaimer}[/dim]")


def _features(document: Explanation) -> Table | str:
    found = [f for f in document.features if f.found]
    if not found:
        return "No feature found."
    table = Table("found feature", box=None, pad_edge=False)
    table.add_column("probability", justify="right")
    table.add_column("influence (logits)", justify="right")
    table.add_column("typical of")
    for f in found:
        table.add_row(
            escape(f.label),
            percent(f.probability),
            f"{f.influence.value:+.2f}",
            ", ".join(f.typical_of),
        )
    return table
