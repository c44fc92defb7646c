"""A contact sheet: one row a lesion, one picture a phase, outlines of its masks, its labels.

Every picture is the axial plane through the VOI's centre, patient right on the left, one window for
all phases of a lesion so that enhancement can be compared, the VOI as corner marks.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from models.cohort.format import OUTSIDE, Cohort
from models.cohort.load import Mask, load_mask, load_study
from models.errors import InputError
from models.volume import Study
from wire.cohort import CohortLesion

TILE = 200
_TEXT = 330
_GAP = 8
_HEADER = 58
_MOST_ROWS = 60
_CONTEXT = 1.9  # width of the picture over the VOI's longest edge
_BACK, _INK, _FAINT = (18, 18, 20), (232, 232, 232), (150, 150, 155)
_LESION, _BEYOND = (255, 255, 255), (40, 40, 46)


def contact_sheet(cohort: Cohort, lesion_ids: Sequence[str] | None, path: Path) -> list[str]:
    """Write a PNG of the lesions, or of two of every class and two of those set aside.

    A phase that was not acquired is left blank and said so. Returns the ids shown, in order.

    Raises NotFound for an unknown id, InputError for more than 60 lesions or unreadable images.
    """
    chosen = [cohort.find(i) for i in lesion_ids] if lesion_ids else pick(cohort)
    if len(chosen) > _MOST_ROWS:
        raise InputError(
            "too many lesions for one sheet",
            code="too_many",
            field="lesion",
            found=str(len(chosen)),
            expected=f"at most {_MOST_ROWS}",
        )
    phases = cohort.file.phases
    width = len(phases) * (TILE + _GAP) + _TEXT + _GAP
    sheet = Image.new("RGB", (width, _HEADER + len(chosen) * (TILE + _GAP)), _BACK)
    draw = ImageDraw.Draw(sheet)
    _title(draw, cohort)
    for column, phase in enumerate(phases):
        left = _GAP + column * (TILE + _GAP)
        draw.text((left, _HEADER - 20), phase.replace("_", " "), _FAINT, _font(13))
    colours = _colours(cohort)
    for row, lesion in enumerate(chosen):
        top = _HEADER + row * (TILE + _GAP)
        study = load_study(cohort, lesion)
        for column, tile in enumerate(_tiles(cohort, lesion, study, colours)):
            sheet.paste(tile, (_GAP + column * (TILE + _GAP), top))
        _labels(draw, cohort, lesion, study, colours, (width - _TEXT, top))
    sheet.save(path, format="PNG", optimize=True)
    return [lesion.lesion_id for lesion in chosen]


def pick(cohort: Cohort, each: int = 2) -> list[CohortLesion]:
    """The first lesions of every class, classes in the cohort's order, then those set aside."""
    groups = [[x for x in cohort.lesions() if x.class_id == c] for c in cohort.file.classes]
    groups.append(cohort.lesions(OUTSIDE))
    return [lesion for group in groups for lesion in group[:each]][:_MOST_ROWS]


def _title(draw: ImageDraw.ImageDraw, cohort: Cohort) -> None:
    said = "SYNTHETIC lesions, not patients" if cohort.file.synthetic else cohort.file.licence
    text = f"{cohort.file.name} {cohort.file.version}"
    draw.text((_GAP, 10), text, _INK, _font(17))
    draw.text((_GAP + 14 + draw.textlength(text, _font(17)), 12), said, (255, 196, 70), _font(14))


def _tiles(
    cohort: Cohort, lesion: CohortLesion, study: Study, colours: dict[str, tuple[int, int, int]]
) -> list[Image.Image]:
    masks = {name: load_mask(cohort, lesion, name, study) for name in lesion.masks}
    step = max(float(study.size_mm().max()) * _CONTEXT, 24.0) / TILE
    planes = {p: _plane(v.data, study, p, step, np.nan) for p, v in study.volumes.items()}
    low, high = np.nanpercentile(np.stack(list(planes.values())), (1, 99.7))
    outlines = {name: _outline(mask, study, step) for name, mask in masks.items()}
    tiles = []
    for phase in cohort.file.phases:
        if phase not in planes:
            tiles.append(_blank())
            continue
        plane = planes[phase]
        grey = np.clip((np.nan_to_num(plane, nan=low) - low) / max(high - low, 1e-6), 0, 1) * 255
        pixels = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        pixels[np.isnan(plane)] = _BEYOND
        _draw(pixels, {colours[name]: line for name, line in outlines.items()})
        _corners(pixels, study, phase, step)
        tiles.append(Image.fromarray(pixels))
    return tiles


