"""Why a job failed, as it is kept in the ledger and shown to a person."""

from __future__ import annotations

from typing import Any

from models.errors import LensError
from wire.api import Problem


def problem(error: LensError) -> dict[str, Any]:
    """An error as RFC 9457 problem details, JSON. (services.common.problems needs FastAPI.)"""
    return Problem(
        type=f"urn:lesionlens:problem:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=error.status,
        detail=error.message,
        field=error.field,
        found=error.found,
        expected=error.expected,
    ).model_dump(mode="json", exclude_none=True)


def too_many_attempts(attempts: int) -> LensError:
    times = "once" if attempts == 1 else f"{attempts} times"
    return LensError(
        f"the worker was lost {times} while it computed this explanation",
        code="too_many_attempts",
    )


def time_limit() -> LensError:
    return LensError("the explanation took longer than a job may", code="time_limit")


def internal() -> LensError:
    return LensError("something went wrong inside; the worker's log has it", code="internal_error")


def other_bundle(who: str, found: str, expected: str) -> LensError:
    return LensError(
        f"{who} has another bundle than the one that the job was accepted for",
        code="bundle_mismatch",
        field="bundle",
        found=found,
        expected=expected,
    )
