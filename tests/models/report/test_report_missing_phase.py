"""The report of a lesion with a phase that was not acquired, and of other scales of intensity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle.read import Bundle
from models.reasons.explain import Result, explain
from models.report import pictures
from models.report.page import render
from models.voi import Lesion
from tests.models.reasons.small_network import SmallNetwork, lesion
from tests.models.report.test_report_page import Page
from wire.api import ExplanationParameters


@pytest.fixture(scope="module")
def partial() -> Lesion:
    made = lesion(60)
    voxels = made.voxels.copy()
    voxels[1] = 0
    return replace(made, voxels=voxels, missing=("portal_venous",))


@pytest.fixture(scope="module")
def result(network: SmallNetwork, small_bundle: Bundle, partial: Lesion) -> Result:
    optional = {"optional_phases": small_bundle.manifest.phases[1:]}
    bundle = replace(small_bundle, manifest=small_bundle.manifest.model_copy(update=optional))
    return explain(partial, bundle, network, ExplanationParameters(passes=4, map_steps=4))


def test_not_acquired_stands_in_place_of_every_picture(result: Result, partial: Lesion) -> None:
    page = Page(html := render(result.document, partial, result.maps))
    assert len(page.all("img")) == 2 + 2 * len(result.document.maps)
    blanks = [d for d in page.all("div") if d.get("role") == "img"]
    assert len(blanks) == 1 + len(result.document.maps)
    assert all((d["aria-label"] or "").startswith("portal venous phase") for d in blanks)
    assert all((d["aria-label"] or "").endswith(": not acquired") for d in blanks)
    assert html.count("of the evidence</figcaption>") == 2
    assert result.document.cautions[0].text in html


def test_features_that_rest_on_it_say_so(result: Result, partial: Lesion) -> None:
    html = render(result.document, partial, result.maps)
    touched = [f for f in result.document.features if f.missing_phases]
    assert 0 < len(touched) < len(result.document.features)
    blind = [f for f in touched if not f.assessable]
    assert html.count("cannot be judged: phase not acquired") == len(blind)
    assert html.count("less reliable: a phase was not acquired") == len(touched) - len(blind)
    assert "The lesion in 2 of 3 phases" in html


def test_a_missing_phase_does_not_darken_the_window(partial: Lesion) -> None:
    seen = partial.voxels[partial.acquired]
    shades = pictures.window(partial)
    assert (shades.low, shades.high) == pytest.approx(np.percentile(seen, [0.5, 99.5]))
    assert shades.low > 0


@pytest.mark.parametrize(
    ("intensity", "words"),
    [
        ("parenchyma", "plain parenchyma"),
        ("zscore", "the mean intensity of each phase"),
        ("minmax", "the darkest voxel of each phase"),
        ("percentile", "the dark end of each phase"),
    ],
)
def test_the_baseline_of_the_maps_is_named(
    result: Result, partial: Lesion, intensity: str, words: str
) -> None:
    provenance = result.document.provenance
    other = provenance.model_copy(
        update={"preprocessing": {**provenance.preprocessing, "intensity": intensity}}
    )
    html = render(result.document.model_copy(update={"provenance": other}), partial, result.maps)
    assert f"Integrated gradients against {words}" in html
