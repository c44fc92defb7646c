"""A LensError as a gRPC status: the same one line as over HTTP, and when to ask again."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from models.errors import LensError, Unavailable

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
INSIDE = "something went wrong inside; the server's log has it"


def code_of(error: LensError) -> grpc.StatusCode:
    """A full queue is RESOURCE_EXHAUSTED, whatever its HTTP status; the unknown is INTERNAL."""
    if error.code == "queue_full":
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return _CODES.get(error.status, grpc.StatusCode.INTERNAL)


def trailing(error: LensError) -> tuple[tuple[str, str], ...]:
    """`retry-after` in seconds, and the same as gRPC's own retry policies read it."""
    seconds = getattr(error, "retry_after", None)
    if not isinstance(error, Unavailable) or seconds is None:
        return ()
    return (
        ("retry-after", str(seconds)),
        ("grpc-retry-pushback-ms", str(int(float(seconds) * 1000))),
    )


async def refuse(context: Any, error: LensError) -> NoReturn:
    """End the call with the error's status."""
    line = " ".join(error.line.split())
    await context.abort(code_of(error), line, trailing(error))
    raise AssertionError("abort returns never")
