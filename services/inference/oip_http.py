"""From an HTTP body and its headers to an InferRequest, and back: encodings and lengths.

    headers, body --decode--> InferRequest --Core.answer--> InferResponse --encode--> body, headers

No web framework in here, so that any route may call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

from services.common.compression import accepted, compressed, expanded
from services.inference.oip_codec import (
    HEADER_LENGTH,
    CodecError,
    InferRequest,
    InferResponse,
    decode_request,
    encode_response,
)
from services.inference.shared_memory import Regions

T = TypeVar("T")
BIG = 256 << 10  # bytes; beyond, a body is read or written in a thread, so that others go on
SMALL = 1 << 10  # bytes; a shorter answer is not compressed


def decode(
    body: bytes,
    headers: Mapping[str, str],
    *,
    limit: int,
    regions: Regions | None = None,
) -> InferRequest:
    """headers: by any case (starlette's), or in lower case. limit: bytes once decompressed.

    Raises CodecError, and what `compression.expanded` and shared memory raise.
    """
    body = expanded(body, headers.get("content-encoding"), limit)
    return decode_request(body, _header_length(headers.get(HEADER_LENGTH.lower())), regions)


def encode(
    response: InferResponse,
    headers: Mapping[str, str],
    regions: Regions | None = None,
) -> tuple[bytes, dict[str, str]]:
    """headers: those of the request. -> the body and its own headers. Raises as encode_response."""
    body, length = encode_response(response, regions)
    found = {"Content-Type": "application/json", "Vary": "Accept-Encoding"}
    if length is not None:
        found |= {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(length)}
    encoding = accepted(headers.get("accept-encoding"))
    if encoding is not None and len(body) >= SMALL:
        body = compressed(body, encoding)
        found["Content-Encoding"] = encoding
    return body, found


async def aside(size: int, call: Callable[[], T]) -> T:
    """Call at once, or in a thread where this many bytes are to be worked through."""
    return call() if size < BIG else await asyncio.to_thread(call)


def size_of(response: InferResponse) -> int:
    """Bytes that `encode` works through; a number in JSON costs as much as a hundred bytes."""
    return sum(
        value.nbytes if name in response.binary else value.size * 100
        for name, value in response.outputs.items()
    )


def _header_length(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise CodecError("not a length", field=HEADER_LENGTH, found=text[:40])
    return int(text)
