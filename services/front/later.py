"""What the start leaves out: imports that no prediction over tensors needs, made once it is ready.

A service that scales out is waited for; the first upload or job after that is not the one to wait
for packages either. So they are imported in a thread right after the start.
"""

from __future__ import annotations

import asyncio
import importlib
import logging

PACKAGES = (
    "scipy.ndimage",  # cutting a lesion out of an upload
    "models.cohort.nifti",  # reading it
    "services.explain.celery_app",  # handing a job to a worker
)
log = logging.getLogger("lesionlens.later")


async def import_the_rest() -> None:
    """Until all are imported. A package that cannot be says so again where it is needed."""
    for name in PACKAGES:
        try:
            await asyncio.to_thread(importlib.import_module, name)
        except ImportError:
            log.exception("%s cannot be imported", name)
