"""HTTP/1.1 over asyncio streams, just enough for a load client: one request, read the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

# What a broken connection raises, between the first byte and the last.
LOST = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError)


def request_bytes(said: Mapping[str, Any]) -> bytes:
    """The request as it goes over the wire. said: port, path, headers, body."""
    headers = {
        "Host": f"127.0.0.1:{said['port']}",
        "Content-Length": str(len(said["body"])),
    } | dict(said["headers"])
    lines = [f"POST {said['path']} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + said["body"]


class Connection:
    """One keep-alive connection; opened when needed, opened again where the server closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, request: bytes) -> int:
        """Status of the answer; its body is read and dropped. Raises one of LOST.

        A kept connection may have been closed by the server meanwhile: then once more, anew.
        """
        kept = self._writer is not None
        try:
            return await self._post(request)
        except LOST:
            self.close()
            if not kept:
                raise
            return await self._post(request)

    async def _post(self, request: bytes) -> int:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, length, close = parse_head(head)
        await self._reader.readexactly(length)
        if close:
            self.close()
        return status

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def parse_head(head: bytes) -> tuple[int, int, bool]:
    """(status, bytes of the body, whether the server closes). Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    status = int(first.split(" ", 2)[1])
    fields = dict(line.lower().split(":", 1) for line in lines if ":" in line)
    if "content-length" not in fields and status not in (204, 304):
        raise ValueError("an answer without a length")
    close = fields.get("connection", "").strip() == "close"
    return status, int(fields.get("content-length", "0")), close
