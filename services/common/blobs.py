"""The blob store: arrays and documents by key, zstd-compressed, in a folder or any fsspec URL."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

import fsspec
import zstandard

from models.errors import NotFound, Unavailable

_QUICK = -1
_KEY = re.compile(r"[a-z]+(/[A-Za-z0-9][A-Za-z0-9._-]*)+")


class Blobs:
    """put, get, exists, delete. A key is '<kind>/<content id>[/<name>]'; a reader never sees half.

    Limits: last writer wins, which is harmless as keys name content. `memory://` lives in the
    process. Raises Unavailable where the store cannot be written or reached.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._local = "file" in _protocols(self._fs)

    def put(self, key: str, data: bytes, *, quick: bool = False) -> None:
        """Store `data`. In a folder: written beside, synced, then renamed.

        quick: for data that are read once and soon: a fifth larger where they are images, and
        packed and unpacked in a fifth of the time.
        """
        # Level 1: images, which are most of it, get no smaller by more.
        level = _QUICK if quick else 1
        packed = zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)
        path = self._path(key)
        try:
            if not self._local:
                self._fs.pipe_file(path, packed)
                return
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            try:
                with beside.open("wb") as f:
                    f.write(packed)
                    f.flush()
                    os.fsync(f.fileno())
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)
        except OSError:
            raise Unavailable("the blob store cannot be written", code="blobs_down") from None

    def get(self, key: str) -> bytes:
        """The bytes as they were put. NotFound for an unknown key or a damaged blob."""
        try:
            packed = self._fs.cat_file(self._path(key))
        except FileNotFoundError:
            raise NotFound(f"no blob {key!r}") from None
        except OSError:
            raise Unavailable("the blob store cannot be read", code="blobs_down") from None
        try:
            return zstandard.ZstdDecompressor().decompress(packed)
        except zstandard.ZstdError:
            raise NotFound(f"the blob {key!r} is damaged", code="blob_damaged") from None

    def exists(self, key: str) -> bool:
        return bool(self._fs.exists(self._path(key)))

    def delete(self, key: str) -> None:
        """Remove it; an unknown key is fine."""
        try:
            self._fs.rm_file(self._path(key))
        except FileNotFoundError:
            return
        except OSError:
            raise Unavailable("the blob store cannot be written", code="blobs_down") from None

    def _path(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a blob key: {key!r}")
        return f"{self._root}/{key}.zst"


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
