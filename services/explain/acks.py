"""Acknowledgements that are not lost with the connection.

Celery logs an ack that failed and forgets it, while kombu goes on counting the message against the
prefetch limit. With a limit of one, a worker whose job ended while Redis was away would be up and
take nothing from the queue ever again (seen here; celery#10205 is of the same kind). So the ack is
repeated until Redis has it, or until the consumer has opened a new channel, which starts from zero.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.worker.request import Request
from kombu.asynchronous import get_event_loop

AGAIN = 1.0

_log = logging.getLogger(__name__)


class StubbornRequest(Request):
    """A request whose ack or reject is repeated while the broker is away."""

    acknowledged: bool

    def acknowledge(self) -> None:
        if not self.acknowledged:
            self.acknowledged = True
            _settle(self._message, self._message.ack, self._connection_errors)

    def reject(self, requeue: bool = False) -> None:
        if not self.acknowledged:
            self.acknowledged = True
            _settle(
                self._message,
                lambda: self._message.reject(requeue=requeue),
                self._connection_errors,
            )


class StubbornTask(Task):
    """The base of all tasks here."""

    Request = "services.explain.acks:StubbornRequest"


def _settle(
    message: Any,
    settle: Callable[[], None],
    errors: tuple[type[Exception], ...],
    first: bool = True,
) -> None:
    try:
        settle()
    except Exception as error:
        if not isinstance(error, (*errors, OSError)):
            raise
        if message.channel is None or message.channel.closed:
            return  # the new channel has no debt, and the ledger drops a message that comes twice
        if first:
            _log.warning("the queue is away (%s); the ack is repeated", type(error).__name__)
        get_event_loop().call_later(AGAIN, _settle, message, settle, errors, False)
