"""Is anybody at work? python -m services.explain.canary [seconds]; exit code 0 or 1.

Sends a small task through the real queue and waits for its answer: a worker can be up, answer pings
and yet consume nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from models.errors import LensError, Unavailable
from services.common.broker import Broker
from services.common.configured import read_settings
from services.common.ledger import Ledger
from services.common.settings import Settings
from services.explain.celery_app import make_app, send_canary


def at_work(
    settings: Settings, seconds: float = 30.0, check: Callable[[], None] | None = None
) -> bool:
    """True when a worker took the canary out of the queue, or is busy with a job just now.

    check is called about once a second and may raise to stop the wait.
    """
    since, end = time.time(), time.monotonic() + seconds
    app = make_app(settings)
    broker = Broker(settings)
    ledger = Ledger(settings.ledger)
    token = broker.canary_token()
    sent = False
    try:
        while time.monotonic() < end:
            if check is not None:
                check()
            try:
                if not sent:
                    send_canary(app, token)
                    sent = True
                if broker.canary_heard(token, min(1.0, max(end - time.monotonic(), 0.0))):
                    return True
                if ledger.beating(since):
                    return True
            except Unavailable:
                time.sleep(0.2)
        return False
    finally:
        app.close()
        broker.close()
        ledger.close()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    try:
        awake = at_work(read_settings(), seconds)
    except LensError as error:
        sys.exit(f"error: {error.line}")
    if not awake:
        sys.exit("no worker takes anything out of the queue")


if __name__ == "__main__":
    main()
