"""Queueing formulas against exact results and against a simulated queue."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.load.schedule import poisson
from benchmarks.queueing import (
    Station,
    cores_for,
    erlang_c,
    little,
    mean_wait,
    response_quantiles,
    utilisation,
)


def simulated(
    arrivals: NDArray[np.float64], service: NDArray[np.float64], places: int
) -> NDArray[np.float64]:
    """Responses of a first-come queue before `places` places."""
    free = [0.0] * places
    found = []
    for came, takes in zip(arrivals, service, strict=True):
        start = max(came, heapq.heappop(free))
        heapq.heappush(free, start + takes)
        found.append(start + takes - came)
    return np.array(found)


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
def test_erlang_c_of_one_and_two_places_is_the_closed_form(rho: float) -> None:
    assert erlang_c(1, rho) == pytest.approx(rho)
    assert erlang_c(2, rho) == pytest.approx(2 * rho**2 / (1 + rho))


@pytest.mark.parametrize("rho", [0.2, 0.7])
def test_the_wait_is_exact_for_one_place(rho: float) -> None:
    assert mean_wait(2.0, 1, rho) == pytest.approx(rho / (1 - rho) * 2.0)  # M/M/1
    # Pollaczek and Khinchine: with a constant service time half of that.
    assert mean_wait(2.0, 1, rho, services=0.0) == pytest.approx(rho / (1 - rho))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("kind", ["constant", "exponential", "two kinds"])
def test_quantiles_are_those_of_a_simulated_queue(kind: str, load: float) -> None:
    rng = np.random.default_rng(1)
    n = 40_000
    service = {
        "constant": np.full(n, 0.01),
        "exponential": rng.exponential(0.01, n),
        "two kinds": rng.choice([0.006, 0.024], n, p=[0.8, 0.2]),
    }[kind]
    station = Station(2, service)
    rate = load * station.capacity
    arrivals = poisson(rate, n / rate, seed=2)[:n]
    seen = simulated(arrivals, service[: len(arrivals)], 2)
    p50, p99 = response_quantiles(station, rate, (0.5, 0.99))
    assert p50 == pytest.approx(np.quantile(seen, 0.5), rel=0.15)
    assert p99 == pytest.approx(np.quantile(seen, 0.99), rel=0.25)


def test_without_load_there_is_no_wait() -> None:
    service = np.array([1.0, 2.0, 3.0, 4.0])
    p50, p99 = response_quantiles(Station(2, service), 0.0, (0.5, 0.99))
    assert p50 == pytest.approx(2.0, abs=1e-6)
    assert p99 == pytest.approx(4.0, abs=1e-6)


def test_more_places_with_one_queue_wait_less_at_the_same_load() -> None:
    service = np.full(10, 0.01)
    tails = [
        response_quantiles(Station(c, service), 0.8 * c / 0.01, (0.99,))[0] for c in (1, 2, 4, 8)
    ]
    assert tails == sorted(tails, reverse=True)
    assert tails[0] > tails[-1]


def test_what_cannot_be_borne_is_refused() -> None:
    with pytest.raises(ValueError, match="utilisation"):
        utilisation(10.0, 0.2, 2)
    with pytest.raises(ValueError, match="utilisation"):
        erlang_c(2, 1.0)
    with pytest.raises(ValueError, match="utilisation"):
        response_quantiles(Station(1, np.array([1.0])), 1.5, (0.5,))


def test_cores_and_littles_law() -> None:
    assert cores_for(100.0, 0.014, busy=0.7) == 2
    assert cores_for(0.0, 0.014) == 1
    assert little(50.0, 0.1) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="positive"):
        cores_for(1.0, 0.0)