def _blank() -> Image.Image:
    """A phase that was not acquired."""
    tile = Image.new("RGB", (TILE, TILE), _BEYOND)
    ImageDraw.Draw(tile).text((TILE // 2, TILE // 2), "not acquired", _FAINT, _font(13), "mm")
    return tile


def _plane(
    data: NDArray, study: Study, phase: str, step: float, beyond: float
) -> NDArray[np.float64]:
    """Axial plane through the VOI's centre, [row: A to P, column: R to L], `step` mm a pixel."""
    offsets = (np.arange(TILE) - (TILE - 1) / 2) * step
    world = np.zeros((TILE, TILE, 3))  # x grows to the patient's right, y to the front
    world[..., 0], world[..., 1] = -offsets[None, :], -offsets[:, None]
    world += study.centre_mm(phase)
    index = study.volumes[phase].index(world)
    inside = (index > -0.5) & (index < np.asarray(data.shape) - 0.5)
    plane = ndimage.map_coordinates(
        data.astype(np.float64), np.moveaxis(index, -1, 0), order=1, mode="nearest"
    )
    return np.where(inside.all(axis=-1), plane, beyond)


def _outline(mask: Mask, study: Study, step: float) -> NDArray[np.bool_]:
    """The inner edge of the mask in the plane, placed relative to the VOI's centre. [TILE, TILE]"""
    cut = _plane(mask.voxels, study, mask.phase, step, 0.0) > 0.5
    return cut & ~ndimage.binary_erosion(cut)


def _draw(
    pixels: NDArray[np.uint8], outlines: dict[tuple[int, int, int], NDArray[np.bool_]]
) -> None:
    """Paint the outlines; where several run along one another they take turns as dashes."""
    if not outlines:
        return
    lines = np.stack(list(outlines.values()))
    rows, columns = np.nonzero(lines.any(axis=0))
    for row, column in zip(rows, columns, strict=True):
        here = np.flatnonzero(lines[:, row, column])
        turn = here[(row + column) // 5 % len(here)]
        pixels[row, column] = list(outlines)[turn]


def _corners(pixels: NDArray[np.uint8], study: Study, phase: str, step: float) -> None:
    """Mark the corners of the VOI in the picture."""
    edges = np.abs(study.volumes[phase].affine[:3, :3] * study.boxes[phase].edges).sum(axis=1)
    half = edges[:2] / 2 / step
    for sign_x in (-1, 1):
        for sign_y in (-1, 1):
            x = int(np.clip(round((TILE - 1) / 2 + sign_x * half[0]), 0, TILE - 1))
            y = int(np.clip(round((TILE - 1) / 2 + sign_y * half[1]), 0, TILE - 1))
            across = slice(min(x, x - 7 * sign_x), max(x, x - 7 * sign_x) + 1)
            down = slice(min(y, y - 7 * sign_y), max(y, y - 7 * sign_y) + 1)
            pixels[y, across] = pixels[down, x] = (255, 196, 70)


def _labels(
    draw: ImageDraw.ImageDraw,
    cohort: Cohort,
    lesion: CohortLesion,
    study: Study,
    colours: dict[str, tuple[int, int, int]],
    corner: tuple[int, int],
) -> None:
    left, top = corner
    size = " x ".join(f"{v:.0f}" for v in study.size_mm())
    split = cohort.split_of(lesion.lesion_id)
    draw.text((left, top), lesion.class_id.replace("_", " "), _INK, _font(17))
    draw.text((left, top + 24), f"{lesion.lesion_id} · {split} · {size} mm", _FAINT, _font(13))
    lines = [(name, "") for name, status in lesion.features.items() if status == "present"]
    lines += [(name, " (ignore)") for name, status in lesion.features.items() if status == "ignore"]
    if "lesion" in lesion.masks:
        lines.insert(0, ("lesion", " outline"))
    for line, (name, note) in enumerate(lines[:8]):
        y = top + 48 + 18 * line
        if name in lesion.masks:
            draw.rectangle((left, y + 3, left + 10, y + 13), fill=colours[name])
        draw.text((left + 18, y), name.replace("_", " ") + note, _INK, _font(13))
    if not lesion.features:
        draw.text((left, top + 48 + 18 * len(lines)), "features not assessed", _FAINT, _font(13))


def _colours(cohort: Cohort) -> dict[str, tuple[int, int, int]]:
    """A colour a feature, hues spread by the golden ratio; the lesion is white."""
    palette = {"lesion": _LESION}
    for i, feature in enumerate(cohort.file.features):
        red, green, blue = colorsys.hsv_to_rgb((0.02 + i * 0.618034) % 1.0, 0.8, 1.0)
        palette[feature] = (round(red * 255), round(green * 255), round(blue * 255))
    return palette


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
