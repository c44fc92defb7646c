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

from models.reasons.review import EVEN
from models.reasons.words import join_words, percent
from models.report import bars, pictures
from models.report.phrases import FORMS, SOURCES, method_words, weight_words, words
from models.voi import Lesion
from wire.explanation import Consistency, Explanation, SaliencyMap

# Below these, a colour scale would make noise look like a finding: logits, log-odds a voxel.
CLASS_FLOOR = 1e-4
FEATURE_FLOOR = 1e-5
SMALL = 240
# Logits below which a feature speaks for nobody.
LEAST = 0.05


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
    class_map = next((m for m in document.maps if m.kind == "class"), None)
    feature_maps = [m for m in document.maps if m.kind == "feature"]
    intensity = str(document.provenance.preprocessing.get("intensity", "parenchyma"))
    found = [f for f in document.features if f.found]
    features = {f.id: f for f in document.features}
    half_width = bars.reach(document.features)
    return _template().render(
        d=document,
        phases=[phase_label(p) for p in lesion.phases],
        plain=[g and pictures.data_uri(g) for g in greys],
        class_map=_drawn(class_map, maps, lesion.phases, greys, base, CLASS_FLOOR, intensity)
        if class_map
        else None,
        feature_maps=[
            {
                "label": features[m.target].label,
                **_drawn(m, maps, lesion.phases, small, base, FEATURE_FLOOR, intensity),
            }
            for m in feature_maps
        ],
        map_how=join_words(
            sorted({method_words(m.method, m.kind, intensity) for m in feature_maps})
        ),
        box=_box(lesion),
        bar=_scale_bar(lesion),
        reach=half_width,
        bars={f.id: bars.relevance_bar(f, half_width) for f in document.features},
        size=" × ".join(f"{edge:.0f}" for edge in document.lesion.size_mm),
        short={c: short(label) for c, label in labels.items()},
        names={f.id: f.label for f in document.features},
        labels=labels,
        found_count=len(found),
        fit=_fit(document),
        even={c.source: _even(c, document.prediction.class_id) for c in document.consistency},
        sources=SOURCES,
        given_by=document.provenance.reader_source or "reader",
        weighed=found,
        forms=[form for form in FORMS if any(form in f.relevance.forms for f in found)],
        form_names=FORMS,
        default_form=found[0].relevance.form if found else "",
        shared=any(f.relevance.shapley is not None for f in found),
        weight_words=weight_words({f.relevance.form for f in found}),
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
    phases: Sequence[str],
    greys: Sequence[Image | None],
    base: int,
    floor: float,
    intensity: str,
) -> dict[str, Any]:
    """greys: a picture a phase, None for one that was not acquired."""
    heat = np.asarray(maps[entry.name])
    end = pictures.scale(heat, floor)
    return {
        "entry": entry,
        "end": end,
        "how": method_words(entry.method, entry.kind, intensity),
        "images": [
            g and pictures.data_uri(pictures.overlay(g, h, end, base))
            for g, h in zip(greys, heat, strict=True)
        ],
        "shares": [percent(entry.share_by_phase[p]) for p in phases],
    }


def _fit(document: Explanation) -> list[dict[str, Any]]:
    """A row a class, the network's order: its share by the network and by each set of features."""
    alone = [{p.id: p.probability for p in c.probabilities} for c in document.consistency]
    return [
        {"label": c.label, "shares": [c.probability, *(a[c.id] for a in alone)]}
        for c in document.prediction.probabilities
    ]


def _even(fit: Consistency, class_id: str) -> bool:
    """Do the features hardly decide between their first class and the predicted one?"""
    shares = {p.id: p.probability for p in fit.probabilities}
    return not fit.agrees and shares[class_id] > EVEN * shares[fit.class_id]


def _most(by_class: Mapping[str, float]) -> str:
    """The class that a feature speaks for most; '' where it speaks for none, or nobody knows."""
    best = max(by_class, key=lambda c: by_class[c], default="")
    return best if best and by_class[best] >= LEAST else ""


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


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
    environment.filters["words"] = words
    environment.filters["most"] = _most
    environment.filters["figure"] = _figure
    return environment.get_template("page.html.j2")
