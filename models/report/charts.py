"""Small charts as inline SVG: curves with bands, intervals row by row, points. Numbers in, SVG out.

No script, no font of its own, no outside address; each has a title for those who cannot see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

# Told apart with any colour vision (Okabe & Ito), the strongest first.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5ea8", "#8a6d00", "#56b4e9", "#555555")

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 640.0, 62.0, 18.0, 14.0, 46.0


@dataclass(frozen=True)
class Series:
    """One curve or cloud. points: (x, y). low, high: a band around the curve, as long as points.

    marks: draw the points; line: join them.
    """

    label: str
    points: Sequence[tuple[float, float]]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marks: bool = True
    line: bool = True
    emphasis: bool = False


@dataclass(frozen=True)
class Axis:
    """Label and range of an axis; `ticks` are (value, text)."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]] = field(default_factory=tuple)

    def shown(self) -> list[tuple[float, str]]:
        """The ticks given, or about five round ones."""
        return list(self.ticks) or round_ticks(self.low, self.high)


@dataclass(frozen=True)
class Bar:
    """One row of an interval chart: a figure and its 95 % interval; None where undefined."""

    label: str
    value: float | None
    ci: Sequence[float] | None = None
    emphasis: bool = False


def round_ticks(low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
    """Round values from low to high, with as many digits as their step needs."""
    span = high - low
    if not span > 0:
        return [(low, f"{low:g}")]
    step = 10.0 ** len(str(int(span))) if span >= 1 else 1.0
    for digits in range(8):
        for factor in (5.0, 2.0, 1.0):
            trial = factor * step / 10.0**digits
            if span / trial >= count - 0.5:
                first = -(-low // trial) * trial
                places = max(0, -_exponent(trial))
                values = [first + i * trial for i in range(int((high - first) / trial + 1e-9) + 1)]
                return [(v, f"{v + 0.0:.{places}f}") for v in values]
    return [(low, f"{low:g}"), (high, f"{high:g}")]


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def curves(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    *,
    height: float = 320.0,
    diagonal: bool = False,
) -> Markup:
    """Lines, bands and points in one frame, with a key below. Points outside are cut off."""
    frame = _Frame(x, y, height)
    parts = [*frame.grid()]
    if diagonal:
        ends = frame.line([(max(x.low, y.low),) * 2, (min(x.high, y.high),) * 2])  # type: ignore[list-item]
        parts.append(f'<polyline points="{ends}" class="diagonal"/>')
    marks: list[str] = []
    for i, one in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        if one.low and one.high:
            up = [(p[0], h) for p, h in zip(one.points, one.high, strict=True)]
            down = [(p[0], v) for p, v in zip(one.points, one.low, strict=True)]
            marks.append(
                f'<polygon points="{frame.line([*up, *reversed(down)])}" fill="{colour}" '
                'fill-opacity=".15"/>'
            )
        if one.line:
            marks.append(
                f'<polyline points="{frame.line(one.points)}" fill="none" stroke="{colour}" '
                f'stroke-width="{2.6 if one.emphasis else 1.5}"/>'
            )
        if one.marks:
            radius, shade = (3.2, 1) if one.line else (2.2, 0.45)
            if len(one.points) < 4:
                radius, shade = 5.5, 1  # a mark, no cloud
            marks += [
                f'<circle cx="{frame.x(a):.1f}" cy="{frame.y(b):.1f}" r="{radius}" '
                f'fill="{colour}" fill-opacity="{shade}"/>'
                for a, b in one.points
                if frame.holds(a, b)
            ]
    keys = [(COLOURS[i % len(COLOURS)], s.label) for i, s in enumerate(series) if s.label]
    return _svg(title, height, [*parts, f"<g>{''.join(marks)}</g>"], keys)


def intervals(
    title: str, axis: Axis, rows: Sequence[Bar], *, reference: float | None = None
) -> Markup:
    """One figure a row with its interval, on one axis; a vertical line at `reference`."""
    left, step = 210.0, 22.0
    height = _TOP + step * len(rows) + _BOTTOM
    bottom = height - _BOTTOM

    def at(value: float) -> float:
        share = (min(max(value, axis.low), axis.high) - axis.low) / (axis.high - axis.low)
        return left + share * (_WIDTH - left - 64 - _RIGHT)

    parts = []
    for value, text in axis.shown():
        parts.append(
            f'<line x1="{at(value):.1f}" x2="{at(value):.1f}" y1="{_TOP}" y2="{bottom}" '
            f'class="grid"/><text x="{at(value):.1f}" y="{bottom + 16}" '
            f'text-anchor="middle">{escape(text)}</text>'
        )
    if reference is not None and axis.low <= reference <= axis.high:
        parts.append(
            f'<line x1="{at(reference):.1f}" x2="{at(reference):.1f}" y1="{_TOP}" '
            f'y2="{bottom}" class="zero"/>'
        )
    for i, row in enumerate(rows):
        y = _TOP + step * (i + 0.5)
        weight = ' font-weight="650"' if row.emphasis else ""
        colour = COLOURS[0] if row.emphasis else "#46535f"
        parts.append(f'<text x="0" y="{y + 4:.1f}"{weight}>{escape(row.label)}</text>')
        if row.value is None:
            parts.append(f'<text x="{_WIDTH - 64}" y="{y + 4:.1f}">undefined</text>')
            continue
        if row.ci:
            parts.append(
                f'<line x1="{at(row.ci[0]):.1f}" x2="{at(row.ci[1]):.1f}" y1="{y}" y2="{y}" '
                f'stroke="{colour}" stroke-width="2"/>'
            )
        parts.append(f'<circle cx="{at(row.value):.1f}" cy="{y}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - 64}" y="{y + 4:.1f}"{weight}>{row.value:.3f}</text>')
    middle = (left + _WIDTH - 64 - _RIGHT) / 2
    parts.append(
        f'<text x="{middle:.1f}" y="{height - 8}" text-anchor="middle" '
        f'class="soft">{escape(axis.label)}</text>'
    )
    return _svg(title, height, parts, [])


@dataclass(frozen=True)
class _Frame:
    across: Axis
    up: Axis
    height: float

    def x(self, value: float) -> float:
        share = (value - self.across.low) / (self.across.high - self.across.low)
        return _LEFT + min(max(share, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.up.low) / (self.up.high - self.up.low)
        return self.height - _BOTTOM - min(max(share, 0.0), 1.0) * (self.height - _BOTTOM - _TOP)

    def holds(self, a: float, b: float) -> bool:
        return self.across.low <= a <= self.across.high and self.up.low <= b <= self.up.high

    def line(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)

    def grid(self) -> list[str]:
        bottom, right = self.height - _BOTTOM, _WIDTH - _RIGHT
        parts = []
        for value, text in self.up.shown():
            y = self.y(value)
            parts.append(
                f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
                f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
            )
        for value, text in self.across.shown():
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{bottom + 17}" '
                f'text-anchor="middle">{escape(text)}</text>'
            )
        parts.append(
            f'<line x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" class="axis"/>'
            f'<text x="{(_LEFT + right) / 2:.1f}" y="{self.height - 8}" text-anchor="middle" '
            f'class="soft">{escape(self.across.label)}</text>'
            f'<text transform="translate(14 {(bottom + _TOP) / 2:.1f}) rotate(-90)" '
            f'text-anchor="middle" class="soft">{escape(self.up.label)}</text>'
        )
        return parts


def _svg(
    title: str, height: float, parts: Sequence[str], keys: Sequence[tuple[str, str]]
) -> Markup:
    key = "".join(
        f'<span><i style="background:{colour}"></i>{escape(label)}</span>' for colour, label in keys
    )
    body = (
        f'<svg viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
    caption = f'<div class="key">{key}</div>' if key else ""
    text = f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{body}{caption}</figure>'
    return Markup(text)  # noqa: S704  (every text in it was escaped, the rest are numbers)
