"""How a process of the front door ends when its bundle must not be used.

At the start the supervisor itself sees it and exits. Later, when a worker is replaced after the
bundle changed on disk, the worker tells its supervisor to end: nothing gets better by trying again.
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


def give_up(error: LensError) -> NoReturn:
    """One line on stderr and an end of the process; in a worker, of its supervisor too."""
    print(f"lesionlens: {error.line}", file=sys.stderr, flush=True)
    if _IN_WORKER in os.environ:
        marker = _marker()
        if marker is not None:
            marker.touch()
        os.kill(os.getppid(), signal.SIGTERM)
    os._exit(EXIT_CODE)  # past a server that would wrap the exit in a traceback


def was_refused() -> bool:
    """Did a worker give up? Asked by the supervisor when it has ended."""
    marker = _marker()
    return marker is not None and marker.exists()


def forget() -> None:
    """Start afresh."""
    marker = _marker()
    if marker is not None:
        marker.unlink(missing_ok=True)


def _marker() -> Path | None:
    home = os.environ.get("BENTOML_HOME")
    return Path(home) / "refused" if home else None
