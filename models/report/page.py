"""The report: one self-contained HTML file that a radiologist reads. No script, no external URL."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL.Image import Image

from models.reasons.words import join_words, percent
from models.report import bars, pictures
from models.voi import Lesion
from wire.explanation import Explanation, SaliencyMap

# Below these, a colour scale would make noise look like a finding: logits, log-odds a voxel.
CLASS_FLOOR = 1e-4
FEATURE_FLOOR = 1e-5
SMALL = 240
# What zero, the baseline of integrated gradients, looks like (models.voi.Preprocessing).
_BASELINES = {
    "parenchyma": "plain parenchyma",
    "zscore": "the mean intensity of each phase",
    "minmax": "the darkest voxel of each phase",
    "percentile": "the dark end of each phase’s window",
}


def render(document: Explanation, lesion: Lesion, maps: Mapping[str, NDArray]) -> str:
    """The page as one string, UTF-8. maps: name -> [P, K, K, K] as the document lists them."""
    labels = {c.id: c.label for c in document.prediction.probabilities}
    shades = pictures.window(lesion)
    base = int(document.provenance.preprocessing["base_voxels"])
    greys = [
        None if phase in lesion.missing else pictures.grey(lesion, p, shades)
        for p, phase in enumerate(lesion.phases)
    ]
    small = [g and g.resize((SMALL, SMALL)) for g in greys]
    class_map = next((m for m in document.maps if m.target == document.prediction.class_id), None)
    features = {f.id: f for f in document.features}
    half_width = bars.reach(document.features)
    return _template().render(
        d=document,
        phases=[phase_label(p) for p in lesion.phases],
        plain=[g and pictures.data_uri(g) for g in greys],
        class_map=_drawn(class_map, maps, greys, base, CLASS_FLOOR) if class_map else None,
        feature_maps=[
            {
                "label": features[m.target].label,
                **_drawn(m, maps, small, base, FEATURE_FLOOR),
            }
            for m in document.maps
            if m.target in features
        ],
        box=_box(lesion),
        bar=_scale_bar(lesion),
        reach=half_width,
        bars={f.id: bars.influence_bar(f, half_width) for f in document.features},
        baseline=_BASELINES[str(document.provenance.preprocessing.get("intensity", "parenchyma"))],
        size=" × ".join(f"{edge:.0f}" for edge in document.lesion.size_mm),
        short={c: short(label) for c, label in labels.items()},
        names={f.id: f.label for f in document.features},
        by_id=features,
        found_count=sum(f.found for f in document.features),
        quality_from=join_words(sorted({f.quality.split for f in document.features})),
    )


def phase_label(phase: str) -> str:
    return phase.replace("_", " ")


def short(label: str) -> str:
    """'HCC' of 'hepatocellular carcinoma (HCC)'; a label without an abbreviation stays."""
    match = re.search(r"\(([^()]+)\)\s*$", label)
    return match.group(1) if match else label


def capital(text: str) -> str:
    """First letter upper case, the rest as it is: 'focal nodular hyperplasia (FNH)' keeps FNH."""
    return text[:1].upper() + text[1:]


def _drawn(
    entry: SaliencyMap,
    maps: Mapping[str, NDArray],
    greys: Sequence[Image | None],
    base: int,
    floor: float,
) -> dict[str, Any]:
    """greys: a picture a phase, None for one that was not acquired."""
    heat = np.asarray(maps[entry.name])
    end = pictures.scale(heat, floor)
    return {
        "entry": entry,
        "end": end,
        "images": [
            g and pictures.data_uri(pictures.overlay(g, h, end, base))
            for g, h in zip(greys, heat, strict=True)
        ],
        "shares": [percent(s) for s in entry.share_by_phase.values()],
    }


def _box(lesion: Lesion) -> dict[str, float]:
    """The VOI on the axial picture, in percent of its edge."""
    fov = lesion.mm_per_voxel * lesion.voxels.shape[1]
    width, height = (100 * min(edge / fov, 1.0) for edge in lesion.size_mm[:2])
    return {"left": 50 - width / 2, "top": 50 - height / 2, "width": width, "height": height}


def _scale_bar(lesion: Lesion) -> dict[str, float]:
    """A round length near a quarter of the picture, and its width in percent."""
    fov = lesion.mm_per_voxel * lesion.voxels.shape[1]
    length = max((mm for mm in (5, 10, 20, 50, 100) if mm <= 0.35 * fov), default=5)
    return {"mm": length, "width": 100 * length / fov}


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["signed"] = bars.signed
    environment.filters["capital"] = capital
    return environment.get_template("page.html.j2")
