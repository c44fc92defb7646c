"""How the front door ends when its bundle must not be used, at the start or under way.

The worker reads the bundle, says in one line what is wrong, and tells its supervisor to end:
nothing gets better by trying again. `services.front.serve` then ends with an exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from models.errors import LensError

EXIT_CODE = 2
_IN_WORKER = "BENTOML_RUNNER_MAP"  # BentoML sets it for its workers alone
_BY_SERVE = "LESIONLENS_SUPERVISED"


def give_up(error: LensError) -> NoReturn:
    """One line on stderr and an end of the process; in a worker, of its supervisor too."""
    print(f"lesionlens: {error.line}", file=sys.stderr, flush=True)
    if _IN_WORKER in os.environ:
        marker = _marker()
        if marker is not None:
            marker.touch()
        os.kill(os.getppid(), signal.SIGTERM)
    os._exit(EXIT_CODE)  # past a server that would wrap the exit in a traceback


def supervise() -> None:
    """Said by `services.front.serve`: the end of a worker is looked after. Starts afresh."""
    os.environ[_BY_SERVE] = "1"
    marker = _marker()
    if marker is not None:
        marker.unlink(missing_ok=True)


def is_supervised() -> bool:
    """Is this a worker, or a supervisor that `services.front.serve` started?"""
    return _IN_WORKER in os.environ or _BY_SERVE in os.environ


def was_refused() -> bool:
    """Did a worker give up? Asked by the supervisor when it has ended."""
    marker = _marker()
    return marker is not None and marker.exists()


def _marker() -> Path | None:
    home = os.environ.get("BENTOML_HOME")
    return Path(home) / "refused" if home else None
