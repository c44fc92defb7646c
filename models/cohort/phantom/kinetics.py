"""Tissue enhancement over time, sampled at the phases' real times.

Signal is in units of unenhanced parenchyma; t is seconds after the contrast medium was injected.
Every curve is an uptake times a decay, the empirical form used for dynamic contrast-enhanced MRI.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


def uptake(t: float, start: float, tau: float) -> float:
    """0 before `start`, then 1 - exp(-(t - start)/tau)."""
    return 1.0 - math.exp(-(t - start) / tau) if t > start else 0.0


@dataclass(frozen=True)
class Perfusion:
    """A patient's liver and blood. amplitude and tau of the parenchyma vary between patients."""

    liver_amplitude: float
    liver_tau: float

    def liver(self, t: float) -> float:
        """Parenchyma: fed by the portal vein, so late and slow."""
        return 1.0 + self.liver_amplitude * uptake(t, 12, self.liver_tau) * math.exp(-t / 420)

    def portal(self, t: float) -> float:
        """Portal and hepatic veins."""
        return 1.0 + 1.30 * uptake(t, 15, 12) * math.exp(-t / 300)

    def blood(self, t: float) -> float:
        """Blood pool fed by arteries: what fills a hemangioma."""
        return 1.0 + 1.45 * uptake(t, 8, 6) * math.exp(-t / 250)

    def fluid(self, t: float) -> float:
        """Fluid or necrosis: dark on T1, takes up nothing."""
        return 0.62


def base_ratio(t: float, arterial: float, late: float) -> float:
    """Featureless lesion tissue over parenchyma: from one level to the other by about 90 s."""
    return arterial + (late - arterial) * uptake(t, 25, 22)


def arterial_bolus(t: float) -> float:
    """First-pass enhancement: all at 20 s, a fifth left at 70 s, nothing at 180 s."""
    return uptake(t, 8, 6) * math.exp(-(max(t, 20.0) - 20) / 30)


def loss(t: float) -> float:
    """Washout: nothing at 20 s, two thirds at 70 s, all at 180 s."""
    return uptake(t, 30, 35)


def slow_rise(t: float) -> float:
    """Uptake by fibrous stroma: nothing at 20 s, half at 70 s, nine tenths at 180 s."""
    return uptake(t, 25, 70)


def late_rise(t: float) -> float:
    """Retention: nothing until the venous phase is over, all at 180 s."""
    return 1.0 / (1.0 + math.exp(-(t - 120) / 12))


def late(t: float) -> float:
    """Switch between the arterial phase and what follows it."""
    return 1.0 / (1.0 + math.exp(-(t - 42) / 5))


def front(t: float) -> float:
    """How far a centripetal front has come, 0 (periphery) to 1 (its full depth)."""
    return uptake(t, 14, 55)
