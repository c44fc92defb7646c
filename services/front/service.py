"""The BentoML service: supervisor, sockets, worker and health around the one ASGI app.

    bentoml serve services.front.service:LesionLens      (services.front.serve checks more, first)

    supervisor: imports this module, which is little     worker: `to_asgi` -> bundle, app, weights

The app is built in the worker alone, so that the supervisor starts it at once. A bundle that must
not be used ends both (`refusal`). Under plain `bentoml serve` it is looked at here already, in the
supervisor, since nobody turns the end of its worker into an exit code there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from services.front import garbage
from services.front.refusal import give_up, is_supervised

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
if is_supervised():  # then somebody resumes: the lifespan in a worker, services.front.serve
    garbage.pause()

import bentoml

from models.errors import LensError
from services.common.configured import read_settings
from services.common.settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from services.front.app import FrontDoor


def _settings() -> Settings:
    try:
        settings = read_settings()
        if not is_supervised():
            from services.common.bundles import Bundles

            Bundles(settings).served()
        return settings
    except LensError as error:
        give_up(error)


SETTINGS = _settings()


class _Service(bentoml.Service):  # type: ignore[misc]
    """BentoML's service, with our app as the door for clients."""

    app: FrontDoor

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Called in the worker."""
        from services.common.bundles import Bundles
        from services.front.app import create_app
        from services.front.entrance import Entrance

        try:
            self.app = create_app(Bundles(SETTINGS).served(), SETTINGS)
        except LensError as error:
            give_up(error)
        self.mount_asgi_app(_lived(self.app), path="/")
        return Entrance(super().to_asgi(is_main), self.app)


def _lived(app: FrontDoor) -> Starlette:
    """What BentoML starts and ends with itself: of a mounted app it runs the lifespan."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from services.front.orphan import end_with_parent

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(app.router.lifespan_context(app))
            except LensError as error:
                give_up(error)
            watch = asyncio.create_task(end_with_parent(os.getppid()), name="end with parent")
            stack.callback(watch.cancel)
            garbage.resume()
            yield

    return Starlette(routes=[Mount("/", app=app)], lifespan=lifespan)


class _Ready:
    async def __is_ready__(self) -> bool:
        return LesionLens.app.fleet.ready


_CONFIG: dict[str, Any] = {
    "workers": 1,  # one copy of the weights; calls run side by side in threads of the scheduler
    "traffic": {"timeout": 86_400},  # seen by health checks alone
    "http": {"host": SETTINGS.host, "port": SETTINGS.port},  # BentoML's default: every address
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},  # labels by raw path grow without bound; /metrics is ours
}
LesionLens = _Service(name="LesionLens", config=_CONFIG, inner=_Ready)
