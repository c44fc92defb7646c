"""predict.png: throughput over that of the bare model, and CPU an answer, by server and clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plots.style import COLOURS, NAMES, figure, network_title


def draw(report: dict[str, Any], path: Path) -> None:
    networks = report["networks"]
    with figure(path, len(networks), rows=2) as axes:
        for column, (name, found) in enumerate(networks.items()):
            axes[0][column].set_title(network_title(name, found["network"]))
            _bars(axes[0][column], found["servers"], "rate", "answers a second")
            _bars(axes[1][column], found["servers"], "cpu_ms", "server CPU, ms an answer")
        axes[0][0].legend(fontsize=8, ncols=2)


def _bars(axis: Any, servers: dict[str, Any], of: str, label: str) -> None:
    """The median over rounds; whiskers from the least to the most."""
    concurrency = list(next(iter(servers.values())))
    width = 0.85 / len(servers)
    at = np.arange(len(concurrency))
    top = 0.0
    for index, (name, by) in enumerate(servers.items()):
        middle = np.array([by[c][of]["median"] for c in concurrency])
        low = middle - [by[c][of]["min"] for c in concurrency]
        high = np.array([by[c][of]["max"] for c in concurrency]) - middle
        axis.bar(
            at + (index - (len(servers) - 1) / 2) * width, middle, width,
            yerr=[low, high], error_kw={"lw": 0.8}, color=COLOURS.get(name), label=NAMES.get(name),
        )  # fmt: skip
        top = max(top, float((middle + high).max()))
    axis.set_xticks(at, [f"{c} client{'s' if c != '1' else ''}" for c in concurrency])
    axis.set_ylim(0, 1.25 * top)
    axis.set_ylabel(label)
