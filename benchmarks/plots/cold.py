"""cold.png: where the time of a cold start goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.plots.style import COLOURS, figure

SHOWN = 14


def draw(report: dict[str, Any], path: Path) -> None:
    with figure(path, 2) as axes:
        steps, imports = axes[0]
        seconds = {
            "import": report["seconds"]["import"],
            "read and checksums": report["seconds"]["read_and_checksums"],
            "graphs": report["seconds"]["graphs"],
            "parity": report["seconds"]["parity"],
            "service ready": report["ready_seconds"],
        }
        if "ready_cpu_seconds" in report:
            seconds["service ready, CPU"] = report["ready_cpu_seconds"]
        steps.barh(
            list(seconds), [s["median"] for s in seconds.values()], color=COLOURS["lesionlens"]
        )
        steps.axvline(3.0, color="black", lw=1, ls="--", label="target for ready")
        steps.set(title="from nothing to ready", xlabel="seconds (median)")
        steps.invert_yaxis()
        steps.legend(fontsize=8)
        heavy = dict(list(report["service_heavy_imports_ms"].items())[:SHOWN])
        imports.barh(list(heavy), list(heavy.values()), color=COLOURS["grpc"])
        imports.set(
            title="imports of the service's processes", xlabel="ms, profiled (slower than usual)"
        )
        imports.invert_yaxis()
