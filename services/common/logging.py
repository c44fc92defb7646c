"""One line a record on stderr, under the logger "lesionlens"; never data of a lesion."""

from __future__ import annotations

import logging
import os
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s"


def configure(level: str | None = None) -> None:
    """Set up the logger 'lesionlens' once a process; LESIONLENS_LOG sets the level (INFO)."""
    logger = logging.getLogger("lesionlens")
    wanted = (level or os.environ.get("LESIONLENS_LOG") or "INFO").upper()
    logger.setLevel(wanted if wanted in logging.getLevelNamesMapping() else logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S%z"))
        logger.addHandler(handler)
    logger.propagate = False
    # HTTP clients and servers log a line a request; what matters is in the metrics.
    for noisy in ("httpx", "uvicorn.access", "bentoml.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
