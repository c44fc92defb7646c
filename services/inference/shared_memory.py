"""System shared memory: a client on this host leaves tensors in /dev/shm and finds answers there.

Off by default: whoever may ask may read and write every segment of the server's user, so it is for
hosts whose clients are all trusted. Source: the protocol's shared memory extension
(github.com/triton-inference-server/server, docs/protocol/extension_shared_memory.md).

Regions are read and written by position, not mapped: a client that shortens its segment gets an
error, where a mapping would end the server (SIGBUS). Tensors are copied out before they are looked
at, so that nobody changes them after they were checked.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import LensError, NotFound
from services.inference.oip_tensors import CodecError

FOLDER = Path("/dev/shm")  # noqa: S108
MAX_REGIONS = 256
_KEY = re.compile(r"/?(?!sem\.)([A-Za-z0-9_-][A-Za-z0-9_.-]{0,250})")  # no semaphores, no '..'


class NotOffered(LensError):
    """A verb of the protocol that this server does not have."""

    code = "not_offered"
    status = 501


@dataclass(frozen=True)
class Place:
    """Bytes of a registered region, counted from its own start."""

    region: str
    offset: int
    size: int


class _Region:
    """An open segment; it is closed with its last holder, who may be a thread that still reads."""

    def __init__(self, key: str, offset: int, size: int, descriptor: int) -> None:
        self.key, self.offset, self.size = key, offset, size
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class Regions:
    """What clients have registered. `read` and `write` may be called in any thread."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Open a segment that exists. Raises CodecError, NotFound."""
        if not name or len(name) > 100:
            raise CodecError("not a region's name", field="name", expected="1 to 100 characters")
        if name in self._regions:
            raise CodecError("the region is registered already", field="name", found=name)
        if len(self._regions) >= MAX_REGIONS:
            raise CodecError("too many regions", field="name", expected=f"<= {MAX_REGIONS}")
        if type(offset) is not int or type(size) is not int or offset < 0 or size <= 0:
            raise CodecError(
                "not a part of a segment",
                field="byte_size",
                found=f"offset {str(offset)[:20]}, byte_size {str(size)[:20]}",
                expected="offset >= 0, byte_size > 0",
            )
        region = _Region(key, offset, size, self._opened(key))
        there = os.fstat(region.descriptor)
        if not stat.S_ISREG(there.st_mode) or offset + size > there.st_size:
            raise CodecError(
                "the region does not fit the segment",
                field="byte_size",
                found=f"offset {offset}, byte_size {size}",
                expected=f"within {there.st_size} bytes",
            )
        self._regions[name] = region

    def unregister(self, name: str = "") -> None:
        """Let go of one region, or of all; one that is not there is let go of already."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """One region, or all. Raises NotFound."""
        if name and name not in self._regions:
            raise _unknown(name)
        return [
            {"name": n, "key": r.key, "offset": r.offset, "byte_size": r.size}
            for n, r in self._regions.items()
            if name in ("", n)
        ]

    def place(self, parameters: Mapping[str, Any], tensor: str) -> Place:
        """Where a tensor's parameters point to, within its region. Raises CodecError, NotFound."""
        name = parameters.get("shared_memory_region")
        size = parameters.get("shared_memory_byte_size")
        offset = parameters.get("shared_memory_offset", 0)
        if not isinstance(name, str) or name not in self._regions:
            raise _unknown(str(name)[:100], tensor)
        region = self._regions[name]
        fits = type(size) is int and type(offset) is int and size >= 0 and offset >= 0
        if not fits or offset + size > region.size:  # type: ignore[operator]
            raise CodecError(
                "not within the shared memory region",
                field=tensor,
                found=f"offset {str(offset)[:20]}, byte_size {str(size)[:20]}",
                expected=f"within {region.size} bytes",
            )
        return Place(name, offset, size)  # type: ignore[arg-type]

    def read(self, place: Place, tensor: str, wanted: int) -> bytearray:
        """`wanted` bytes, which must be all of the place. Raises CodecError, NotFound."""
        if place.size != wanted:
            raise CodecError(
                "the bytes do not fill the shape",
                field=tensor,
                found=f"{place.size} bytes",
                expected=f"{wanted}",
            )
        region = self._of(place, tensor)
        data = bytearray(place.size)
        found = os.preadv(region.descriptor, [data], region.offset + place.offset)
        if found != place.size:
            raise _shortened(tensor)
        return data

    def write(self, place: Place, tensor: str, value: NDArray[Any]) -> int:
        """Write at the place's start; the bytes written. Raises CodecError, NotFound."""
        if value.nbytes > place.size:
            raise CodecError(
                "the shared memory is too small for this output",
                field=tensor,
                found=f"{place.size} bytes",
                expected=f"{value.nbytes}",
            )
        region = self._of(place, tensor)
        start = region.offset + place.offset
        if os.fstat(region.descriptor).st_size < start + value.nbytes:
            raise _shortened(tensor)
        data: Any = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return os.pwrite(region.descriptor, data, start)

    def _of(self, place: Place, tensor: str) -> _Region:
        region = self._regions.get(place.region)
        if region is None or place.offset + place.size > region.size:
            raise _unknown(place.region, tensor)  # let go of while the request ran
        return region

    def _opened(self, key: object) -> int:
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        if match is None:
            raise CodecError(
                "not a name of shared memory",
                field="key",
                found=str(key)[:60],
                expected="a segment's name: letters, digits, '_', '-', '.'",
            )
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(self._folder / match[1], flags)
        except OSError as error:
            raise NotFound(
                f"the shared memory cannot be opened ({error.strerror})",
                field="key",
                found=match[1][:60],
            ) from None


def offered(regions: Regions | None, tensor: str = "shared_memory_region") -> Regions:
    """The regions, or NotOffered where shared memory is off."""
    if regions is None:
        raise NotOffered(
            "shared memory is not offered",
            field=tensor,
            expected="tensors in the message; LESIONLENS_SHARED_MEMORY=true turns it on",
        )
    return regions


def _unknown(name: str, field: str = "name") -> NotFound:
    return NotFound(
        "no such shared memory region", code="unknown_region", field=field, found=name[:100]
    )


def _shortened(tensor: str) -> CodecError:
    return CodecError("the shared memory has become shorter than its region", field=tensor)
