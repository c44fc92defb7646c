"""Write docs/performance.md and its figures: python -m benchmarks.report [--data build/bench]"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from benchmarks.report.page import page
from benchmarks.report.records import NAMES, read_records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/bench"))
    parser.add_argument("--out", type=Path, default=Path("docs/performance.md"))
    options = parser.parse_args()
    write(options.data, options.out)
    print(options.out)


def write(data: Path, out: Path) -> None:
    """The page `out`, and its figures in images/performance beside it. Raises ValueError."""
    records = read_records(data)
    folder = out.parent / "images" / out.stem
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for name in NAMES:
        figure = data / f"{name}.png"
        if name in records and figure.is_file():
            shutil.copyfile(figure, folder / figure.name)
            images[name] = os.path.relpath(folder / figure.name, out.parent)
    out.write_text(page(records, images), "utf-8")


if __name__ == "__main__":
    main()
