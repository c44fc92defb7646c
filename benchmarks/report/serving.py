"""Sections on predictions: beside the bare model and the peers, the server's cost, overload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.plots.style import NAMES, network_title
from benchmarks.report.markdown import NOTHING, image, number, spreaded, table
from benchmarks.report.records import at

LIMITS = ("inprocess", "inprocess_slices")


def predictions(record: Mapping[str, Any], images: Mapping[str, str]) -> list[str]:
    lines = [
        "## Predictions", "",
        "Every server has the same ONNX file, one thread a call and two calls side by side, and "
        "answers the same lesion; its scores are compared with the bare model's before anything is "
        "timed. *onnxruntime alone* is one process with the same two places and no web: the limit. "
        "*…, over slices* is the same on the graph as LesionLens runs it: when the file is loaded, "
        "convolutions over volumes are turned into convolutions over slices "
        "(`models/graph/flat.py`), equal but for rounding; beside it one sees what the web costs. "
        "A round gives every server its turn; ratios are taken within a round, and the table has "
        "the median and, in brackets, the least and the most over rounds.", "",
    ]  # fmt: skip
    for name, found in record["networks"].items():
        about = found["network"]
        lines += [
            f"### {_title(name, about)}", "",
            f"{about['onnx_kb']:,.0f} kB of ONNX, {about['payload_bytes']:,} bytes of lesion.", "",
        ]  # fmt: skip
        concurrency = list(next(iter(found["servers"].values())))
        lines += ["Server's CPU an answer, ms; answers a second; p50 and p99, ms:", ""]
        head = ["", *(f"c = {c}: CPU | rate | p50 | p99" for c in concurrency)]
        rows = [
            [
                NAMES.get(server, server),
                *(
                    " | ".join(
                        [
                            number(by[c]["cpu_ms"]["median"]), number(by[c]["rate"]["median"]),
                            # Whoever waits for the bare model's places waits in no order.
                            *([NOTHING, NOTHING] if server in LIMITS and int(c) > 2 else
                              [number(by[c]["p50_ms"]), number(by[c]["p99_ms"])]),
                        ]
                    )
                    for c in concurrency
                ),
            ]
            for server, by in found["servers"].items()
        ]  # fmt: skip
        lines += _wide(head, rows)
        lines += ["LesionLens over the others:", ""]
        ratios = found["ratios"]
        compared = [
            ["CPU, onnxruntime alone", *_of(ratios["cpu_per_request_vs_inprocess"], concurrency)],
            ["throughput, onnxruntime alone", *_of(ratios["throughput_vs_inprocess"], concurrency)],
        ]
        if "cpu_per_request_vs_slices" in ratios:
            compared += [
                [f"{what}, onnxruntime alone, over slices", *_of(ratios[key], concurrency)]
                for what, key in (
                    ("CPU", "cpu_per_request_vs_slices"), ("throughput", "throughput_vs_slices"),
                )
            ]  # fmt: skip
        if "throughput_vs_inprocess_less_client" in ratios:
            net = ratios["throughput_vs_inprocess_less_client"]
            compared.append(
                ["the same, per core that the client left free", *_of(net, concurrency)]
            )
        for peer, by in ratios["vs_peer"].items():
            compared.append([f"throughput, {NAMES.get(peer, peer)}", *_of(by, concurrency)])
        for peer, by in ratios.get("cpu_vs_peer", {}).items():
            compared.append([f"CPU, {NAMES.get(peer, peer)}", *_of(by, concurrency)])
        lines += table(["", *(f"c = {c}" for c in concurrency)], compared)
    lines += image("predict", "Throughput and CPU by server", images)
    if record.get("peers"):
        lines += ["How the peers were run:", ""]
        lines += [
            f"- {NAMES.get(name, name)} {about['version']}: {about['how']}."
            for name, about in record["peers"].items()
        ]
        lines.append("")
    for name, why in (record.get("left_out") or {}).items():
        lines += [f"{NAMES.get(name, name)} was left out: {why}", ""]
    return lines


def nothing(record: Mapping[str, Any]) -> list[str]:
    """The null network."""
    found = record.get("null_model") or {}
    if not found:
        return []
    size = at(found, "network", "payload_bytes")
    lines = [
        "## The server's own cost", "",
        f"A network that does nothing behind a body of {size:,} bytes, {found['clients']} clients: "
        "what is left is the server.", "",
    ]  # fmt: skip
    rows = [
        [NAMES.get(name, name), spreaded(cost), spreaded(at(found, "rate", name))]
        for name, cost in found["cpu_ms"].items()
    ]
    lines += table(["", "CPU an answer, ms", "answers a second"], rows)
    return lines


def overload(record: Mapping[str, Any], images: Mapping[str, str]) -> list[str]:
    refusal, answer, memory = record["refusal_ms"], record["answer_ms"], record["rss_mb"]
    rows = [
        ["capacity, 16 clients in a closed loop", f"{number(record['capacity'])} /s"],
        ["offered", f"{number(record['offered_rate'])} /s for {record['seconds']:g} s"],
        ["answered", f"{number(record['goodput'])} /s"],
        ["refused with 429 or 503", f"{100 * record['refused_share']:.1f} %"],
        ["connection lost", f"{100 * record['lost_share']:.1f} %"],
        ["not sent: the client's own limit", f"{100 * record['unsent_share']:.1f} %"],
        ["other answers", f"{100 * record['other_share']:.1f} %"],
        ["a refusal, p50 and p99", _pair(refusal)],
        ["an answer, p50 and p99", _pair(answer)],
        ["the client's own lateness, p50 and p99", _pair(record.get("client_late_ms"))],
        ["memory (RSS) at start and end", f"{memory['start']} and {memory['end']} MB"],
        ["its slope", f"{memory['slope_mb_per_minute']:g} MB a minute"],
        ["p50 of one client, before", f"{number(record['calm_p50_ms'])} ms"],
        ["the same again after", NOTHING if record["recovery_s"] is None
         else f"{record['recovery_s']:g} s"],
    ]  # fmt: skip
    return [
        "## Overload", "",
        f"Requests leave at {record['offered_times']:g} times the capacity, at a constant rate and "
        "from a process of its own, whatever became of those before. An answer's latency "
        "counts from the time that the request was due, a refusal's from when it was sent.", "",
        *table(["", "found"], rows),
        *image("overload", "Answers, refusals and memory under overload", images),
    ]  # fmt: skip


def _title(name: str, about: Mapping[str, Any]) -> str:
    title = network_title(name, about)
    return title[0].upper() + title[1:]


def _pair(found: Mapping[str, Any] | None) -> str:
    return NOTHING if not found else f"{number(found['p50'])} and {number(found['p99'])} ms"


def _of(by: Mapping[str, Any], concurrency: list[str]) -> list[str]:
    return [spreaded(by.get(c)) for c in concurrency]


def _wide(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table whose cells hold several columns each, split by bars."""
    columns = [cell.strip() for cell in " | ".join(head).split(" | ")]
    columns[0] = ""
    return table(columns, [" | ".join(row).split(" | ") for row in rows])
