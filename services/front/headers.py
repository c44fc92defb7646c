"""Security headers that cost nothing. A route that sets one itself keeps its own."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Reports are self-contained pages: inline styles and data: images, no script, no other origin.
# /docs needs its own scripts from here, and nothing from elsewhere.
POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",  # answers are about patients
}
_RAW = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class SecurityHeaders:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                there = {name.lower() for name, _ in given}
                more = [header for header in _RAW if header[0] not in there]
                message = {**message, "headers": given + more}
            await send(message)

        await self.app(scope, receive, add)
