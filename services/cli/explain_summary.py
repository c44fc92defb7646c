"""A short summary of an explanation for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.reasons.words import percent
from wire.explanation import Consistency, Explanation, Review


def show(document: Explanation, out: Path | None = None, console: Console | None = None) -> None:
    """Class, review, cautions, text, found features, where the files are."""
    say = (console or Console(highlight=False)).print
    prediction = document.prediction
    top = prediction.probabilities[0]
    say(f"[bold]{escape(prediction.label)}[/bold]  {percent(top.probability)}")
    others = [f"{c.label} {percent(c.probability)}" for c in prediction.probabilities[1:3]]
    say(
        f"[dim]then {escape(', '.join(others))}; {prediction.pass_agreement:.0%} of "
        f"{document.provenance.passes} passes agree[/dim]"
    )
    if document.review is not None:
        say(_review(document.review))
    for caution in document.cautions:
        say(f"[yellow]! {escape(caution.text)}[/yellow]")
    say()
    say(escape(document.text))
    say()
    say(_features(document))
    for fit in document.consistency:
        say(_fit(document, fit))
    if out is not None:
        say(f"\nwritten: {out / 'report.html'}, explanation.json, maps.npz", soft_wrap=True)
    origin = "trained on synthetic lesions; " if document.synthetic else ""
    say(f"[dim]{origin}bundle {document.provenance.bundle}; {document.disclaimer}[/dim]")


def _review(review: Review) -> str:
    share = f"chance of a wrong class {percent(review.score)}, limit {percent(review.threshold)}"
    if not review.flagged:
        return f"[green]no review advised[/green] [dim]({share})[/dim]"
    why = " ".join(reason.text for reason in review.reasons)
    return f"[bold red]review advised[/bold red] [dim]({share})[/dim] {escape(why)}"


def _fit(document: Explanation, fit: Consistency) -> str:
    """'by the reader's features alone: cyst 80 % (the network: FNH)'"""
    whose = {"probes": "found", "reader": "reader's", "report": "report's"}[fit.source]
    first = fit.probabilities[0]
    text = f"by the {whose} features alone: {first.label} {percent(first.probability)}"
    return f"[dim]{escape(text)}{'' if fit.agrees else ', unlike the network'}[/dim]"


def _features(document: Explanation) -> Table | str:
    found = [f for f in document.features if f.found]
    if not found:
        return "No feature found."
    table = Table("found feature", box=None, pad_edge=False)
    table.add_column("probability", justify="right")
    table.add_column("relevance (logits)", justify="right")
    table.add_column("interval", justify="right")
    table.add_column("typical of")
    for f in found:
        table.add_row(
            escape(f.label),
            percent(f.probability),
            f"{f.relevance.value:+.2f}",
            "" if f.relevance.ci is None else "{:+.2f} to {:+.2f}".format(*f.relevance.ci),
            ", ".join(f.typical_of),
        )
    return table
