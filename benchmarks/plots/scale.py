"""scale.png: throughput by layout, and latency against load, measured and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plots.style import COLOURS, figure, network_title


def draw(report: dict[str, Any], path: Path) -> None:
    networks = report["networks"]
    with figure(path, len(networks), rows=2, wide=6.4) as axes:
        for column, (name, found) in enumerate(networks.items()):
            axes[0][column].set_title(network_title(name, found["network"]))
            _layouts(axes[0][column], found["layouts"])
            _latency(axes[1][column], found["queueing"])


def _layouts(axis: Any, rows: list[dict[str, Any]]) -> None:
    labels = [
        f"{r['cores']} core{'s' * (r['cores'] > 1)}: {r['replicas']} x {r['sessions']} sessions, "
        f"{r['threads']} thread{'s' * (r['threads'] > 1)}"
        for r in rows
    ]
    middle = np.array([r["rate"]["median"] for r in rows])
    low = middle - [r["rate"]["min"] for r in rows]
    high = np.array([r["rate"]["max"] for r in rows]) - middle
    axis.barh(labels, middle, xerr=[low, high], color=COLOURS["lesionlens"], error_kw={"lw": 0.8})
    axis.set_xlabel("answers a second, 16 clients")
    axis.invert_yaxis()


def _latency(axis: Any, checked: dict[str, Any]) -> None:
    loads = [row["load"] for row in checked["loads"]]
    for share, colour in (("p50", COLOURS["lesionlens"]), ("p99", COLOURS["mlserver"])):
        seen = [row["measured_ms"][share] for row in checked["loads"]]
        paper = [row["formula_ms"][share] for row in checked["loads"]]
        axis.plot(loads, seen, "o", color=colour, label=f"{share}, measured")
        axis.plot(loads, paper, "--", color=colour, label=f"{share}, on paper")
    axis.set(xlabel="load over capacity", ylabel="latency, ms (logarithmic)", yscale="log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="y", which="minor", labelsize=7)
    axis.legend(fontsize=8)
