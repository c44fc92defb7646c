"""The page is made of the records alone, says what was met, and changes when they change."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.__main__ import write
from benchmarks.report.markdown import number, spreaded
from benchmarks.report.page import page
from benchmarks.report.records import NAMES, read_records
from benchmarks.report.targets import targets

RECORDS = Path(__file__).parent / "records"


@pytest.fixture
def records() -> dict[str, dict[str, Any]]:
    return read_records(RECORDS)


def verdict(records: dict[str, dict[str, Any]], words: str) -> list[bool | None]:
    found = [t.met for t in targets(records) if words in t.what]
    assert found, words
    return found


def test_equal_records_make_an_equal_page_with_every_section(
    records: dict[str, dict[str, Any]],
) -> None:
    text = page(records, {})
    assert text == page(copy.deepcopy(records), {})
    titles = (
        "Predictions", "The server's own cost", "Explanations", "Variants of a bundle", "Overload",
        "Scale", "Reading a body", "Cold start", "How this was made",
    )  # fmt: skip
    for title in titles:
        assert f"## {title}\n" in text
    for record in records.values():
        assert record["made_by"] in text
        assert record["when"][:10] in text
    assert "make bench" in text
    assert "- lesionnet-s, openvino is refused: accuracy falls by 0.02, more than 0.005" in text
    assert "| feature, 4 steps | 40 | 0.7 (0.6 to 0.8) |" in text
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_every_table_is_whole(records: dict[str, dict[str, Any]]) -> None:
    width = 0
    for line in page(records, {}).splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = line.count("|")
        assert width in (0, cells), line
        width = cells


def test_a_target_is_met_or_missed_by_its_figure(records: dict[str, dict[str, Any]]) -> None:
    assert verdict(records, "CPU a request over the bare model's") == [True, False]
    ratios = records["predict"]["networks"]["wang2019"]["ratios"]
    for found in ratios["cpu_per_request_vs_inprocess"].values():
        found["median"] = 1.08
    assert verdict(records, "CPU a request over the bare model's") == [True, True]
    ratios["cpu_per_request_vs_inprocess"]["8"]["median"] = 1.081  # the worst c counts
    assert verdict(records, "CPU a request over the bare model's") == [True, False]


@pytest.mark.parametrize(
    ("words", "name", "path", "good", "bad"),
    [
        ("goodput", "overload", ("goodput_vs_capacity",), 0.9, 0.89),
        ("growth of memory", "overload", ("rss_mb", "growth"), 0.049, 0.05),
        ("normal p50", "overload", ("recovery_s",), 5.0, None),
        ("neither answered", "overload", ("lost_share",), 0.0, 0.01),
        ("refusal's latency", "overload", ("refusal_ms", "p50"), 50.0, 51.0),
        ("start to ready", "cold", ("ready_seconds", "median"), 3.0, 3.1),
        ("training packages", "cold", ("service_training_packages",), [], ["torch"]),
        ("REST, binary", "predict", ("null_model_cpu_ms", "rest_binary", "median"), 0.6, 0.61),
        ("Captum's, median", "explain", ("agreement", "median"), 1e-3, 2e-3),
        ("torch with Captum", "explain", ("ratios", "cpu_vs_captum", "median"), 0.7, 0.71),
        ("deliverable", "explain", ("ratios", "deliverable_speedup", "median"), 10.0, 9.9),
        ("card", "explain", ("card_p95_s",), 1.0, 1.01),
        ("fastest accepted", "variants", ("ratios", "fast_variant_vs_fp32", "median"), 2.5, 2.4),
        ("straight line", "explain", ("sweep", "steps", "r2"), 0.98, 0.97),
    ],
)
def test_bounds(
    records: dict[str, dict[str, Any]],
    words: str,
    name: str,
    path: tuple[str, ...],
    good: Any,
    bad: Any,
) -> None:
    for value, met in ((good, True), (bad, False)):
        inner = records[name]
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        assert verdict(records, words) == [met]


def test_a_busy_machine_is_said_so(records: dict[str, dict[str, Any]]) -> None:
    assert "quiet machine" not in page(records, {})
    records["cold"]["conditions"]["load_average"] = 3.0
    assert "**Not made on a quiet machine** (cold)" in page(records, {})


def test_what_was_not_measured_is_said_so() -> None:
    text = page({}, {})
    assert all(t.met is None for t in targets({}))
    assert "0 met, 0 missed" in text


def test_a_peer_that_is_ahead_makes_a_target_missed(records: dict[str, dict[str, Any]]) -> None:
    peers = records["predict"]["networks"]["given"]["ratios"]["vs_peer"]
    peers["litserve"]["8"]["median"] = 1.0  # level is not ahead
    peers["mosec"]["8"]["median"] = 0.97  # level is enough
    assert verdict(records, "over LitServe's")[0] is False
    assert verdict(records, "over mosec's")[0] is True


def test_the_command_copies_figures_and_links_them(tmp_path: Path) -> None:
    data = tmp_path / "bench"
    data.mkdir()
    (data / "cold.json").write_text((RECORDS / "cold.json").read_text("utf-8"), "utf-8")
    (data / "cold.png").write_bytes(b"a picture")
    (data / "codec.png").write_bytes(b"a picture without a record")
    out = tmp_path / "docs" / "performance.md"
    write(data, out)
    assert "(images/performance/cold.png)" in out.read_text("utf-8")
    folder = out.parent / "images" / "performance"
    assert [f.name for f in folder.iterdir()] == ["cold.png"]


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cold.json").write_text(json.dumps([1]), "utf-8")
    with pytest.raises(ValueError, match=r"cold\.json is not a record"):
        read_records(tmp_path)


def test_numbers_as_people_write_them() -> None:
    assert number(1234.5) == "1,234"
    assert number(0.0912345) == "0.0912"
    assert number(12) == "12"
    assert number(None) == "–"
    assert number(0.0000123) == "1.23e-05"
    assert spreaded({"min": 1.0, "median": 2.0, "max": 3.0, "n": 3}) == "2 (1 to 3)"
    assert spreaded({"min": 2.0, "median": 2.0, "max": 2.0, "n": 1}) == "2"


def test_the_fixtures_are_of_known_names() -> None:
    assert {f.stem for f in RECORDS.glob("*.json")} <= set(NAMES)
