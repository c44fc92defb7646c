"""The blob store's contract, over a folder and in memory."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from models.errors import NotFound, Unavailable
from services.common.blobs import Blobs


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "memory":
        return Blobs(f"memory://{uuid.uuid4().hex}")
    return Blobs((tmp_path / "blobs").as_uri())


def test_put_get_exists_delete(blobs: Blobs) -> None:
    key = "explanations/exp-1/document.json"
    assert not blobs.exists(key)
    blobs.put(key, b"abc" * 1000)
    assert blobs.exists(key)
    assert blobs.get(key) == b"abc" * 1000
    blobs.put(key, b"")
    assert blobs.get(key) == b""
    blobs.delete(key)
    blobs.delete(key)
    with pytest.raises(NotFound):
        blobs.get(key)


@pytest.mark.parametrize(
    "key", ["../x", "lesions/../../x", "/etc/x", "lesions/.x", "lesions//x", "x", "lesions/a\n"]
)
def test_a_key_cannot_lead_out(blobs: Blobs, key: str) -> None:
    with pytest.raises(ValueError, match="not a blob key"):
        blobs.put(key, b"x")


def test_a_blob_packed_quickly_is_the_same_blob(blobs: Blobs) -> None:
    key, data = "lesions/les-1.npz", bytes(range(256)) * 400
    blobs.put(key, data, quick=True)
    assert blobs.get(key) == data
    blobs.put(key, data)
    assert blobs.get(key) == data


def test_blobs_are_compressed_and_nothing_half_is_left(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path.as_uri())
    blobs.put("lesions/les-1.npz", bytes(100_000))
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p.name for p in files] == ["les-1.npz.zst"]
    assert files[0].stat().st_size < 1000


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_blob_is_not_handed_out(tmp_path: Path, damage: str) -> None:
    blobs = Blobs(tmp_path.as_uri())
    blobs.put("lesions/les-1.npz", bytes(range(256)) * 40)
    path = tmp_path / "lesions" / "les-1.npz.zst"
    packed = bytearray(path.read_bytes())
    if damage == "flip":
        packed[len(packed) // 2] ^= 1
    path.write_bytes({"cut": packed[:-5], "flip": packed, "empty": b""}[damage])
    with pytest.raises(NotFound, match="damaged"):
        blobs.get("lesions/les-1.npz")


def test_a_store_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "lesions").write_text("a file where a folder should be")
    with pytest.raises(Unavailable, match="blob store"):
        Blobs(tmp_path.as_uri()).put("lesions/les-1.npz", b"x")
