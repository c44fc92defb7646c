"""What is said of scale, from traces and stations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.limit import limit
from benchmarks.queueing import Station
from benchmarks.scale import LAYOUTS, compared, extrapolated, in_system, span


def trace(rate: float, takes: float, seconds: float) -> np.ndarray:
    at = np.arange(0, seconds, 1 / rate)
    rows = np.zeros((len(at), 4))
    rows[:, 0], rows[:, 1], rows[:, 2] = at, takes, 200
    return rows


def test_littles_law_counts_what_the_trace_shows() -> None:
    rows = trace(rate=50.0, takes=0.1, seconds=20.0)
    assert in_system(rows) == pytest.approx(5.0, rel=0.02)
    assert span(rows) == pytest.approx(20.08, abs=0.02)
    found = compared(rows, Station(8, np.full(5, 0.1)), 50.0, 0.625)
    assert found["in_system"]["little"] == pytest.approx(found["in_system"]["counted"], rel=0.02)
    assert found["measured_ms"] == {"p50": 100.0, "p99": 100.0}
    assert found["formula_ms"]["p99"] >= found["formula_ms"]["p50"] >= 100.0
    assert found["refused_share"] == 0


def test_refusals_are_no_latencies() -> None:
    rows = trace(rate=50.0, takes=0.1, seconds=4.0)
    rows[::2, 1], rows[::2, 2] = 0.001, 503
    found = compared(rows, Station(8, np.full(5, 0.1)), 50.0, 0.625)
    assert found["refused_share"] == 0.5
    assert found["measured_ms"]["p50"] == 100.0


def test_on_paper_capacity_and_memory_grow_with_cores_and_one_queue_is_never_worse() -> None:
    service = np.random.default_rng(0).exponential(0.01, 500)
    rows = extrapolated(45.0, 300.0, Station(2, service))
    assert [r["capacity"] for r in rows] == [45.0 * r["cores"] for r in rows]
    assert [r["memory_mb"] for r in rows] == [300.0 * r["replicas"] for r in rows]
    for row in rows:
        assert row["one_queue_ms"]["p99"] <= row["own_queues_ms"]["p99"] + 0.01
    assert rows[0]["one_queue_ms"] == rows[0]["own_queues_ms"]
    assert len({r["own_queues_ms"]["p99"] for r in rows}) == 1


def test_layouts_differ_and_hold_one_core_and_two() -> None:
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
    assert {layout.cores for layout in LAYOUTS} == {1, 2}


def test_the_limit_runs_the_file_in_a_process_of_its_own(tiny_bundle) -> None:  # type: ignore[no-untyped-def]
    load, cpu = limit(tiny_bundle / "classifier.onnx", (1, 3, 24, 24, 24), clients=3, seconds=0.5)
    assert load.requests == sum(n for _, n in load.latencies_us) > 0
    assert load.seconds >= 0.5
    assert 0 < cpu <= 2.2 * load.seconds  # two places at the most
