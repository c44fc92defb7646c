"""POST /v2/models/{model}[/versions/{version}]/infer: the hot route, as an ASGI app of its own.

    place in the queue -> model known? -> body -> tensors -> Core -> bytes

It passes no router and no framework: a framework's part was most of what serving cost
(docs/architecture.md). FastAPI's route of the same path does the same by `infer_http`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace

from starlette.types import Receive, Scope, Send

from services.inference.core import VERSION, Core
from services.inference.oip_codec import HEADER_LENGTH
from services.inference.oip_http import aside, decode, decoding, encode, encoding
from services.inference.presence import ClientGone, unless_gone

_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_ROUTES = {
    False: SimpleNamespace(path="/v2/models/{model}/infer"),
    True: SimpleNamespace(path="/v2/models/{model}/versions/{version}/infer"),
}


class InferRoute:
    """The route as ASGI. Raises LensError for the layers above; `owns` says what it answers."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @staticmethod
    def owns(scope: Scope) -> bool:
        return (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and _PATH.fullmatch(scope["path"]) is not None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _PATH.fullmatch(scope["path"])
        assert found is not None
        model, version = found.groups()
        scope["route"] = _ROUTES[version is not None]  # what metrics call it
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        answer, about = await infer_http(
            self._core, model, version or VERSION, headers, lambda: _body(receive), receive
        )
        raw = [(k.lower().encode(), v.encode()) for k, v in about.items()]
        raw.append((b"content-length", str(len(answer)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": answer})


async def infer_http(
    core: Core,
    model: str,
    version: str,
    headers: Mapping[str, str],
    body: Callable[[], Awaitable[bytes]],
    receive: Receive,
) -> tuple[bytes, dict[str, str]]:
    """One inference from its head to the bytes of its answer and their headers.

    headers: the request's, in lower case. body: reads it whole; receive: tells, after that, when
    the client leaves. Raises LensError.
    """
    limit, regions = core.fleet.settings.max_body_mb << 20, core.regions
    with core.fleet.admit():
        await core.host(model, version)  # an unknown model is said before its body is read
        data = await body()
        request = await aside(
            decoding(len(data), binary=HEADER_LENGTH.lower() in headers),
            lambda: decode(data, headers, limit=limit, regions=regions),
        )
        response = await unless_gone(receive, core.answer(model, version, request))
        return await aside(
            encoding(response, headers.get("accept-encoding")),
            lambda: encode(response, headers, regions),
        )


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client left in mid-body")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
