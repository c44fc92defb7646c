"""Start the front door: python -m services.front.serve

    settings -> port free? -> BentoML's supervisor -> its worker: bundle, parity, weights, warm

Whatever would make a worker die at start ends in one line and exit code 2, never in a supervisor
that starts it again and again: settings and port are looked at here, the bundle by the worker,
which ends its supervisor where it must not be used (`refusal`).
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from models.errors import InputError, LensError
from services.common.configured import read_settings
from services.common.settings import Settings
from services.front.refusal import EXIT_CODE, give_up, supervise, was_refused


def main() -> None:
    """Check, then supervise until SIGTERM or SIGINT."""
    try:
        settings = read_settings()
        host = _address(settings.host, settings.port, "LESIONLENS_PORT")
        if settings.grpc is not None:
            _address(settings.host, settings.grpc, "LESIONLENS_GRPC_PORT")
        home = _home(settings)
    except LensError as error:
        give_up(error)
    # The store's place must outlive BentoML's home, which becomes a folder of this service.
    settings = settings.model_copy(update={"store": settings.models.parents[1]})
    os.environ.update(settings.environment())
    os.environ["BENTOML_HOME"] = home
    supervise()
    # Not before: BentoML reads the environment when it is imported.
    from services.front import garbage, service

    garbage.resume()
    supervisor: Any = service.LesionLens
    supervisor.serve_http(host=host, port=settings.port)
    if was_refused():
        sys.exit(EXIT_CODE)


def _address(host: str, port: int, setting: str) -> str:
    """The numeric address to bind, once it is known to be free. Raises InputError."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except (OSError, OverflowError) as error:
        raise InputError(
            "cannot listen here",
            code="address_in_use",
            field=f"LESIONLENS_HOST, {setting}",
            found=f"{host}:{port} ({getattr(error, 'strerror', None) or error})",
            expected="a free port on an address of this machine",
        ) from None
    return str(where[0])


def _home(settings: Settings) -> str:
    """A folder for BentoML's own files, made; a worker's metrics are written there.

    The default in the user's home is shared by all services of the user, and the metrics in it are
    wiped whenever one of them starts. The model store is read by its own path, settings.store.
    """
    folder = settings.home.resolve() / f"front-{settings.port}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "cannot write here",
            code="not_writable",
            field="LESIONLENS_HOME",
            found=f"{settings.home} ({error.strerror})",
            expected="a folder that this user may write in",
        ) from None
    return str(folder)


if __name__ == "__main__":
    main()
