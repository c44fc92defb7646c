"""overload.png: answers, refusals and memory while four times the capacity was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plots.style import COLOURS, figure


def draw(report: dict[str, Any], path: Path) -> None:
    line = report["timeline"]
    with figure(path, 2) as axes:
        rates, memory = axes[0]
        at = np.arange(len(line["answers"])) + 0.5
        rates.plot(at, line["answers"], color=COLOURS["lesionlens"], label="answered")
        rates.plot(at, line["refusals"], color=COLOURS["mlserver"], label="refused (429, 503)")
        rates.axhline(report["capacity"], color="black", lw=1, ls="--", label="capacity")
        rates.axhline(report["offered_rate"], color="black", lw=1, ls=":", label="offered")
        rates.set(xlabel="second of the overload", ylabel="requests a second")
        rates.set_ylim(bottom=0)
        rates.legend(fontsize=8)
        memory.plot(line["rss_s"], line["rss_mb"], color=COLOURS["lesionlens"])
        memory.set(xlabel="second of the overload", ylabel="memory of the service (RSS), MB")
        memory.set_ylim(0, 1.15 * max(line["rss_mb"], default=1.0))
