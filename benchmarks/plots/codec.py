"""codec.png: CPU and bytes of a body, by format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.plots.style import COLOURS, figure

GROUPS = {"one tensor, Open Inference Protocol": True, "a study, /v1": False}


def draw(report: dict[str, Any], path: Path) -> None:
    with figure(path, 2) as axes:
        for axis, (title, protocol) in zip(axes[0], GROUPS.items(), strict=True):
            rows = {
                n: r for n, r in report["formats"].items() if n.startswith("oip") is protocol
            }  # fmt: skip
            cost = [r["cpu_ms"]["median"] for r in rows.values()]
            axis.plot(cost, list(rows), "o", color=COLOURS["lesionlens"])
            for at, row in enumerate(rows.values()):
                text = f"   {row['cpu_ms']['median']:.3g} ms, {row['bytes'] / 1e3:,.0f} kB"
                axis.text(row["cpu_ms"]["median"], at, text, va="center", fontsize=8)
            axis.set(title=title, xlabel="CPU, ms a body (logarithmic)", xscale="log")
            axis.set_xlim(right=60 * max(cost, default=1.0))
            axis.margins(y=0.15)
            axis.invert_yaxis()
