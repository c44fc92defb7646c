"""One look for all figures: sizes, colours that colour-blind readers tell apart, no decoration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = {
    "inprocess": "onnxruntime alone",
    "inprocess_slices": "onnxruntime alone, over slices",
    "lesionlens": "LesionLens",
    "rest_binary": "LesionLens, REST",
    "grpc": "LesionLens, gRPC",
    "fastapi": "FastAPI + uvicorn",
    "litserve": "LitServe",
    "mosec": "mosec",
    "mlserver": "MLServer",
    "bentoml": "BentoML ndarray",
}
# Okabe and Ito's palette.
COLOURS = {
    "inprocess": "#000000",
    "inprocess_slices": "#777777",
    "lesionlens": "#0072b2",
    "rest_binary": "#0072b2",
    "grpc": "#56b4e9",
    "fastapi": "#009e73",
    "litserve": "#e69f00",
    "mosec": "#cc79a7",
    "mlserver": "#d55e00",
    "bentoml": "#999999",
}
NETWORKS = {
    "given": "the bundle's network",
    "wang2019": "the published network",
    "null": "no network",
}


def network_title(name: str, about: Mapping[str, Any]) -> str:
    return f"{NETWORKS.get(name, name)} ({about['architecture']})"


@contextmanager
def figure(path: Path, columns: int, *, rows: int = 1, wide: float = 5.2) -> Iterator[Any]:
    """Axes [rows, columns] of a figure that is saved as `path`."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "svg.hashsalt": "lesionlens",
        }
    ):
        fig, axes = plt.subplots(
            rows, columns, figsize=(wide * columns, 3.9 * rows), squeeze=False, layout="constrained"
        )
        try:
            yield axes
            path.parent.mkdir(parents=True, exist_ok=True)
            fig.savefig(path, dpi=120, metadata={"Software": None})
        finally:
            plt.close(fig)
