"""The report: self-contained, honest in its pictures, readable without seeing."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from models.bundle.read import Bundle
from models.reasons.explain import Result, explain
from models.report import bars, pictures
from models.report.page import render, short
from models.voi import Lesion
from tests.models.reasons.small_network import SmallNetwork, lesion
from wire.api import ExplanationParameters

VOID = {"meta", "img", "br", "rect", "line"}


class Page(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def result(network: SmallNetwork, small_bundle: Bundle) -> Result:
    return explain(lesion(60), small_bundle, network, ExplanationParameters(passes=4, map_steps=4))


@pytest.fixture(scope="module")
def html(result: Result) -> str:
    return render(result.document, lesion(60), result.maps)


def test_page_loads_nothing(html: str) -> None:
    assert "<script" not in html
    assert not re.search(r"https?://", html)
    assert "url(" not in html
    assert "@import" not in html
    page = Page(html)
    assert not page.all("link")
    assert all((i["src"] or "").startswith("data:image/png;base64,") for i in page.all("img"))


def test_same_document_same_page(html: str, result: Result) -> None:
    assert render(result.document, lesion(60), result.maps) == html


def test_it_says_what_it_is_once(html: str) -> None:
    assert html.count("research software, not a medical device") == 1


def test_synthetic_is_said_where_it_is_so(html: str, result: Result) -> None:
    assert "Synthetic" in html
    provenance = result.document.provenance.model_copy(update={"synthetic": False})
    real = result.document.model_copy(update={"synthetic": False, "provenance": provenance})
    assert "ynthetic" not in render(real, lesion(60), result.maps)


def test_every_picture_is_described_and_is_a_png(html: str, result: Result) -> None:
    images = Page(html).all("img")
    assert len(images) == 3 + 3 * len(result.document.maps)
    for image in images:
        assert len(image["alt"] or "") > 10
        data = base64.b64decode((image["src"] or "").partition(",")[2])
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 240


def test_headings_of_tables_are_headings(html: str) -> None:
    page = Page(html)
    assert len(page.all("h1")) == 1
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
    for bar in page.all("svg"):
        assert "logits" in (bar["aria-label"] or "")


def test_every_class_feature_and_caution_is_there(html: str, result: Result) -> None:
    document = result.document
    for label in [c.label for c in document.prediction.probabilities]:
        assert label in html
    for f in document.features:
        assert f.label in html
    assert document.cautions
    for caution in document.cautions:
        assert caution.text in html
    for s in document.similar:
        assert s.lesion_id in html
    assert document.provenance.bundle in html


def test_names_from_a_cohort_cannot_inject(result: Result) -> None:
    evil = result.document.similar[0].model_copy(update={"lesion_id": "<script>alert(1)</script>"})
    document = result.document.model_copy(update={"similar": [evil]})
    html = render(document, lesion(60), result.maps)
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_right_is_left_and_anterior_is_up() -> None:
    block = np.zeros((8, 8, 8))
    block[7, 7, 3:5] = 1  # the highest R and A index: the patient's right, anterior
    image = pictures.axial(block)
    assert image[0, 0] == 1
    assert image.sum() == 1


def made(voxels: np.ndarray) -> Lesion:
    like = lesion(1)
    return Lesion(voxels, like.phases, like.mm_per_voxel, like.size_mm, like.slices)


def test_one_window_for_all_phases() -> None:
    voxels = np.random.default_rng(0).normal(100, 1, size=(3, 32, 32, 32)).astype(np.float32)
    voxels[1] += 50
    shades = pictures.window(made(voxels))
    dark, bright = (np.asarray(pictures.grey(made(voxels), p, shades)).mean() for p in (0, 1))
    assert bright - dark > 150


def test_zero_is_transparent_and_sign_has_a_colour() -> None:
    grey = Image.fromarray(np.full((64, 64), 90, np.uint8))
    heat = np.zeros((12, 12, 12), np.float32)
    nothing = np.asarray(pictures.overlay(grey, heat, 1.0, 16))
    assert (nothing == 90).all()
    up, down = (np.asarray(pictures.overlay(grey, heat + s, 1.0, 16))[32, 32] for s in (1, -1))
    assert up[0] > 200 > up[2]
    assert down[2] > 200 > down[0]
    corner = np.asarray(pictures.overlay(grey, heat + 1, 1.0, 16))[0, 0]
    assert corner.tolist() == [90, 90, 90]  # beyond the network's field of view


def test_a_faint_map_stays_faint() -> None:
    rng = np.random.default_rng(0)
    faint = rng.normal(size=(3, 12, 12, 12)) * 1e-7
    assert pictures.scale(faint, 1e-4) == 1e-4
    grey = Image.fromarray(np.full((64, 64), 90, np.uint8))
    shown = np.asarray(pictures.overlay(grey, faint[0], 1e-4, 16), np.int64)
    assert np.abs(shown - 90).max() <= 1


def test_scale_is_shared_by_the_phases() -> None:
    maps = np.zeros((3, 12, 12, 12))
    maps[0] = 1.0
    maps[1] = 0.5
    end = pictures.scale(maps, 1e-4)
    grey = Image.fromarray(np.zeros((64, 64), np.uint8))
    strong, half = (np.asarray(pictures.overlay(grey, m, end, 16))[32, 32, 0] for m in maps[:2])
    assert half == pytest.approx(strong / 2, abs=2)


def test_bars_say_their_numbers(result: Result) -> None:
    features = result.document.features
    half = bars.reach(features)
    for f in features:
        assert abs(f.relevance.value) <= half
        assert max(map(abs, f.relevance.ci or (0.0,))) <= half
    assert bars.signed(-0.512) == "−0.51"
    assert bars.signed(-0.001) == "0.00"


def test_short_labels() -> None:
    assert short("hepatocellular carcinoma (HCC)") == "HCC"
    assert short("cyst") == "cyst"
