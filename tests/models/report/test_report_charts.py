"""Charts hold what they were given, in place, and nothing that could run or be fetched."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.report.charts import Axis, Bar, Series, curves, intervals, round_ticks

UNIT = Axis("x", 0.0, 1.0)


def drawing(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", chart, re.S).group())  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_lie_in_the_range_evenly_and_say_what_they_are(low: float, span: float) -> None:
    ticks = round_ticks(low, low + span)
    values = [v for v, _ in ticks]
    assert 2 <= len(ticks) <= 12
    assert min(values) >= low - 1e-6 * span
    assert max(values) <= low + span * (1 + 1e-6)
    for value, text in ticks:
        assert float(text) == pytest.approx(value, abs=1e-6 * max(1, abs(value)) + 0.01 * span)
    assert len({text for _, text in ticks}) == len(ticks)


def test_higher_values_are_drawn_higher_and_points_outside_are_left_out() -> None:
    chart = curves("t", UNIT, UNIT, [Series("a", [(0.2, 0.1), (0.8, 0.9), (0.5, 3.0)], line=False)])
    circles = list(drawing(chart).iter("circle"))
    assert len(circles) == 2
    assert float(circles[0].get("cx", "")) < float(circles[1].get("cx", ""))
    assert float(circles[0].get("cy", "")) > float(circles[1].get("cy", ""))


def test_a_band_surrounds_its_curve() -> None:
    series = Series("a", [(0.1, 0.5), (0.9, 0.6)], low=[0.4, 0.5], high=[0.6, 0.7])
    band = next(drawing(curves("t", UNIT, UNIT, [series])).iter("polygon")).get("points", "")
    assert len(band.split()) == 4


def test_an_interval_row_shows_figure_and_ends_or_says_undefined() -> None:
    rows = [Bar("good", 0.9, (0.8, 0.95), True), Bar("none", None)]
    chart = intervals("t", Axis("AUROC", 0.5, 1.0), rows, reference=0.5)
    svg = drawing(chart)
    texts = [e.text for e in svg.iter("text")]
    assert "0.900" in texts
    assert "undefined" in texts
    assert len(list(svg.iter("circle"))) == 1


def test_names_are_escaped() -> None:
    evil = "<script>alert(1)</script>"
    for chart in (
        curves(evil, Axis(evil, 0, 1), Axis(evil, 0, 1), [Series(evil, [(0.5, 0.5)])]),
        intervals(evil, Axis(evil, 0, 1), [Bar(evil, 0.5)]),
    ):
        assert "<script" not in chart
        drawing(chart)
