"""The explanation worker: python -m services.explain.worker

Pool: prefork, always. A child that dies of memory or of a bug leaves the parent, which gives its
task back; and only prefork enforces time limits (solo and threads have none). Nothing here holds
model weights, a GPU or a thread pool before the fork, so forking is safe.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

from models.errors import LensError
from services.common.bundles import Bundles
from services.common.configured import read_settings
from services.explain.celery_app import make_app
from services.explain.tasks import register


def main() -> None:
    """Runs until SIGTERM: the task in work is finished first, within the supervisor's grace."""
    # One lesion is small: threads of the linear-algebra library would only fight each other.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("services").setLevel(logging.INFO)
    try:
        settings = read_settings()
        bundles = Bundles(settings)
        bundle = bundles.served()  # probes and vocabulary, checked; no weights are loaded
    except LensError as error:
        sys.exit(f"error: {error.line}")
    app = make_app(settings)
    register(app, settings, bundles)
    logging.getLogger(__name__).info(
        "worker ready for bundle %s, inference at %s", bundle.hash, settings.inference
    )
    worker = app.Worker(
        pool="prefork",
        concurrency=settings.worker_processes,
        loglevel="WARNING",
        hostname=f"explain@{socket.gethostname()}",
        quiet=True,
        # Workers here need not know of each other: the ledger does.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    sys.exit(worker.exitcode)


if __name__ == "__main__":
    main()
