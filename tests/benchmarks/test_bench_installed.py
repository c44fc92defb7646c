"""A peer that cannot be installed is left out by name; the others are measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import predict
from benchmarks.peers.registry import Peer


def test_what_cannot_be_installed_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def python_of(peer: Peer) -> Path:
        if peer.name == "mosec":
            raise RuntimeError("pip could not install it")
        return Path("python")

    monkeypatch.setattr(predict, "python_of", python_of)
    there, left_out = predict.installed(["lesionlens", "mosec", "fastapi"])
    assert there == ["lesionlens", "fastapi"]
    assert left_out == {"mosec": "pip could not install it"}


def test_the_ratio_of_variants_is_repeated_where_it_was_measured(tmp_path: Path) -> None:
    assert predict.fast_variant(tmp_path) is None
    (tmp_path / "variants.json").write_text(
        '{"ratios": {"fast_variant_vs_fp32": {"median": 2.6}}}', "utf-8"
    )
    assert predict.fast_variant(tmp_path) == {"median": 2.6}
