"""Tables and numbers for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "–"


def number(value: float | int | None, digits: int = 3) -> str:
    """So many significant digits, thousands set apart; whole numbers stay whole."""
    if value is None:
        return NOTHING
    if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
        return f"{round(value):,}"
    return f"{value:.{digits}g}"


def spreaded(value: Any) -> str:
    """A spread as 'median (least to most)'; a plain number as itself."""
    if isinstance(value, Mapping) and "median" in value:
        middle = number(value["median"])
        if value.get("n", 2) > 1 and "min" in value:
            return f"{middle} ({number(value['min'])} to {number(value['max'])})"
        return middle
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING if value is None else str(value)
    return number(value)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table; the first column is text, the others stand to the right."""
    marks = ["---", *("---:" for _ in head[1:])]
    lines = [head, marks, *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines] + [""]


def image(name: str, text: str, images: Mapping[str, str]) -> list[str]:
    """A figure, where there is one. images: name of the record -> link."""
    return [f"![{text}]({images[name]})", ""] if name in images else []
