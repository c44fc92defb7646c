"""The Python of docs/http.md runs as it stands, but for the address and the working folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from models.cohort.format import read_cohort
from services.cli.stack import Stack

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/http.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_example(block: int, stack: Stack, tiny_cohort: Path, tmp_path: Path) -> None:
    cohort = read_cohort(tiny_cohort)
    entry = cohort.lesions("test")[0]
    for phase, path in entry.image.items():
        shutil.copy(cohort.root / path, tmp_path / f"{phase}.nii.gz")
    code = BLOCKS[block].replace("127.0.0.1:3000", urlsplit(stack.url).netloc)
    code = code.replace("127.0.0.1:3001", str(stack.grpc))
    corners = entry.voi["arterial"]
    code = code.replace("20,18,8,52,50,20", ",".join(str(v) for c in corners for v in c))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
