"""Where the parts of an evaluation leave what is too large for JSON, and how to open it again.

<out>/cohort-<digest>/             the synthetic cohort
<out>/arrays-<digest>/             its lesions as the network sees them
<out>/fits/<part>-<digest>/        checkpoints, curves; a bundle and, for 'default', its samples
<out>/truth-<digest>/              lesions rendered without each of their features
<out>/stress-<digest>/<cohort>/    stress cohorts through the networks that they are for
<out>/maps-<digest>/               pictures of the gallery
<out>/parts/<part>.json            digest, seconds and figures of a finished part
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle, read_bundle
from models.cohort.format import Cohort, read_cohort
from models.trial.data import Sample
from models.trial.subsets import nested
from services.cli.eval_plan import Keys, Plan
from services.training.splits import Splits
from services.training.stages import Report

# note, fraction of the part where it is known
Tell = Callable[[str, float | None], None]

_FOLDERS = ("truth", "stress", "arrays", "maps")


@dataclass(frozen=True)
class Place:
    """One evaluation on disk: out/ as `keys` name its folders."""

    out: Path
    plan: Plan
    keys: Keys

    def folder(self, part: str) -> Path:
        """The part's folder, which may not be there yet."""
        if part == "cohort":
            return self.out / f"cohort-{self.keys.data}"
        if part in _FOLDERS:
            return self.out / f"{part}-{self.keys.parts[part]}"
        return self.out / "fits" / f"{part}-{self.keys.fits[part]}"

    def has(self, part: str) -> bool:
        """Whether the folders of a part that leaves some are there."""
        if part == "default" or part.startswith("net-"):
            return (self.folder(part) / "bundle").is_dir()
        if part == "cohort" or part in _FOLDERS:
            return self.folder(part).is_dir()
        return True

    def cohort(self) -> Cohort:
        return read_cohort(self.folder("cohort"))

    def splits(self, size: int) -> Splits:
        """The arrays, with `size` lesions of the training pool."""
        from services.training.trial import open_arrays, subset

        return subset(open_arrays(self.folder("arrays")), self._rows(size))

    def patients(self, split: str) -> list[str]:
        """Of 'validation', 'test', or 'training': those of the main size."""
        owners = [entry.patient_id for entry in self.cohort().lesions(split)]
        if split == "training":
            return [owners[i] for i in self._rows(self.plan.main)]
        return owners

    def _rows(self, size: int) -> NDArray[np.int64]:
        owners = [entry.patient_id for entry in self.cohort().lesions("training")]
        return nested(owners, sorted({*self.plan.sizes, self.plan.main}), self.plan.seed)[size]

    def bundle(self, part: str = "default") -> Bundle:
        return read_bundle(self.folder(part) / "bundle")

    def sample(self, split: str, part: str = "default") -> Sample:
        """A split through the part's network, as the part read it."""
        return Sample.open(self.folder(part) / "samples" / split)


def notes(tell: Tell) -> Callable[[Report], None]:
    """A training's reports, said by a part."""

    def hear(report: Report) -> None:
        if report.note:
            tell(f"{report.stage}: {report.note}", report.fraction)

    return hear


def counted(tell: Tell, what: str) -> Callable[[int, int], None]:
    """progress(done, total), said by a part."""

    def step(done: int, total: int) -> None:
        tell(f"{what} {done} of {total}", done / max(total, 1))

    return step
