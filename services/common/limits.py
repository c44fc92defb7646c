"""What is refused before any byte of a body is understood: too long, pickled, wrongly compressed.

No server below us has a size limit. The cap is checked against Content-Length at once, and against
the bytes that really arrive while they stream, so a chunked or lying body is cut off as well. A
compressed body is expanded here, piece by piece under the same cap: no route sees that it was one.
"""

from __future__ import annotations

import asyncio
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import InputError, LensError, TooLarge, UnsupportedMedia
from services.common.compression import Expander, expander
from services.common.problems import problem_response

# application/vnd.bentoml+pickle, application/x-pickle, application/python-pickle, joblib, dill ...
_PICKLE_TYPE = re.compile(r"pickle|joblib|\bdill\b|x-python-serialize|java-serialized", re.I)
# Protocols 2 to 5 start with PROTO and end with STOP; nothing that we accept starts so.
_PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
LINGER_SECONDS = 2.0
STALL_SECONDS = 30.0
_LONG = 16 << 10  # a longer compressed chunk is expanded in a thread


class StalledError(InputError):
    """A client that started a body and went silent holds a place in the queue: let it go."""

    code = "upload_stalled"
    status = 408


def is_pickle_type(content_type: str) -> bool:
    """True for every media type that carries code in its data."""
    return bool(_PICKLE_TYPE.search(content_type))


def refuse_pickle(content_type: str, start: bytes = b"", *, field: str = "body") -> None:
    """Raises UnsupportedMedia (415) when the type says pickle or the first bytes are one."""
    if is_pickle_type(content_type) or _PICKLE_START.match(start):
        raise UnsupportedMedia(
            "pickled data are never accepted",
            field=field,
            found=content_type.split(";")[0][:80] if is_pickle_type(content_type) else "a pickle",
            expected="multipart/form-data, application/x-npy or application/json",
        )


class BodyLimits:
    """ASGI middleware: 413 beyond `max_bytes`, 415 for pickle, 408 for a stall; expands bodies."""

    def __init__(self, app: ASGIApp, max_bytes: int, stall_seconds: float = STALL_SECONDS) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            inside = expander(headers.get("content-encoding"))
            self._check(headers)
        except InputError as error:
            await _refuse(error, scope, receive, send)
            return
        if inside is not None:
            scope["headers"] = _without_encoding(scope["headers"])
        arrived = seen = 0
        over: InputError | None = None
        answered = whole = False

        async def count() -> Message:
            nonlocal arrived, seen, over, whole
            try:
                async with asyncio.timeout(None if whole else self.stall_seconds):
                    message = await receive()
            except TimeoutError:
                over = StalledError("the body stopped arriving", field="body")
                raise over from None
            if message["type"] == "http.request":
                whole = not message.get("more_body", False)
                body = message.get("body", b"")
                arrived += len(body)
                try:
                    if inside is not None:
                        body = await self._expanded(inside, body, whole, self.max_bytes - seen)
                        message = {**message, "body": body}
                    seen += len(body)
                    if max(seen, arrived) > self.max_bytes:
                        raise self._too_large("a longer body")
                except InputError as error:
                    over = error
                    raise
            return message

        async def watch(message: Message) -> None:
            nonlocal answered
            if over is not None and not answered:
                return  # whatever a layer below made of it, the answer is ours
            answered = True
            await send(message)

        try:
            await self.app(scope, count, watch)
        except InputError as error:
            if error is not over or answered:
                raise
        if over is not None and not answered:
            await _refuse(over, scope, receive, send)

    def _check(self, headers: Headers) -> None:
        """Raises UnsupportedMedia, TooLarge."""
        refuse_pickle(headers.get("content-type", ""))
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_bytes:
            raise self._too_large(_mb(int(length)))

    async def _expanded(self, inside: Expander, data: bytes, whole: bool, room: int) -> bytes:
        """What a compressed chunk becomes. Raises TooLarge, BadEncoding."""

        def expand() -> bytes:
            pieces, size = [], 0
            for piece in inside.feed(data):
                size += len(piece)
                if size > room:
                    raise self._too_large("a longer body once decompressed")
                pieces.append(piece)
            if whole:
                inside.finish()
            return b"".join(pieces)

        return expand() if len(data) < _LONG else await asyncio.to_thread(expand)

    def _too_large(self, found: str) -> TooLarge:
        return TooLarge(
            "the body is too large",
            field="body",
            found=found,
            expected=f"at most {_mb(self.max_bytes)}",
        )


def _without_encoding(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The body's length and encoding are no longer what they say."""
    gone = (b"content-encoding", b"content-length")
    return [(name, value) for name, value in headers if name.lower() not in gone]


async def _refuse(error: LensError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, then read on for a moment so that a client in mid-upload gets the answer.

    Closing a socket with unread bytes resets it, and the reset can overtake the response.
    """
    response = problem_response(error, scope["path"])
    response.headers["Connection"] = "close"
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    break
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _mb(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
