"""The network that does nothing is a bundle like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.codec import example, measure
from benchmarks.cold import package_ms
from benchmarks.networks import facts, given, null
from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from services.common.settings import Settings


def test_null_passes_every_check_and_ignores_its_input(tiny_bundle: Path, tmp_path: Path) -> None:
    source = read_bundle(tiny_bundle)
    network = null(source, tmp_path)
    assert network.x.nbytes == 196_608
    model = load_model(network.bundle)  # checksums, shapes, parity
    assert network.bundle.hash != source.hash
    scores = model.forward(network.x, ["scores"])["scores"]
    classes = len(source.manifest.classes)
    np.testing.assert_allclose(scores, np.full((len(network.x), classes), 1 / classes), rtol=1e-6)
    np.testing.assert_array_equal(scores, model.forward(0 * network.x, ["scores"])["scores"])
    assert facts(network)["payload_bytes"] == 196_608


def test_the_payload_is_the_same_every_time(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert given(bundle).x.shape == (1, *bundle.info.input_shape)
    np.testing.assert_array_equal(given(bundle).x, given(bundle).x)


def test_every_format_gives_the_numbers_that_went_in(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8, 8)).astype(np.float32)
    found = measure(x, example(bundle.manifest.phases), Settings(), rounds=1)
    formats = found["formats"]
    assert {"oip_json", "oip_binary", "nii", "nii_gz", "npy", "json"} <= set(formats)
    assert not set(formats) & set(found["not_read"])
    coarse = {"oip_fp16": 4e-3, "oip_uint8": float(np.abs(x).max()) / 127}
    for name, row in formats.items():
        assert row["max_error"] <= coarse.get(name, 0.0), name
        assert row["cpu_ms"]["median"] > 0
    assert formats["oip_binary"]["bytes"] < formats["oip_json"]["bytes"]
    assert formats["nii_gz"]["bytes"] < formats["nii"]["bytes"]


def test_import_times_are_summed_by_package() -> None:
    lines = [
        "import time: self [us] | cumulative | imported package",
        "import time:      1500 |       2500 |   numpy.linalg",
        "import time:       500 |       4500 | numpy",
        "import time:       250 |        250 |       json",
        "INFO not an import",
    ]
    assert package_ms(lines) == pytest.approx({"numpy": 2.0, "json": 0.25})
