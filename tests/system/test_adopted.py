"""A MONAI DenseNet121 with classes of its own: adopted, served, explained over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DenseNet121
from safetensors.torch import save_file

from models.cohort.format import read_cohort
from services.cli.stack import Stack, free_ports
from services.common.settings import Settings
from tests.support.foreign import foreign_cohort, train_briefly

pytestmark = pytest.mark.system

ARGUMENTS = {"spatial_dims": 3, "in_channels": 3, "out_channels": 3}
TAPS = {f"stage{i}": f"features.transition{i}" for i in (1, 2, 3)}
FAST = ["--passes", "4", "--map-steps", "2"]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", *args],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_cohort(tiny_cohort, tmp_path_factory.mktemp("elsewhere") / "cohort")


@pytest.fixture(scope="module")
def bundle(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for a moment outside of everything that is ours, then adopted by the command line."""
    folder = tmp_path_factory.mktemp("densenet")
    torch.manual_seed(0)
    net = DenseNet121(**ARGUMENTS)
    train_briefly(net, cohort, 4)
    save_file(net.state_dict(), folder / "weights.safetensors")
    (folder / "preprocessing.json").write_text('{"tensor_voxels": 32}', "utf-8")
    run(
        "adopt", "--module", "monai.networks.nets:DenseNet121",
        "--arguments", json.dumps(ARGUMENTS), "--weights", str(folder / "weights.safetensors"),
        "--cohort", str(cohort), "--vocabulary", str(cohort / "vocabulary.json"),
        "--preprocessing", str(folder / "preprocessing.json"),
        "--taps", ",".join(f"{tap}={path}" for tap, path in TAPS.items()),
        "--passes", "2", "--reference-passes", "1", "--pairs", "2", "--no-trust", "--no-store",
        "--out", str(folder / "out"),
    )  # fmt: skip
    return folder / "out" / "bundle"


@pytest.fixture(scope="module")
def stack(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    port, redis_port = free_ports(2)
    home = tmp_path_factory.mktemp("site")
    with Stack(Settings(home=home, bundle=bundle, port=port, redis_port=redis_port)) as running:
        yield running


def test_the_bundle_verifies(bundle: Path) -> None:
    run("bundle", "verify", str(bundle))
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    assert manifest["origin"] == "adopted"
    assert manifest["taps"] == {"stage1": 128, "stage2": 256, "stage3": 512}


def test_an_explanation_job_completes_in_their_words(
    stack: Stack, bundle: Path, cohort: Path, tmp_path: Path
) -> None:
    lesion = read_cohort(cohort).lesions("test")[0].lesion_id
    source = ["explain", "--cohort", str(cohort), "--lesion", lesion, *FAST]
    run(*source, "--server", stack.url, "--out", str(tmp_path / "there"))
    document = json.loads((tmp_path / "there" / "explanation.json").read_text("utf-8"))
    names = ["arising_here", "harmless", "spread_from_elsewhere"]
    assert document["prediction"]["class_id"] in names
    assert {f["id"] for f in document["features"]} >= {"late_darkening", "thin_rim"}
    assert document["maps"]
    page = (tmp_path / "there" / "report.html").read_text("utf-8")
    assert "late darkening" in page
    # The same numbers without any server.
    run(*source, "--bundle", str(bundle), "--out", str(tmp_path / "here"))
    here, there = (tmp_path / side / "explanation.json" for side in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()
