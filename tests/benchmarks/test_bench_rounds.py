"""Turns are taken by all in every round, and ratios are taken within a round."""

from __future__ import annotations

import pytest

from benchmarks.load.closed import Load
from benchmarks.rounds import Turns, interleaved, ratios
from benchmarks.several import joined


def test_every_server_has_its_turn_in_every_round_and_another_begins_each() -> None:
    order: list[tuple[str, int]] = []

    def way(name: str):  # type: ignore[no-untyped-def]
        def turn(clients: int, seconds: int) -> tuple[Load, float]:
            order.append((name, clients))
            return Load(10 * clients, float(seconds), ((1000, 10 * clients),)), 0.1

        return turn

    said: list[str] = []
    measured, others = interleaved(
        {name: way(name) for name in "abc"}, [],
        concurrency=(1, 8), rounds=3, seconds=2, say=said.append,
    )  # fmt: skip
    turns = order[3:]  # behind the warm-up
    firsts = [turns[6 * number][0] for number in range(3)]
    assert firsts == ["a", "b", "c"]
    for number in range(3):
        assert sorted(turns[6 * number : 6 * number + 6]) == sorted(
            (name, c) for name in "abc" for c in (1, 8)
        )
    assert all(len(t.loads) == 3 for by in measured.values() for t in by.values())
    assert len(others) == 18
    assert len(said) == 6


def test_a_turn_with_errors_is_taken_again_and_a_server_that_only_fails_is_named() -> None:
    failures = {"ours": 2, "theirs": 99}

    def way(name: str):  # type: ignore[no-untyped-def]
        def turn(clients: int, seconds: int) -> tuple[Load, float]:
            if clients == 8 and failures[name] > 0:
                failures[name] -= 1
                raise RuntimeError("3 of 5 answers were errors")
            return Load(5, 1.0, ((1000, 5),)), 0.1

        return turn

    asked = {"concurrency": (8,), "rounds": 1, "seconds": 1, "say": lambda _: None}
    measured, _ = interleaved({"ours": way("ours")}, [], **asked)
    assert len(measured["ours"][8].loads) == 1
    with pytest.raises(RuntimeError, match="theirs with 8 clients: 3 of 5"):
        interleaved({"theirs": way("theirs")}, [], **asked)


def test_ratios_are_taken_round_by_round() -> None:
    def turns(rates: list[int], cpu: list[float]) -> dict[int, Turns]:
        return {8: Turns([Load(r, 1.0, ((1000, r),)) for r in rates], cpu)}

    measured = {"ours": turns([50, 100], [0.1, 0.2]), "limit": turns([100, 200], [0.1, 0.2])}
    rate = ratios(measured, "ours", "limit", "rates")["8"]
    assert (rate["min"], rate["max"]) == (0.5, 0.5)
    cost = ratios(measured, "ours", "limit", "cpu_ms")["8"]
    assert (cost["min"], cost["max"]) == (2.0, 2.0)


def test_what_the_client_takes_is_not_held_against_the_server() -> None:
    import os

    cores = len(os.sched_getaffinity(0))
    alone = Turns([Load(100, 1.0, ((1000, 100),))], [1.0])
    shared = Turns([Load(100, 1.0, ((1000, 100),), 0.5)], [1.0])
    assert alone.net_rates[0] == pytest.approx(100 / cores)
    assert shared.net_rates[0] == pytest.approx(100 / (cores - 0.5))


def test_figures_of_turns() -> None:
    found = Turns([Load(4, 2.0, ((1000, 3), (9000, 1)), 0.02)], [0.04]).figures()
    assert found["rate"]["median"] == 2.0
    assert found["cpu_ms"]["median"] == pytest.approx(10.0)
    assert found["client_cpu_ms"]["median"] == pytest.approx(5.0)
    assert (found["p50_ms"], found["p99_ms"]) == (1.0, 9.0)


def test_loads_side_by_side_add_up() -> None:
    whole = joined([Load(10, 2.0, ((1, 10),)), Load(20, 2.5, ((2, 20),))])
    assert (whole.requests, whole.seconds) == (30, 2.5)
    assert whole.rate == pytest.approx(12.0)
    assert sum(n for _, n in whole.latencies_us) == 30
