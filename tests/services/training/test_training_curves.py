"""The picture of the curves: a readable PNG, also after one epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from services.training.curves import plot_curves


@pytest.mark.parametrize("epochs", [1, 12])
def test_curves_are_drawn(epochs: int, tmp_path: Path) -> None:
    rows = [
        {
            "epoch": e + 1.0,
            "train_loss": 1 / (e + 1),
            "val_loss": 1.2 / (e + 1),
            "val_accuracy": 0.5,
        }
        for e in range(epochs)
    ]
    plot_curves(rows, epochs // 2, tmp_path / "fit" / "curves.png")
    with Image.open(tmp_path / "fit" / "curves.png") as picture:
        assert picture.format == "PNG"
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 10
