"""Queueing on paper: how long requests wait before c places, and how many cores a load needs.

    M/M/c      Erlang's C: the probability that an arrival waits
    G/G/c      mean wait, Sakasegawa (1977) for several places, scaled by the two variations as in
               Kingman (1961) and Allen and Cunneen:
               Wq = (ca^2 + cs^2) / 2 * rho^(sqrt(2 (c + 1)) - 1) / (c (1 - rho)) * E[S]
    the tail   who waits, waits an exponential time (exact for M/M/c): P(W > t) = C exp(-t C / Wq)
    Little     number in the system = arrival rate x mean time in it (1961)

Times in seconds, rates a second. All functions raise ValueError for a load that cannot be borne.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Station:
    """c places that each serve one request at a time. service: measured service times, [n]."""

    places: int
    service: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.service.mean())

    @property
    def variation(self) -> float:
        """Squared coefficient of variation."""
        return float(self.service.var() / self.service.mean() ** 2)

    @property
    def capacity(self) -> float:
        """The rate that keeps all places busy."""
        return self.places / self.mean


def utilisation(rate: float, mean: float, places: int) -> float:
    """Share of the time that a place is busy. Raises ValueError unless it is in [0, 1)."""
    rho = rate * mean / places
    if not 0 <= rho < 1:
        raise ValueError(f"utilisation {rho:.2f} is not in [0, 1)")
    return rho


def erlang_c(places: int, rho: float) -> float:
    """Probability that an arrival waits in M/M/c."""
    if not 0 <= rho < 1 or places < 1:
        raise ValueError(f"utilisation {rho:.2f} of {places} places")
    blocked = 1.0  # Erlang's B by its recursion, which stays in range for many places
    load = places * rho
    for k in range(1, places + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked / (1 - rho * (1 - blocked))


def mean_wait(
    mean: float, places: int, rho: float, *, arrivals: float = 1.0, services: float = 1.0
) -> float:
    """Mean seconds before service. arrivals, services: squared coefficients of variation."""
    if not 0 <= rho < 1 or places < 1:
        raise ValueError(f"utilisation {rho:.2f} of {places} places")
    queue = rho ** (math.sqrt(2 * (places + 1)) - 1) / (places * (1 - rho))
    return (arrivals + services) / 2 * queue * mean


def response_quantiles(
    station: Station, rate: float, shares: tuple[float, ...], *, arrivals: float = 1.0
) -> list[float]:
    """Quantiles of wait plus service at a rate, in seconds. Service as measured, wait on paper."""
    rho = utilisation(rate, station.mean, station.places)
    wait = mean_wait(
        station.mean, station.places, rho, arrivals=arrivals, services=station.variation
    )
    waits = min(1.0, erlang_c(station.places, rho)) if rho > 0 else 0.0
    decay = waits / wait if wait > 0 else math.inf
    times = np.sort(station.service)

    def beyond(t: float) -> float:
        """P(response > t)."""
        left = np.maximum(t - times, 0.0)
        tail = waits * np.exp(-left * decay) if math.isfinite(decay) else np.zeros_like(left)
        return float(np.where(times > t, 1.0, tail).mean())

    found = []
    for share in shares:
        low, high = 0.0, float(times[-1]) + (60 / decay if math.isfinite(decay) else 0.0) + 1e-9
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if beyond(middle) > 1 - share else (low, middle)
        found.append(high)
    return found


def little(rate: float, seconds: float) -> float:
    """Mean number in the system."""
    return rate * seconds


def cores_for(rate: float, cpu_seconds: float, busy: float = 0.7) -> int:
    """Cores that bear `rate` requests of `cpu_seconds` each, kept busy to a share of `busy`."""
    if not 0 < busy < 1 or rate < 0 or cpu_seconds <= 0:
        raise ValueError("a rate of at least 0, positive CPU-seconds, a share in (0, 1)")
    return max(1, math.ceil(rate * cpu_seconds / busy - 1e-9))
