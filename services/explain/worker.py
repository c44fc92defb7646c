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

from models.bundle.read import Bundle, read_bundle
from models.errors import BundleError, LensError
from services.common.configured import read_settings
from services.common.settings import Settings
from services.explain.celery_app import make_app
from services.explain.tasks import register


def open_bundle(settings: Settings) -> Bundle:
    """The bundle's probes and vocabulary, checked; no weights are loaded."""
    if settings.bundle is None:
        raise BundleError(
            "no bundle is given", code="bundle_missing", field="LESIONLENS_BUNDLE",
            expected="the folder of a bundle",
        )  # fmt: skip
    return read_bundle(settings.bundle)


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
        bundle = open_bundle(settings)
    except LensError as error:
        sys.exit(f"error: {error.line}")
    app = make_app(settings)
    register(app, settings, bundle)
    logging.getLogger(__name__).info(
        "worker ready for bundle %s, inference at %s", bundle.manifest.hash, settings.inference
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
