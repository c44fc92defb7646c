"""The BentoML service: supervisor, sockets, worker and health around the one ASGI app.

    bentoml serve services.front.service:LesionLens      (services.front.serve checks more, first)

Importing this module reads and checks the bundle named by LESIONLENS_BUNDLE, in the supervisor as
well as in the worker, so that a damaged bundle ends the start with one line instead of a restart
loop. Weights are loaded by the app's lifespan, in the worker alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from starlette.applications import Starlette
from starlette.routing import Mount

from models.errors import LensError
from services.common.bundles import Bundles
from services.common.configured import read_settings
from services.common.settings import Settings
from services.front.app import FrontDoor, create_app
from services.front.orphan import end_with_parent
from services.front.refusal import give_up


def _build() -> tuple[Settings, FrontDoor]:
    try:
        settings = read_settings()
        return settings, create_app(Bundles(settings).served(), settings)
    except LensError as error:
        give_up(error)


SETTINGS, APP = _build()


@asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(APP.router.lifespan_context(APP))
        except LensError as error:  # a bundle that changed since the start
            give_up(error)
        watch = asyncio.create_task(end_with_parent(os.getppid()), name="end with parent")
        stack.callback(watch.cancel)
        yield


# BentoML falls through to routes of its own wherever a mounted Starlette app has no match. A mount
# inside matches every path, so that nothing but BentoML's health checks can be reached beside ours.
DOOR = Starlette(routes=[Mount("/", app=APP)], lifespan=_lifespan)


@bentoml.service(
    name="LesionLens",
    workers=1,  # one copy of the weights; calls run side by side in its thread pool
    traffic={"timeout": 86_400},  # until the first byte; bodies and queues have limits of our own
    http={"host": SETTINGS.host, "port": SETTINGS.port},  # BentoML's default is every address
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},  # labels by raw path grow without bound; /metrics is ours
)
@bentoml.asgi_app(DOOR, path="/")
class LesionLens:
    """Nothing but the mounted app is exposed."""

    def __is_ready__(self) -> bool:
        return APP.fleet.ready
