"""Compressed bodies come back whole, bounded in memory, and are answered in what was asked for."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import TooLarge, UnsupportedMedia
from services.common.compression import (
    ENCODINGS,
    BadEncoding,
    accepted,
    compressed,
    expanded,
    expander,
)

LIMIT = 1 << 20


@given(st.binary(max_size=5000), st.sampled_from(ENCODINGS), st.integers(1, 700))
@settings(max_examples=150, deadline=None)
def test_in_pieces_as_in_one(body: bytes, encoding: str, step: int) -> None:
    packed = compressed(body, encoding)
    assert expanded(packed, encoding, LIMIT) == body
    inside = expander(encoding)
    assert inside is not None
    found = b"".join(
        piece for at in range(0, len(packed), step) for piece in inside.feed(packed[at : at + step])
    )
    inside.finish()
    assert found == body


@given(st.binary(max_size=300), st.sampled_from(ENCODINGS))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused_in_words(body: bytes, encoding: str) -> None:
    with contextlib.suppress(BadEncoding, TooLarge):
        expanded(body, encoding, LIMIT)
        assert encoding == "deflate"  # without its frame it has no checksum: noise can be a body


def test_what_other_programs_write() -> None:
    body = np.random.default_rng(0).normal(size=90_000).astype(np.float32).tobytes()
    raw = zlib.compressobj(6, wbits=-15)
    for encoding, packed in {
        "gzip": gzip.compress(body),
        "x-gzip": gzip.compress(body[:7]) + gzip.compress(body[7:]),
        "deflate": zlib.compress(body),
        "Deflate": raw.compress(body) + raw.flush(),
        "zstd": zstandard.ZstdCompressor(level=19).compress(body[:9])
        + zstandard.ZstdCompressor(write_checksum=True).compress(body[9:]),
    }.items():
        assert expanded(packed, encoding, len(body)) == body
        with pytest.raises(TooLarge):
            expanded(packed, encoding, len(body) - 1)
    assert expanded(body, None, 0) is body
    assert expanded(body, "identity", 0) is body
    assert gzip.decompress(compressed(body, "gzip")) == body
    assert zlib.decompress(compressed(body, "deflate")) == body
    assert zstandard.ZstdDecompressor().decompress(compressed(body, "zstd")) == body


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_takes_no_memory(encoding: str) -> None:
    packer = zstandard.ZstdCompressor() if encoding == "zstd" else None
    zeros = bytes(1 << 28)
    bomb = packer.compress(zeros) if packer else compressed(zeros, encoding)
    del zeros
    tracemalloc.start()
    with pytest.raises(TooLarge):
        expanded(bomb, encoding, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 << 20


def test_a_window_beyond_what_http_allows_is_refused() -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(BadEncoding):
        expanded(packer.compress(bytes(100)) + packer.flush(), "zstd", LIMIT)


def test_other_encodings() -> None:
    for encoding in ("br", "gzip, zstd", "compress"):
        with pytest.raises(UnsupportedMedia):
            expander(encoding)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("*", None),
        ("gzip", "gzip"),
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=0.9, zstd;q=0.5", "gzip"),
        ("GZIP ; q=1.0", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=much", None),
        (";;,=;q,", None),
    ],
)
def test_accept_encoding(header: str | None, found: str | None) -> None:
    assert accepted(header) == found
