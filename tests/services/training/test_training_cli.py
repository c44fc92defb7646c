"""The verbs 'train' and 'bundle', and the model store behind them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.cohort.format import read_cohort, write_cohort
from models.errors import BundleError
from services.cli.main import lesionlens
from services.common.settings import Settings
from services.common.store import resolve

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own: bentoml reads its home once, when it is imported."""
    environment = {k: v for k, v in os.environ.items() if k != "BENTOML_HOME"}
    environment |= {"LESIONLENS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def smaller_cohort(tiny_cohort: Path, tmp_path: Path) -> Path:
    """The first lesions of each split; the images are the same files."""
    folder = tmp_path / "cohort"
    shutil.copytree(tiny_cohort, folder, copy_function=os.link)
    (folder / "cohort.json").unlink()
    file = read_cohort(tiny_cohort).file
    few = {"training": 14, "validation": 6, "test": 6}
    write_cohort(folder, file.model_copy(update={k: getattr(file, k)[:n] for k, n in few.items()}))
    return folder


def test_train_registers_and_the_store_serves_it(smaller_cohort: Path, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    done = run(
        "train", "--cohort", str(smaller_cohort), "--out", str(out), "--profile", "demo",
        "--epochs", "1", "--seed", "3", home=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads((out / "train.json").read_text())
    for stage, seconds in record["stages"].items():
        assert f"{stage:<12} {seconds:7.1f} s" in done.stdout
    assert record["tag"] == f"lesionlens:{record['hash']}"

    listed = run("bundle", "list", home=home)
    assert listed.stdout.startswith(record["tag"])
    verified = run("bundle", "verify", "lesionlens:latest", home=home)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith(record["hash"])

    # The same command finds everything done and gives the same bundle.
    again = run(
        "train", "--cohort", str(smaller_cohort), "--out", str(out), "--profile", "demo",
        "--epochs", "1", "--seed", "3", "--no-store", home=home,
    )  # fmt: skip
    assert "continued from epoch 1" in again.stdout
    assert json.loads((out / "train.json").read_text())["hash"] == record["hash"]


def test_bundle_describe(tiny_bundle: Path) -> None:
    runner = CliRunner()
    text = runner.invoke(lesionlens, ["bundle", "describe", str(tiny_bundle)])
    assert text.exit_code == 0, text.output
    assert "synthetic phantoms" in text.output
    assert "washout" in text.output
    assert "not a medical device" in text.output
    card = runner.invoke(lesionlens, ["bundle", "describe", str(tiny_bundle), "--card"])
    assert card.output == (tiny_bundle / "card.md").read_text()
    manifest = runner.invoke(lesionlens, ["bundle", "describe", str(tiny_bundle), "--json"])
    assert json.loads(manifest.output) == json.loads((tiny_bundle / "manifest.json").read_text())


def test_a_changed_byte_is_refused_in_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    data = bytearray((broken / "classifier.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (broken / "classifier.onnx").write_bytes(data)
    refused = run("bundle", "verify", str(broken), home=tmp_path)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert "classifier.onnx" in refused.stderr


def test_a_broken_cohort_is_refused_without_traceback(tmp_path: Path) -> None:
    (tmp_path / "cohort.json").write_text("{}")
    refused = run("train", "--cohort", str(tmp_path), "--out", str(tmp_path / "o"), home=tmp_path)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "name" in refused.stderr


def test_resolve_takes_a_folder_without_the_store(tiny_bundle: Path) -> None:
    assert resolve(tiny_bundle) == tiny_bundle
    assert resolve(str(tiny_bundle)) == tiny_bundle
    assert resolve(None, Settings(bundle=tiny_bundle)) == tiny_bundle
    with pytest.raises(BundleError) as caught:
        resolve(tiny_bundle / "nowhere")
    assert caught.value.code == "bundle_missing"


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    assert "train" in run("bundle", "list", home=tmp_path).stdout
    refused = run("bundle", "describe", home=tmp_path)
    assert refused.returncode == 2
    assert "lesionlens train" in refused.stderr
