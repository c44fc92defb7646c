"""Shared memory: inside its region and nowhere else, whatever the client does to its segment."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import LensError, NotFound
from services.inference.oip_tensors import CodecError
from services.inference.shared_memory import MAX_REGIONS, NotOffered, Place, Regions, offered


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Stands in for /dev/shm: a segment of 100 bytes, and things that are none."""
    shm = tmp_path / "shm"
    shm.mkdir()
    (shm / "seg").write_bytes(bytes(range(100)))
    (shm / "sem.lock").write_bytes(bytes(32))
    (shm / "link").symlink_to(shm / "seg")
    (shm / "folder").mkdir()
    (tmp_path / "secret").write_bytes(bytes(100))
    os.mkfifo(shm / "pipe")
    return shm


@pytest.fixture
def regions(folder: Path) -> Regions:
    found = Regions(folder)
    found.register("r", "/seg", 10, 40)
    return found


def _open(folder: Path) -> int:
    """Descriptors of this process that lead into the folder; others come and go meanwhile."""
    found = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += file.readlink().is_relative_to(folder)
    return found


def _place(offset: Any = 0, size: Any = 8, region: Any = "r") -> dict[str, Any]:
    return {
        "shared_memory_region": region,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": size,
    }


def test_reads_and_writes_inside(regions: Regions, folder: Path) -> None:
    place = regions.place(_place(4, 8), "x")
    assert bytes(regions.read(place, "x", 8)) == bytes(range(14, 22))
    value = np.array([[1.5, -2.5]], np.float32)
    assert regions.write(regions.place(_place(32, 8), "y"), "y", value) == 8
    data = (folder / "seg").read_bytes()
    assert data[42:50] == value.tobytes()
    assert data[:42] == bytes(range(42))
    assert data[50:] == bytes(range(50, 100))
    assert regions.write(regions.place(_place(40, 0), "y"), "y", np.zeros((0, 3))) == 0


def test_status_and_unregister(regions: Regions, folder: Path) -> None:
    entry = {"name": "r", "key": "/seg", "offset": 10, "byte_size": 40}
    assert regions.status() == regions.status("r") == [entry]
    with pytest.raises(NotFound):
        regions.status("other")
    assert _open(folder) == 1
    regions.register("s", "seg", 0, 100)
    regions.unregister("other")
    regions.unregister("r")
    assert [r["name"] for r in regions.status()] == ["s"]
    regions.unregister()
    assert regions.status() == []
    assert _open(folder) == 0


@pytest.mark.parametrize(
    ("key", "offset", "size"),
    [
        ("", 0, 8),
        ("/", 0, 8),
        (".", 0, 8),
        ("..", 0, 8),
        ("../secret", 0, 8),
        ("/../secret", 0, 8),
        ("//seg", 0, 8),
        ("a/b", 0, 8),
        ("seg\0", 0, 8),
        ("seg\n", 0, 8),
        ("sem.lock", 0, 8),
        ("/sem.lock", 0, 8),
        ("nothing", 0, 8),
        ("link", 0, 8),
        ("folder", 0, 8),
        ("pipe", 0, 8),
        (7, 0, 8),
        ("seg", -1, 8),
        ("seg", 0, 0),
        ("seg", 0, -8),
        ("seg", 0, 101),
        ("seg", 93, 8),
        ("seg", 2**64, 8),
        ("seg", 0, 2**64),
        ("seg", 0.0, 8),
        ("seg", 0, True),
    ],
)
def test_what_is_not_registered(folder: Path, key: Any, offset: Any, size: Any) -> None:
    regions = Regions(folder)
    before = _open(folder)
    with pytest.raises((CodecError, NotFound)):
        regions.register("r", key, offset, size)
    assert regions.status() == []
    assert _open(folder) == before


@pytest.mark.parametrize(
    "parameters",
    [
        _place(region="other"),
        _place(region=None),
        _place(region=["r"]),
        _place(offset=-1),
        _place(offset=33),
        _place(size=41),
        _place(size=-1),
        _place(size=None),
        _place(size="8"),
        _place(offset=2**70),
    ],
)
def test_a_place_lies_within_its_region(regions: Regions, parameters: dict[str, Any]) -> None:
    with pytest.raises((CodecError, NotFound)) as caught:
        regions.place(parameters, "x")
    assert caught.value.field == "x"


def test_nothing_is_written_beyond_the_place(regions: Regions, folder: Path) -> None:
    before = (folder / "seg").read_bytes()
    with pytest.raises(CodecError, match="too small"):
        regions.write(regions.place(_place(0, 4), "y"), "y", np.zeros(2, np.float32))
    with pytest.raises(CodecError, match="fill the shape"):
        regions.read(regions.place(_place(0, 4), "x"), "x", 8)
    assert (folder / "seg").read_bytes() == before


def test_a_segment_that_was_cut_short(regions: Regions, folder: Path) -> None:
    """A mapping would end the process here."""
    place = regions.place(_place(0, 40), "x")
    os.truncate(folder / "seg", 20)
    with pytest.raises(CodecError, match="shorter"):
        regions.read(place, "x", 40)
    with pytest.raises(CodecError, match="shorter"):
        regions.write(place, "y", np.zeros(10, np.float32))
    assert (folder / "seg").stat().st_size == 20


def test_a_region_that_was_let_go_of_meanwhile(regions: Regions, folder: Path) -> None:
    place = regions.place(_place(0, 40), "x")
    regions.unregister("r")
    for call in (
        lambda: regions.read(place, "x", 40),
        lambda: regions.write(place, "x", np.zeros(10, np.float32)),
    ):
        with pytest.raises(NotFound):
            call()
    regions.register("r", "seg", 0, 8)  # another region of the same name
    with pytest.raises(NotFound):
        regions.write(Place("r", 0, 40), "x", np.zeros(10, np.float32))
    assert (folder / "seg").read_bytes() == bytes(range(100))


def test_names_and_numbers_are_bounded(folder: Path) -> None:
    regions = Regions(folder)
    for name in ("", "n" * 101):
        with pytest.raises(CodecError):
            regions.register(name, "seg", 0, 8)
    for index in range(MAX_REGIONS):
        regions.register(f"r{index}", "seg", 0, 8)
    for name in ("one-more", "r0"):
        with pytest.raises(CodecError):
            regions.register(name, "seg", 0, 8)


def test_off_by_default() -> None:
    with pytest.raises(NotOffered) as caught:
        offered(None)
    assert isinstance(caught.value, LensError)
    assert "LESIONLENS_SHARED_MEMORY" in caught.value.line
