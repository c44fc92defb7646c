"""Pictures of what labels mean: each feature on, faint and off; typical lesions of each class.

    feature_sheet(seed, path)     all fourteen features on one sheet
    class_sheet(seed, path)       lesions of each class, the class outside the classes too

`python -m models.cohort.phantom.gallery FOLDER` writes the datasheet's two, features.png and
classes.png.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.cohort.phantom.definitions import DEFINITIONS
from models.cohort.phantom.profiles import CLASSES, FEATURES, OUTSIDE_CLASSES, chance
from models.cohort.phantom.rendering import render
from models.cohort.phantom.spec import PHASES, LesionSpec, draw

FAINT, CLEAR = 0.35, 1.0  # strengths shown; the faintest that is drawn
_SEED = 11
_POOL = 900
_CANDIDATES = 5
_LOUD = {"heterogeneous", "infiltrative_growth", "nodular_growth", "central_scar"}
_TILE, _GAP, _TEXT, _HEAD = 104, 10, 250, 40  # pixels
_CONTEXT = 1.7  # width of a picture over the box's longest edge in the plane
_WINDOW = (0.35, 2.5)  # signal over unenhanced parenchyma, black to white

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Panel:
    """One lesion with its caption, on slice z."""

    title: str
    spec: LesionSpec
    z: int


@dataclass(frozen=True)
class Row:
    """Lesions side by side under a name and a few words."""

    name: str
    words: str
    panels: list[Panel]


def feature_row(feature: str, seed: int = _SEED) -> Row:
    """The feature clear, faint and off in one lesion, on the slice that it changes most.

    The lesion is the one of a few typical ones with little else where it stands out best.
    """
    spec = max(
        _typical(feature, seed), key=lambda s: _contrast(s, feature)[0] / _company(s, feature)
    )
    z = _contrast(spec, feature)[1]
    return Row(
        feature.replace("_", " "),
        DEFINITIONS[feature].on,
        [
            Panel("clear", spec.with_strength(feature, CLEAR), z),
            Panel("faint", spec.with_strength(feature, FAINT), z),
            Panel("off", spec.without(feature), z),
        ],
    )


def class_row(class_id: str, seed: int = _SEED, each: int = 3) -> Row:
    """The first middling lesions of a class, as drawn."""
    outside = class_id in OUTSIDE_CLASSES
    found = (draw(seed, i, class_id if outside else None) for i in count())
    chosen = list(islice((s for s in found if s.class_id == class_id and _middling(s)), each))
    words = "never trained on: out of distribution" if outside else ""
    panels = [
        Panel(", ".join(f.replace("_", " ") for f in s.features), s, _middle(s)) for s in chosen
    ]
    return Row(class_id.replace("_", " "), words, panels)


def feature_sheet(seed: int, path: Path, progress: Progress | None = None) -> None:
    """Write a PNG with each feature clear, faint and off, side by side."""
    rows = []
    for done, feature in enumerate(FEATURES, 1):
        rows.append(feature_row(feature, seed))
        if progress:
            progress(done, len(FEATURES))
    picture(rows, ("clear", "faint", "off")).save(path, format="PNG", optimize=True)


def class_sheet(seed: int, path: Path) -> None:
    """Write a PNG with lesions of each class, and of those outside the classes."""
    rows = [class_row(c, seed) for c in (*CLASSES, *OUTSIDE_CLASSES)]
    picture(rows, ()).save(path, format="PNG", optimize=True)


def _typical(feature: str, seed: int) -> list[LesionSpec]:
    """Lesions of a class that tends to show the feature, alone in view, with little else."""
    pool = [s for s in _pool(seed) if feature in s.features and s.neighbour is None]
    likely = [s for s in pool if chance(feature, s.class_id) > 0.5] or pool
    return sorted(likely, key=lambda s: _company(s, feature))[:_CANDIDATES]


def _company(spec: LesionSpec, feature: str) -> int:
    """How much else there is to look at; some features draw the eye away from others."""
    others = set(spec.features) - {feature}
    return 1 + len(others) + 3 * len(others & _LOUD)


@lru_cache(maxsize=2)
def _pool(seed: int) -> list[LesionSpec]:
    return [s for s in (draw(seed, i) for i in range(_POOL)) if _middling(s)]


def _contrast(spec: LesionSpec, feature: str) -> tuple[float, int]:
    """(signal that the feature adds over noise, where it adds most; the slice of most of it)."""
    on, off = (
        render(s, noise=False) for s in (spec.with_strength(feature, CLEAR), spec.without(feature))
    )
    change = np.max([np.abs(on.volumes[p].data - off.volumes[p].data) for p in PHASES], axis=0)
    z = int(change.sum(axis=(0, 1)).argmax())
    inside = on.masks[feature][:, :, z]
    scale = spec.scanner.gain * spec.scanner.noise
    return (float(change[:, :, z][inside].mean() / scale) if inside.any() else 0.0), z


def _middling(spec: LesionSpec) -> bool:
    return 26 < spec.form.diameter_mm < 42


def _middle(spec: LesionSpec) -> int:
    return int(np.rint(render(spec).boxes[PHASES[0]].centre[2]))


def picture(rows: Sequence[Row], columns: Sequence[str]) -> Image.Image:
    """A grid of lesions, each as its three phases side by side, names on the left."""
    group = len(PHASES) * _TILE + _GAP
    widest = max(len(row.panels) for row in rows)
    high = _TILE + (32 if not columns else 6)
    out = Image.new("L", (_TEXT + widest * group, _HEAD + len(rows) * high), 14)
    pen = ImageDraw.Draw(out)
    pen.text((8, 6), "SYNTHETIC lesions, not patients", fill=200, font=_font(12))
    for x in range(widest):
        if columns:
            pen.text((_TEXT + x * group, 4), columns[x], fill=255, font=_font(14))
        for i, phase in enumerate(PHASES):
            place = (_TEXT + x * group + i * _TILE, 22)
            pen.text(place, phase.replace("_", " "), fill=150, font=_font(11))
    for y, row in enumerate(rows):
        top = _HEAD + y * high
        pen.text((8, top), row.name, fill=255, font=_font(14))
        lines = textwrap.wrap(row.words, 40)[:6]
        pen.multiline_text((8, top + 20), "\n".join(lines), fill=170, font=_font(11), spacing=2)
        for x, panel in enumerate(row.panels):
            left = _TEXT + x * group
            for i, tile in enumerate(_tiles(panel)):
                out.paste(tile, (left + i * _TILE, top))
            if not columns:
                title = "\n".join(textwrap.wrap(panel.title, 50)[:2])
                pen.multiline_text((left, top + _TILE), title, fill=170, font=_font(11), spacing=1)
    return out


def _tiles(panel: Panel) -> list[Image.Image]:
    rendering = render(panel.spec)
    low, high = _WINDOW
    tiles = []
    for p in PHASES:
        box = rendering.boxes[p]
        half = _CONTEXT * float(box.edges[:2].max()) / 2
        x, y = (float(v) for v in box.centre[:2] + 0.5)
        signal = rendering.volumes[p].data[:, :, panel.z].T / panel.spec.scanner.gain
        grey = np.clip((signal - low) / (high - low), 0, 1) * 255
        frame = (x - half, y - half, x + half, y + half)
        tiles.append(
            Image.fromarray(grey.astype(np.uint8)).resize(
                (_TILE, _TILE), Image.Resampling.BICUBIC, box=_within(frame, grey.shape)
            )
        )
    return tiles


def _within(
    frame: tuple[float, float, float, float], shape: tuple[int, ...]
) -> tuple[float, float, float, float]:
    """The frame, cut to a picture of [rows, columns]."""
    left, top, right, bottom = frame
    return max(left, 0), max(top, 0), min(right, shape[1]), min(bottom, shape[0])


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    feature_sheet(_SEED, folder / "features.png")
    class_sheet(_SEED, folder / "classes.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
