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
LONG = 1.0  # milliseconds; what takes longer is done in a thread, so that others go on
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
    length = _header_length(headers.get(HEADER_LENGTH.lower()))
    return decode_request(body, length, regions, limit)


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


async def aside(milliseconds: float, call: Callable[[], T]) -> T:
    """Call at once, or in a thread where it will take long."""
    return call() if milliseconds < LONG else await asyncio.to_thread(call)


def decoding(size: int, *, binary: bool) -> float:
    """About the milliseconds that a body of so many bytes takes: raw tensors are not copied."""
    return size * (5e-7 if binary else 2e-5)


def encoding(response: InferResponse, accept_encoding: str | None = None) -> float:
    """About the milliseconds that an answer takes: bytes are copied, numbers written as text."""
    spent = 0.0
    for name, value in response.outputs.items():
        size, each = (value.nbytes, 1e-6) if name in response.binary else (value.size, 1e-3)
        spent += size * (each + (2e-5 if accepted(accept_encoding) else 0.0))
    return spent


def _header_length(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise CodecError("not a length", field=HEADER_LENGTH, found=text[:40])
    return int(text)
