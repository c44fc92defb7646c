"""Follows promotions: when another bundle is put into production, it is loaded and takes over.

    every second: registry -> another hash? -> load, check, warm (in a thread) -> swap

A bundle that must not be used is refused, with a log line and a metric, and what was served stays.
It is tried again after a while, or at once when the registry names another.
"""

from __future__ import annotations

import asyncio
import logging
import time

from prometheus_client import Counter

from models.errors import LensError
from services.common.registry import Registry
from services.inference.fleet import Fleet

EVERY = 1.0
AGAIN = 30.0

SWAPS = Counter(
    "lesionlens_model_swaps", "Promotions followed (swapped) or turned down (refused).", ["outcome"]
)
log = logging.getLogger("lesionlens.follow")


class Follower:
    """tick() is one look at the registry; run() repeats it until cancelled."""

    def __init__(self, fleet: Fleet, registry: Registry) -> None:
        self._fleet = fleet
        self._registry = registry
        self._refused: tuple[str, float] = ("", 0.0)

    async def run(self) -> None:
        troubled = False
        while True:
            try:
                await self.tick()
                troubled = False
            except LensError as error:  # the ledger is away: what is served stays
                if not troubled:
                    log.warning("promotions cannot be followed: %s; trying on", error.line)
                troubled = True
            except Exception:
                log.exception("promotions cannot be followed; trying on")
            await asyncio.sleep(EVERY)

    async def tick(self) -> bool:
        """True where another bundle took over."""
        wanted = await asyncio.to_thread(self._registry.production)
        before = self._fleet.current.bundle.hash
        if wanted is None or wanted == before:
            return False
        refused, when = self._refused
        if wanted == refused and time.monotonic() - when < AGAIN:
            return False
        try:
            await self._fleet.swap(wanted)
        except LensError as error:
            if wanted != refused:
                SWAPS.labels("refused").inc()
                log.error("bundle %s is refused: %s; %s stays", wanted, error.line, before)
            self._refused = (wanted, time.monotonic())
            return False
        self._refused = ("", 0.0)
        SWAPS.labels("swapped").inc()
        log.info("bundle %s took over from %s", wanted, before)
        return True
