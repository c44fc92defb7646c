"""The model store: bundles in it are found by name without bentoml, and promoted when verified."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.bundle.write import write_bundle
from models.errors import BundleError, LensError
from services.common import promotion
from services.common.bundles import Bundles
from services.common.settings import Settings
from services.common.store import LATEST, PRODUCTION, find, register, resolve, stored
from tests.models.bundle import tiny_onnx


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small bundles of different weights."""
    base = tmp_path_factory.mktemp("bundles")
    for i in range(2):
        write_bundle(base / str(i), tiny_onnx.parts(i, name=f"tiny-{i}"))
    return [base / "0", base / "1"]


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def hash_of(folder: Path, site: Settings) -> str:
    return register(folder, site).removeprefix("lesionlens:")


def test_names_become_folders(folders: list[Path], site: Settings) -> None:
    with pytest.raises(BundleError) as empty:
        resolve(None, site)
    assert "lesionlens train" in empty.value.line
    with pytest.raises(BundleError) as nothing:
        resolve(PRODUCTION, site)
    assert "bundle promote" in nothing.value.line
    assert not site.home.joinpath("ledger.sqlite").exists()  # asking makes no ledger

    first, second = (hash_of(folder, site) for folder in folders)
    assert hash_of(folders[0], site) == first  # a second time changes nothing
    assert {one.hash for one in stored(site)} == {first, second}
    assert resolve(LATEST, site) == resolve(None, site) == site.models / second
    assert resolve(f"lesionlens:{first}", site) == find(first, site) == site.models / first
    assert promotion.promote(first, site, "ann") == (first, True)
    assert resolve(PRODUCTION, site) == resolve(None, site) == site.models / first
    assert resolve(LATEST, site) == site.models / second
    chosen = site.model_copy(update={"bundle": LATEST})
    assert resolve(None, chosen) == site.models / second  # what is chosen wins


@pytest.mark.parametrize("name", ["lesionlens:../../etc", "lesionlens:b-00", "other:x", "x:y:z"])
def test_other_names_are_refused(site: Settings, name: str) -> None:
    with pytest.raises(BundleError) as refused:
        resolve(name, site)
    assert refused.value.code == "bundle_missing"


def test_a_copy_that_was_cut_off_is_made_again(folders: list[Path], site: Settings) -> None:
    name = hash_of(folders[0], site)
    (site.models / name / "probes.json").unlink()
    assert hash_of(folders[0], site) == name
    assert Bundles(site).of(name).hash == name


def test_only_a_sound_bundle_is_promoted(folders: list[Path], site: Settings) -> None:
    first, second = (hash_of(folder, site) for folder in folders)
    promotion.promote(first, site, "ann")
    file = site.models / second / "classifier.onnx"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(BundleError) as refused:
        promotion.promote(second, site, "ann")
    assert refused.value.code == "bundle_checksum"
    with promotion.opened(site) as registry:
        assert [e.production for e in registry.history()] == [first]


def test_a_rollback_to_a_damaged_bundle_is_refused(folders: list[Path], site: Settings) -> None:
    first, second = (hash_of(folder, site) for folder in folders)
    promotion.promote(first, site, "ann")
    promotion.promote(second, site, "ann")
    (site.models / first / "vocabulary.json").unlink()
    with pytest.raises(BundleError) as refused:
        promotion.rollback(site, "ann")
    assert refused.value.code == "bundle_file_missing"
    with promotion.opened(site) as registry:
        assert registry.production() == second


def test_a_person_may_name_a_bundle_in_many_ways(folders: list[Path], site: Settings) -> None:
    name = promotion.named(str(folders[0]), site)  # a folder is registered
    for way in (name, name[:6], f"lesionlens:{name}", f"lesionlens:{name[:8]}", LATEST):
        assert promotion.named(way, site) == name
    for way in ("b-", "b-zz", "lesionlens:b-"):
        with pytest.raises(LensError):
            promotion.named(way, site)


def test_bundles_are_opened_by_hash_once(folders: list[Path], site: Settings) -> None:
    first, second = (hash_of(folder, site) for folder in folders)
    bundles = Bundles(site, keep=1)
    opened = bundles.of(first)
    assert bundles.of(first) is opened
    assert bundles.of(second).hash == second
    assert bundles.of(first) is not opened  # fell out of what is kept, and is read again
    (site.models / first).rename(site.models / "b-00000000000000000000")
    with pytest.raises(BundleError) as refused:
        bundles.of("b-00000000000000000000")
    assert refused.value.found == first


def test_a_given_folder_is_found_by_its_hash_too(folders: list[Path], site: Settings) -> None:
    bundles = Bundles(site.model_copy(update={"bundle": str(folders[1])}), keep=1)
    served = bundles.served()
    bundles.of(hash_of(folders[0], site))
    assert bundles.of(served.hash).path == folders[1]
    assert not bundles.follows
    with pytest.raises(BundleError):
        Bundles(site).served()


_READ = """
import sys
sys.modules["bentoml"] = sys.modules["torch"] = None
from services.common.bundles import Bundles
from services.common.configured import read_settings
settings = read_settings(home={home!r}, bundle="lesionlens:production")
assert Bundles(settings).served().hash == {name!r}
"""


def test_a_worker_reads_the_store_without_bentoml(folders: list[Path], site: Settings) -> None:
    name = hash_of(folders[0], site)
    promotion.promote(name, site, "ann")
    code = _READ.format(home=str(site.home), name=name)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
