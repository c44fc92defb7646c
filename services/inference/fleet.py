"""All model weights of a deployment: the bundle that is served, and what unfinished work asks for.

    request --admit (else 503)--> host of its bundle --> Scheduler's threads --> onnxruntime

A request takes its host once and keeps it to the end, so a swap needs no lock and drops nothing:
what began on the old host ends there. Sessions are shared by the scheduler's threads: onnxruntime
allows it, and several calls side by side beat one call on several threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from prometheus_client import Counter, Gauge

from models.bundle.read import Bundle
from models.errors import BundleError, NotFound, Unavailable
from services.common.bundles import Bundles
from services.common.settings import Settings
from services.common.store import HASH
from services.inference.host import ModelHost
from services.inference.lanes import Work
from services.inference.scheduler import Scheduler

T = TypeVar("T")
log = logging.getLogger("lesionlens.fleet")
PREDICTION = Work()

RESIDENT = Gauge(
    "lesionlens_models_resident",
    "Bundles whose weights are in memory.",
    multiprocess_mode="livesum",
)
LOADED = Counter("lesionlens_models_loaded", "Bundles loaded, parity checked and warm.")


class Fleet:
    """Hosts by bundle hash; one of them is `current`. Belongs to the event loop's thread.

    Not ready before `load`. At most `settings.queue` requests are admitted beyond those that run,
    over all bundles together; at most `settings.resident` bundles are kept, the least recently used
    go first, the current one never.
    """

    def __init__(self, bundle: Bundle, bundles: Bundles, settings: Settings) -> None:
        self.settings = settings
        self.bundles = bundles
        self._first = bundle
        self._current: ModelHost | None = None
        self._hosts: OrderedDict[str, ModelHost] = OrderedDict()
        self._loading: dict[str, asyncio.Task[ModelHost]] = {}
        self.scheduler = Scheduler(
            settings.sessions, settings.queue, settings.merge_rows, settings.merge_delay_ms / 1e3
        )

    @property
    def ready(self) -> bool:
        return self._current is not None

    @property
    def current(self) -> ModelHost:
        """The host that serves who asks for no bundle. Raises Unavailable while it is loading."""
        if self._current is None:
            raise Unavailable("the model is loading", code="not_ready", retry_after=2)
        return self._current

    @property
    def bundle(self) -> Bundle:
        """The bundle that is served; before `load` the one that will be."""
        return self._first if self._current is None else self._current.bundle

    @property
    def resident(self) -> list[str]:
        """Hashes of the bundles in memory, the current one first."""
        first = [] if self._current is None else [self._current.bundle.hash]
        return [*first, *(h for h in reversed(self._hosts) if h not in first)]

    async def load(self) -> ModelHost:
        """Load the first bundle and open the queue.

        Raises BundleError, and InputError where it does not serve the settings' precision.
        """
        host = await self._load(self._first.hash, lambda: self._first)
        await asyncio.to_thread(host.at, host.precision)
        self.scheduler.start()
        self._current = host
        return host

    async def swap(self, bundle: str) -> ModelHost:
        """Make the bundle of this hash the current one, loaded and warm before anybody sees it.

        Raises BundleError, or InputError where it does not serve the settings' precision; then
        everything is as before.
        """
        host = await self._load(bundle, lambda: self.bundles.of(bundle))
        await asyncio.to_thread(host.at, host.precision)
        self._current = host
        self._hosts[bundle] = self._current
        self._trim()
        return self._current

    async def host(self, bundle: str) -> ModelHost:
        """The host of a bundle, loaded from the model store if need be.

        Raises NotFound where there is no such bundle, BundleError where it must not be used.
        """
        current = self.current
        if bundle == current.bundle.hash:
            return current
        if HASH.fullmatch(bundle) is None:
            raise _unknown(bundle, current)
        try:
            return await self._load(bundle, lambda: self.bundles.of(bundle))
        except BundleError as error:
            if error.code == "bundle_missing":
                raise _unknown(bundle, current) from None
            raise

    async def _load(self, bundle: str, opened: Callable[[], Bundle]) -> ModelHost:
        """From memory, or by one task however many ask at once; in a thread of its own.

        The task is shielded: a client that hangs up does not undo the load for the others.
        """
        known = self._hosts.get(bundle)
        if known is not None:
            self._hosts.move_to_end(bundle)
            return known
        task = self._loading.get(bundle)
        if task is None:
            task = asyncio.create_task(self._read(bundle, opened), name=f"load {bundle}")
            self._loading[bundle] = task
            task.add_done_callback(lambda _: self._loading.pop(bundle, None))
        return await asyncio.shield(task)

    async def _read(self, bundle: str, opened: Callable[[], Bundle]) -> ModelHost:
        host = await asyncio.to_thread(lambda: _host(opened(), self.settings))
        LOADED.inc()
        log.info("bundle %s loaded and warm in %.2f s", bundle, host.load_seconds)
        self._hosts[bundle] = host
        self._trim()
        return host

    def _trim(self) -> None:
        """Let go of what was used least recently. Requests under way hold their host themselves."""
        keep = None if self._current is None else self._current.bundle.hash
        for bundle in [h for h in self._hosts if h != keep]:
            if len(self._hosts) <= self.settings.resident:
                break
            del self._hosts[bundle]
        RESIDENT.set(len(self._hosts))

    async def close(self) -> None:
        """Wait for what runs, then let go of everything."""
        self._current = None
        for task in list(self._loading.values()):
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        await self.scheduler.close()
        self._hosts.clear()

    def admit(self) -> AbstractContextManager[None]:
        """A place in the queue, to be taken before a body is read. Raises Unavailable when full."""
        return self.scheduler.admit()

    async def run(self, call: Callable[..., T], *arguments: object, work: Work = PREDICTION) -> T:
        """Run when its turn comes. The caller holds a place from `admit`."""
        return await self.scheduler.run(partial(call, *arguments), work)


def _host(bundle: Bundle, settings: Settings) -> ModelHost:
    return ModelHost(
        bundle,
        settings.threads,
        settings.chunk_rows,
        execution=settings.execution,
        precision=settings.precision,
        streams=settings.sessions,
    )


def _unknown(bundle: str, current: ModelHost) -> NotFound:
    return NotFound(
        "no such version",
        code="unknown_version",
        field="version",
        found=bundle[:40],
        expected=f"1 (what is served, now {current.bundle.hash}) or a bundle of the model store",
    )
