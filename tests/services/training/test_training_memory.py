"""Freed memory is kept: a second large array of the same size needs no new page."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# In a process of its own: the setting lasts as long as its process.
SCRIPT = """
import resource
from services.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 80_000_000  # above any threshold that the library adapts by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
usual = faults()
assert keep_freed_memory()
faults()
print(usual, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_pages_are_used_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    usual, kept = map(int, done.stdout.split())
    assert usual > 1000
    assert kept < usual / 10
