"""Compressed bodies: gzip, deflate and zstd, taken apart piece by piece, so that a bomb is cut off.

No piece is much larger than 16 MiB whatever came in, and the caller counts: memory stays bounded by
what it accepts, not by what a body would become.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import zstandard

from models.errors import InputError, TooLarge, UnsupportedMedia

ENCODINGS = ("zstd", "gzip", "deflate")  # the first is preferred
_PIECE = 1 << 20
_ZSTD_SLICE = 512  # a block of 4 bytes can become 128 KiB: 16 MiB a slice at most
_ZSTD_WINDOW = 8 << 20  # RFC 9659: what a decoder of HTTP bodies has to have
_LEVEL = 1  # tensors of floats hardly shrink; higher levels only cost time


class BadEncoding(InputError):
    """A body that is not what its Content-Encoding says."""

    code = "bad_encoding"
    status = 400


class Expander(Protocol):
    """One compressed body. `finish` is called after the last byte; both raise BadEncoding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes become, in pieces."""

    def finish(self) -> None:
        """Was the body whole?"""


class _Zlib:
    """gzip (of one or several members), or deflate with or without its zlib frame."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._inner: Any = zlib.decompressobj(31) if encoding == "gzip" else None
        self._start = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inner is None:
            self._start += data
            if len(self._start) < 2:
                return
            data, self._start = self._start, b""
            self._inner = zlib.decompressobj(15 if _has_frame(data) else -15)
        while data:
            if self._inner.eof:
                if self._encoding != "gzip":
                    raise _bad(self._encoding)
                self._inner = zlib.decompressobj(31)
            piece = self._taken(data)
            data = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
            if piece:
                yield piece
        while not self._inner.eof and (piece := self._taken(b"")):  # what is left inside
            yield piece

    def _taken(self, data: bytes) -> bytes:
        try:
            return self._inner.decompress(data, _PIECE)
        except zlib.error:
            raise _bad(self._encoding) from None

    def finish(self) -> None:
        if self._inner is None or not self._inner.eof:
            raise _bad(self._encoding)


class _Zstd:
    """One or several frames."""

    def __init__(self) -> None:
        self._maker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._inner = self._maker.decompressobj()

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_SLICE):
            part = data[at : at + _ZSTD_SLICE]
            while part:
                if self._inner.eof:
                    self._inner = self._maker.decompressobj()
                try:
                    piece = self._inner.decompress(part)
                except zstandard.ZstdError:
                    raise _bad("zstd") from None
                part = self._inner.unused_data if self._inner.eof else b""
                if piece:
                    yield piece

    def finish(self) -> None:
        if not self._inner.eof:
            raise _bad("zstd")


_EXPANDERS: dict[str, Callable[[], Expander]] = {
    "zstd": _Zstd,
    "gzip": lambda: _Zlib("gzip"),
    "deflate": lambda: _Zlib("deflate"),
}


def expander(content_encoding: str | None) -> Expander | None:
    """For a Content-Encoding header; None where the body is as it is. Raises UnsupportedMedia."""
    encoding = (content_encoding or "identity").strip().lower().removeprefix("x-")
    if encoding in ("identity", ""):
        return None
    if encoding not in _EXPANDERS:
        raise UnsupportedMedia(
            "this content encoding is not accepted",
            field="Content-Encoding",
            found=encoding[:40],
            expected=f"one of {', '.join(ENCODINGS)}, or none",
        )
    return _EXPANDERS[encoding]()


def expanded(body: bytes, content_encoding: str | None, limit: int) -> bytes:
    """A whole body as it was before. Raises UnsupportedMedia, BadEncoding, TooLarge."""
    inside = expander(content_encoding)
    if inside is None:
        return body
    pieces, size = [], 0
    for piece in inside.feed(body):
        size += len(piece)
        if size > limit:
            raise TooLarge(
                "the body is too large once decompressed",
                field="body",
                expected=f"at most {limit / 2**20:.1f} MiB",
            )
        pieces.append(piece)
    inside.finish()
    return b"".join(pieces)


def compressed(body: bytes, encoding: str) -> bytes:
    """encoding: one of ENCODINGS."""
    if encoding == "zstd":
        return zstandard.ZstdCompressor(level=_LEVEL).compress(body)
    if encoding == "deflate":  # RFC 9110: the zlib format
        return zlib.compress(body, _LEVEL)
    packer = zlib.compressobj(_LEVEL, wbits=31)
    return packer.compress(body) + packer.flush()


def accepted(accept_encoding: str | None) -> str | None:
    """The encoding to answer in: of those named with q > 0 the heaviest, or None."""
    best, weight = None, 0.0
    named = dict(_weighed(part) for part in (accept_encoding or "").split(","))
    for encoding in ENCODINGS:
        if named.get(encoding, 0.0) > weight:
            best, weight = encoding, named[encoding]
    return best


def _weighed(part: str) -> tuple[str, float]:
    name, _, parameters = part.partition(";")
    key, _, value = parameters.partition("=")
    try:
        weight = float(value) if key.strip().lower() == "q" else 1.0
    except ValueError:
        weight = 0.0
    return name.strip().lower(), weight


def _has_frame(start: bytes) -> bool:
    """RFC 1950: the method is 8, and the first two bytes are a multiple of 31."""
    return start[0] & 0x0F == 8 and (start[0] << 8 | start[1]) % 31 == 0


def _bad(encoding: str) -> BadEncoding:
    return BadEncoding(
        "the body is not what its encoding says, or is cut short",
        field="Content-Encoding",
        found=encoding,
        expected="a whole body in this encoding",
    )
