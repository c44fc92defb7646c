"""The learning curve as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any


def learning_curve_png(curve: Mapping[str, Any], rivals: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Test accuracy over training lesions with its 95 % band, as PNG.

    curve: 'points' with n_train, accuracy and ci. rivals: name -> a classifier's row with n_train,
    accuracy and ci, drawn as a point.
    """
    from matplotlib.figure import Figure  # no global state, no display

    points = curve["points"]
    sizes = [p["n_train"] for p in points]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(
        sizes, [p["ci"][0] for p in points], [p["ci"][1] for p in points], alpha=0.2, linewidth=0
    )
    axes.plot(sizes, [p["accuracy"] for p in points], marker="o", label=curve["profile"])
    for name, row in rivals.items():
        low, high = row["ci"]
        axes.errorbar(
            [row["n_train"]], [row["accuracy"]],
            yerr=[[row["accuracy"] - low], [high - row["accuracy"]]],
            marker="s", capsize=4, linestyle="none", label=name,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{s:,}" for s in sizes])
    axes.minorticks_off()
    axes.set(
        xlabel="training lesions",
        ylabel=f"accuracy on {curve['n_test']:,} unseen lesions",
        title="Learning curve (synthetic lesions, 95 % intervals)",
    )
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    stream = io.BytesIO()
    figure.savefig(stream, dpi=130, format="png")
    return stream.getvalue()
