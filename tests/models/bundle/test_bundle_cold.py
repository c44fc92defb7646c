"""A cold process loads a bundle, checked to the last number, and no training package with it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cold import measure


def test_loading_imports_no_training_package(tiny_bundle: Path) -> None:
    seconds = measure(tiny_bundle)
    assert seconds.pop("heavy") == []
    assert set(seconds) == {"import", "read_and_checksums", "graphs", "parity", "load"}
    assert all(value > 0 for value in seconds.values())
