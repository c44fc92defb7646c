"""Pictures for the datasheet: each feature on and off, and typical lesions of each class.

python -m models.cohort.phantom.gallery FOLDER      writes features.png and classes.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from models.cohort.phantom.profiles import CLASSES, FEATURES, chance
from models.cohort.phantom.rendering import render
from models.cohort.phantom.spec import PHASES, LesionSpec, draw

_SEED = 11
_TILE = 128  # pixels
_TITLE = 14


@dataclass(frozen=True)
class Panel:
    """One lesion with its caption, on slice z."""

    title: str
    spec: LesionSpec
    z: int


def feature_pairs() -> list[list[Panel]]:
    """For each feature a clear lesion of a typical class that shows it and little else.

    On the slice that holds most of the feature.
    """
    pool = [s for s in (draw(_SEED, i) for i in range(600)) if _middling(s)]
    rows = []
    for feature in FEATURES:
        typical = [s for s in pool if feature in s.features and chance(feature, s.class_id) > 0.5]
        spec = min(typical, key=lambda s: (len(s.features), -s.features[feature]))
        z = int(render(spec).masks[feature].sum(axis=(0, 1)).argmax())
        rows.append([Panel(f"{feature}: on", spec, z), Panel("off", spec.without(feature), z)])
    return rows


def class_rows(each: int = 3) -> list[list[Panel]]:
    """The first middling lesions of each class, as drawn."""
    rows = []
    for name in CLASSES:
        found = (s for s in (draw(_SEED, i) for i in count()) if s.class_id == name)
        chosen = [s for s, _ in zip(filter(_middling, found), range(each), strict=False)]
        rows.append(
            [Panel(", ".join([name, *(f[:12] for f in s.features)]), s, _middle(s)) for s in chosen]
        )
    return rows


def _middling(spec: LesionSpec) -> bool:
    return 24 < spec.form.diameter_mm < 42


def picture(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """A grid of lesions, each as its three phases side by side."""
    wide, high = len(PHASES) * _TILE + 4, _TILE + _TITLE
    out = Image.new("L", (wide * max(map(len, rows)), high * len(rows)))
    pen = ImageDraw.Draw(out)
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            pen.text((x * wide + 2, y * high + 1), panel.title, fill=255)
            for i, tile in enumerate(_tiles(panel)):
                out.paste(tile, (x * wide + i * _TILE, y * high + _TITLE))
    return out


def _tiles(panel: Panel) -> list[Image.Image]:
    rendering = render(panel.spec)
    tiles = []
    for p in PHASES:
        signal = rendering.volumes[p].data[:, :, panel.z].T / panel.spec.scanner.gain
        grey = np.clip((signal - 0.4) / 2.0, 0, 1) * 255
        tiles.append(Image.fromarray(grey.astype(np.uint8)).resize((_TILE, _TILE)))
    return tiles


def _middle(spec: LesionSpec) -> int:
    return int(np.rint(render(spec).boxes[PHASES[0]].centre[2]))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = feature_pairs()
    half = (len(pairs) + 1) // 2
    picture([a + b for a, b in zip(pairs[:half], pairs[half:], strict=True)]).save(
        folder / "features.png", optimize=True
    )
    picture(class_rows()).save(folder / "classes.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
