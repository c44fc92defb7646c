"""lesionlens up, lesionlens down: the services of one machine."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

import click

from models.bundle.read import read_bundle
from models.errors import LensError
from services.cli.stack import Stack
from services.common.configured import read_settings
from services.common.settings import Settings
from services.common.store import PRODUCTION, in_production, resolve

_RESTARTS = 5  # in one minute; more than that and it gives up


@click.command()
@click.option(
    "--bundle",
    "reference",
    metavar="PATH|TAG",
    help="Folder of a bundle, lesionlens:latest, lesionlens:<hash>, or lesionlens:production, "
    "which the services follow. Default: production, or the latest where nothing was promoted.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the front door.")
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), help="Port of gRPC; default: the next, 0: none."
)
@click.option("--redis-port", type=click.IntRange(1, 65535), help="Port of the embedded Redis.")
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), help="State and logs.")
@click.option("--detach/--foreground", default=True, help="Return when ready, or stay and watch.")
def up(
    reference: str | None,
    port: int | None,
    grpc_port: int | None,
    redis_port: int | None,
    home: Path | None,
    detach: bool,
) -> None:
    """Start Redis, the front door and a worker on this machine, and wait until they are ready.

    \b
    lesionlens up --bundle build/demo/bundle
    lesionlens bundle promote lesionlens:latest && lesionlens up
    """
    settings = read_settings(port=port, grpc_port=grpc_port, redis_port=redis_port, home=home)
    stack = Stack(settings, _bundle(reference, settings))
    before = stack.alive()
    if set(stack.names) <= set(before):
        click.echo(f"already running: {stack.running_at()}   ('lesionlens down' stops it)")
        return
    started = time.monotonic()
    try:
        stack.start()
        stack.wait_ready()
    except BaseException:
        if not before:
            stack.stop()
        raise
    seconds = time.monotonic() - started
    click.echo(f"ready in {seconds:.1f} s: {stack.url}   (API: {stack.url}/docs)")
    if stack.grpc is not None:
        click.echo(f"gRPC: {stack.grpc}   (Open Inference Protocol v2)")
    click.echo(f"logs: {stack.settings.home / 'logs'}")
    if not detach:
        _watch(stack)


@click.command()
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), help="As given to up.")
def down(home: Path | None) -> None:
    """Stop everything that 'up' started; fine where nothing runs."""
    stack = Stack(read_settings(home=home))
    names = list(stack.alive())
    stack.stop()
    click.echo(f"stopped: {', '.join(names)}" if names else "nothing was running")


def _bundle(reference: str | None, settings: Settings) -> Path | str:
    """What to serve, every checksum verified before anything is started.

    Only what is in production stays a name, which the services follow; anything else is a folder.
    """
    wanted = reference or settings.bundle
    folder = resolve(wanted, settings)
    hash_ = read_bundle(folder).hash
    if wanted == PRODUCTION or (wanted is None and in_production(settings) is not None):
        click.echo(f"serving {PRODUCTION}, now {hash_}; promotions are followed")
        return PRODUCTION
    if wanted is None:
        click.echo(
            f"nothing is in production: serving the latest, {hash_}, for good. To have promotions "
            f"followed: 'lesionlens bundle promote {hash_}', then 'lesionlens down' and 'up'"
        )
    return folder


def _watch(stack: Stack) -> None:
    """Until Ctrl-C or SIGTERM; a process that dies is started again, a few times."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    restarts: list[float] = []
    try:
        while True:
            time.sleep(0.5)
            for name in stack.ended():
                now = time.monotonic()
                restarts = [t for t in restarts if now - t < 60] + [now]
                if len(restarts) > _RESTARTS:
                    raise LensError(
                        f"{name} keeps ending",
                        code="process_ended",
                        expected=f"see {stack.log(name)}",
                    )
                click.echo(f"{name} ended; starting it again", err=True)
                time.sleep(1)
                stack.start_one(name)
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
    finally:
        stack.stop()
