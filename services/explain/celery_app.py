"""The Celery app, and the two messages that it carries: a job's id, a canary's token.

No result backend: the ledger knows every job, so an unknown id is 404 and no result can vanish by
eviction or TTL.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import nullcontext

from celery import Celery, group
from celery.exceptions import OperationalError
from kombu import Queue

from services.common.broker import QUEUE, QUEUES, down, transport_options
from services.common.ledger import Job, Lane
from services.common.settings import Settings

EXPLAIN = "lesionlens.explain"
CANARY = "lesionlens.canary"

# A queue message lives no longer than this; the reconciler sends a fresh one.
_SOFT_BEFORE_HARD = 15


def make_app(settings: Settings) -> Celery:
    """The app, configured alike for the API, which sends, and the worker, which consumes."""
    app = Celery(
        "lesionlens",
        broker=settings.redis,
        set_as_current=False,
        task_cls="services.explain.acks:StubbornTask",
    )
    app.conf.update(
        # JSON only: nothing that is unpickled ever comes off the queue.
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        # Acknowledge after the work, and give back what a killed child held.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,
        # One task a child at a time: nothing waits behind a long one while others are idle.
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_default_queue=QUEUE,
        task_queues=[Queue(name) for name in QUEUES.values()],
        broker_transport_options=transport_options(settings),
        # Redis may go and come back; the worker waits for it for ever.
        broker_connection_timeout=2,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=4,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # The soft limit lets the ledger have the reason; the hard one kills what does not listen.
        task_soft_time_limit=settings.job_seconds,
        task_time_limit=settings.job_seconds + _SOFT_BEFORE_HARD,
        # What is not used is off: remote control, events, logging and root-logger hijack.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        enable_utc=True,
    )
    return app


def send_job(app: Celery, job_id: str, lane: Lane = "interactive") -> None:
    """Put a job's id in its lane's queue. Raises Unavailable within seconds where Redis is down."""
    _send(app, EXPLAIN, job_id, _task_id(job_id), QUEUES[lane])


def send_jobs(app: Celery, jobs: Sequence[Job]) -> None:
    """The same for many, as one Celery group: a thousand messages a round trip.

    Raises Unavailable where Redis is down; then some may have been sent.
    """
    tasks = [
        app.signature(
            EXPLAIN,
            args=(job.id,),
            options={"task_id": _task_id(job.id), "queue": QUEUES[job.lane]},
        )
        for job in jobs
    ]
    try:
        with app.producer_or_acquire() as producer:
            # kombu learnt to send in batches in 5.7; before, a group is one round trip a message.
            together = producer.batch() if hasattr(producer, "batch") else nullcontext()
            with together:
                group(tasks, app=app).apply_async(producer=producer, add_to_parent=False)
    except (OperationalError, OSError):
        raise down() from None


def _task_id(job_id: str) -> str:
    """Told apart by a few random digits: the same job may be sent again."""
    return f"{job_id}.{secrets.token_hex(3)}"


def send_canary(app: Celery, token: str) -> None:
    """Put a canary in the queue; a worker that really consumes answers it."""
    _send(app, CANARY, token, f"canary-{token}", QUEUE)


def _send(app: Celery, name: str, argument: str, task_id: str, queue: str) -> None:
    try:
        app.send_task(
            name,
            args=[argument],
            task_id=task_id,
            queue=queue,
            retry=True,
            retry_policy={"max_retries": 1, "interval_start": 0.0, "interval_max": 0.1},
        )
    except (OperationalError, OSError):
        raise down() from None
