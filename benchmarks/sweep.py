"""Does the cost of an explanation grow in a straight line? CPU time against one quantity at a time.

Rounds go through all points in turn, and a point counts with its median, so that a busy moment does
not bend a line. Fitted by least squares; R^2 says how straight it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

Work = Callable[[int], object]


def sweep(
    works: Mapping[str, tuple[Sequence[int], Work]], rounds: int = 3
) -> dict[str, dict[str, Any]]:
    """name -> (amounts, work of an amount) -> name -> amounts, CPU seconds, fit."""
    taken: dict[str, list[list[float]]] = {k: [[] for _ in a] for k, (a, _) in works.items()}
    for number in range(-1, rounds):  # a first round that does not count
        for name, (amounts, work) in works.items():
            for seconds, amount in zip(taken[name], amounts, strict=True):
                start = process_time()
                work(amount)
                if number >= 0:
                    seconds.append(process_time() - start)
    return {
        name: fit(amounts, [float(np.median(s)) for s in taken[name]])
        for name, (amounts, _) in works.items()
    }


def fit(amounts: Sequence[int], seconds: Sequence[float]) -> dict[str, Any]:
    """Straight line through the points: seconds for nothing, seconds for one more, R^2."""
    x, y = np.asarray(amounts, float), np.asarray(seconds, float)
    each, fixed = np.polyfit(x, y, 1)
    left, spread = float(((y - fixed - each * x) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    return {
        "amount": [int(v) for v in amounts],
        "cpu_s": [round(float(v), 5) for v in y],
        "fixed_s": round(float(fixed), 5),
        "each_s": round(float(each), 6),
        "r2": round(1 - left / spread, 5) if spread > 0 else None,
    }


def draw(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """A panel a quantity: points and line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(found), 2.8), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (name, line) in zip(panels, found.items(), strict=True):
        x = np.array(line["amount"])
        panel.plot(x, line["cpu_s"], "o", color="#1b6ca8")
        panel.plot(x, line["fixed_s"] + line["each_s"] * x, "-", color="#888888", linewidth=1)
        panel.set_title(f"{1000 * line['each_s']:.2f} ms each, R² {line['r2']:.3f}", fontsize=9)
        panel.set_xlabel(name)
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("CPU seconds")
    figure.savefig(path, dpi=120)
