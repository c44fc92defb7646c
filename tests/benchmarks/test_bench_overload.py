"""What is said of an overload, from traces whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.overload import judged, memory_figures, recover, timeline


def rows() -> np.ndarray:
    """Ten seconds, 40 a second: a quarter answered after 0.1 s, the others refused 1 ms after they
    were sent, which was 2 ms late."""
    at = np.arange(400) / 40
    good = np.arange(400) % 4 == 0
    return np.stack(
        [at, np.where(good, 0.1, 0.003), np.where(good, 200, 503), np.full(400, 0.002)], axis=1
    )


def test_shares_and_latencies() -> None:
    found = judged(rows(), 10.0, capacity=12.5)
    assert found["refused_share"] == 0.75
    assert found["goodput"] == pytest.approx(9.9, abs=0.15)  # what ended later does not count
    assert found["goodput_vs_capacity"] == pytest.approx(found["goodput"] / 12.5, abs=1e-3)
    assert found["refusal_ms"] == {"p50": 1.0, "p99": 1.0}
    assert found["answer_ms"] == {"p50": 100.0, "p99": 100.0}
    assert found["client_late_ms"] == {"p50": 2.0, "p99": 2.0}
    assert found["statuses"] == {"200": 100, "503": 300}
    assert found["lost_share"] == found["unsent_share"] == found["other_share"] == 0


def test_every_other_fate_has_a_share_of_its_own() -> None:
    fates = rows()
    fates[:4, 2] = (0, -1, 500, 429)
    found = judged(fates, 10.0, capacity=10.0)
    assert found["lost_share"] == found["unsent_share"] == found["other_share"] == 1 / 400
    total = sum(found[f"{k}_share"] for k in ("lost", "unsent", "other", "refused"))
    assert total == pytest.approx(1 - found["statuses"]["200"] / 400, abs=1e-3)


def test_nobody_refused_has_no_latency() -> None:
    assert judged(rows()[::4], 10.0, capacity=10.0)["refusal_ms"] is None


def test_a_leak_shows_in_growth_and_slope() -> None:
    at = np.arange(60.0)
    flat = memory_figures(np.stack([at, np.full(60, 300.0)], axis=1))
    assert (flat["growth"], flat["slope_mb_per_minute"]) == (0.0, 0.0)
    leak = memory_figures(np.stack([at, 300.0 + at], axis=1))
    assert leak["slope_mb_per_minute"] == pytest.approx(60.0)
    assert leak["growth"] > 0.1
    # Buffers that come once, at the very start, are no leak.
    once = memory_figures(np.stack([at, np.where(at < 3, 250.0, 300.0)], axis=1))
    assert once["growth"] == 0.0


def test_the_timeline_counts_by_the_second_of_arrival() -> None:
    found = timeline(rows(), np.array([[0.0, 300.0], [1.0, 301.0]]), 10.0)
    assert sum(found["refusals"]) == 300
    assert len(found["answers"]) == 10
    assert found["rss_mb"] == [300.0, 301.0]


class Slow:
    """Takes 125 ms for the first `slow` requests, then 2 ms, on a clock of its own."""

    def __init__(self, slow: int) -> None:
        self.slow, self.time = slow, 0.0

    def now(self) -> float:
        return self.time

    def ask(self) -> None:
        self.slow -= 1
        self.time += 0.125 if self.slow >= 0 else 0.002


@pytest.mark.parametrize(("slow", "seconds"), [(0, 0.5), (5, 1.125), (20, 3.0)])
def test_recovery_ends_with_the_first_window_whose_median_is_normal(
    slow: int, seconds: float
) -> None:
    server = Slow(slow)
    took, median = recover(server, normal=0.0018, now=server.now)
    assert took == pytest.approx(seconds, abs=0.02)
    assert median == pytest.approx(2.0)


def test_a_service_that_stays_slow_has_not_recovered() -> None:
    server = Slow(1000)
    took, median = recover(server, normal=0.002, patience=5.0, now=server.now)
    assert took is None
    assert median == pytest.approx(125.0)
