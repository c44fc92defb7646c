"""The tasks of the queue. A task carries a job's id and nothing else."""

from __future__ import annotations

import logging

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_init

from models.errors import LensError
from models.model import Model
from services.common.blobs import Blobs
from services.common.broker import Broker
from services.common.bundles import Bundles
from services.common.events import RedisEvents
from services.common.ledger import Ledger
from services.common.remote import RemoteModel
from services.common.settings import Settings
from services.explain.celery_app import CANARY, EXPLAIN
from services.explain.runner import Runner

_log = logging.getLogger(__name__)


def register(app: Celery, settings: Settings, bundles: Bundles) -> None:
    """Define the tasks on the app. Connections are opened in the child, after the fork."""
    children: list[Runner] = []

    def open_child(**_: object) -> None:
        children[:] = [make_runner(settings, bundles)]

    worker_process_init.connect(open_child, weak=False)

    @app.task(name=EXPLAIN, ignore_result=True)
    def explain_job(job_id: str) -> None:
        if not children:
            open_child()
        try:
            children[0].run(job_id)
        except LensError as error:
            # The ledger is away: the job stays as it is there, and the reconciler takes it up.
            _log.warning("job %s: %s", job_id, error.line)

    @app.task(name=CANARY, ignore_result=True)
    def canary(token: str) -> None:
        Broker(settings).canary_sing(token)


def make_runner(settings: Settings, bundles: Bundles) -> Runner:
    def connect(bundle: str) -> Model:
        return RemoteModel(settings.inference, bundle=bundle)

    return Runner(
        bundles.of,
        connect,
        ledger=Ledger(settings.ledger),
        blobs=Blobs(settings.blobs),
        events=RedisEvents(settings.redis),
        attempts=settings.job_attempts,
        time_up=SoftTimeLimitExceeded,
    )
