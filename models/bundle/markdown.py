"""Figures and tables of the model card, Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def with_interval(value: float | None, ci: Sequence[float] | None) -> str:
    return figure(value) + (f" ({ci[0]:.3f} to {ci[1]:.3f})" if ci else "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
