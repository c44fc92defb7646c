"""Every error leaves as RFC 9457 problem details: a code, the field, what was found, expected.

    LensError, validation errors, 404, 405 -> handlers of the FastAPI app
    anything unexpected                    -> Shield, logged once, a 500 that tells nothing inside

Under /v2 the same document carries one more member, `error`, which Open Inference Protocol clients
read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import CohortError, InputError, LensError, Unavailable
from wire.api import Problem

MEDIA_TYPE = "application/problem+json"
PREFIX = "urn:lesionlens:problem:"
OIP = "/v2"

log = logging.getLogger("lesionlens.http")


def problem_of(error: LensError) -> Problem:
    """The problem document of an error; several faults of a cohort are listed in `faults`."""
    more = {"faults": error.faults} if isinstance(error, CohortError) else {}
    return Problem(
        type=PREFIX + error.code,
        title=error.code.replace("_", " ").capitalize(),
        status=error.status,
        detail=error.message,
        field=error.field,
        found=error.found,
        expected=error.expected,
        **more,
    )


def problem_response(error: LensError, path: str = "") -> JSONResponse:
    """An HTTP response for an error; `path` decides whether `error` is added for OIP clients."""
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    return _response(problem_of(error), error.line, path, headers)


def _response(problem: Problem, line: str, path: str, headers: Mapping[str, str]) -> JSONResponse:
    body = problem.model_dump(exclude_none=True)
    if path == OIP or path.startswith(OIP + "/"):
        body["error"] = line
    return JSONResponse(
        body, status_code=problem.status, media_type=MEDIA_TYPE, headers=dict(headers)
    )


def invalid(error: ValidationError, field: str | None = None) -> InputError:
    """The first fault of a pydantic validation as an InputError; `field` goes before its place."""
    return _first_fault(error.errors(), field)


def _first_fault(faults: Any, field: str | None) -> InputError:
    first = faults[0]
    places = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    found = first.get("input")
    simple = isinstance(found, str | int | float | bool | None) and first["type"] != "missing"
    return InputError(
        first["msg"] if len(faults) == 1 else f"{first['msg']} (and {len(faults) - 1} more)",
        field=".".join([*([field] if field else []), *places]) or None,
        found=repr(found)[:80] if simple else None,
    )


async def _on_lens_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LensError)
    if error.status == 500:
        log.error("%s %s: %s", request.method, request.url.path, error.line)
    return problem_response(error, request.url.path)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem_response(_first_fault(error.errors(), None), request.url.path)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = {
        404: f"no such resource: {request.url.path}",
        405: f"{request.method} is not allowed on {request.url.path}",
    }.get(error.status_code, str(error.detail))
    problem = Problem(
        type=PREFIX + status.phrase.lower().replace(" ", "_").replace("-", "_"),
        title=status.phrase.capitalize(),
        status=error.status_code,
        detail=detail,
        expected=(error.headers or {}).get("Allow"),
    )
    return _response(problem, detail, request.url.path, error.headers or {})


class Shield:
    """Innermost ASGI layer: an unexpected exception is logged once and becomes a plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except LensError as error:  # raised by a middleware, so that no handler saw it
            if started:
                raise
            await problem_response(error, scope["path"])(scope, receive, send)
        except Exception:
            if started:
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            broken = LensError("something went wrong inside; the server's log has it")
            broken.code = "internal_error"
            await problem_response(broken, scope["path"])(scope, receive, send)


def install(app: FastAPI) -> None:
    """Register the handlers and the shield on an app."""
    app.add_exception_handler(LensError, _on_lens_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_middleware(Shield)


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, text in {
        413: "The body or a decompressed volume is too large.",
        415: "The media type is not accepted; pickle never is.",
        422: "The data are not what a field needs; `field`, `found` and `expected` say which.",
        503: "A part is down or the queue is full; `Retry-After` says when to ask again.",
    }.items()
}
"""For `responses=` of a route: the problems that any upload can meet."""
