"""A cohort's split as arrays in memory, and class-balanced batches of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from monai.data import Dataset
from monai.transforms import Compose, MapTransform, Transform
from numpy.typing import NDArray
from torch.utils.data import Sampler

from models.cohort.format import Cohort
from models.cohort.load import load_lesion
from models.errors import CohortError, LensError
from models.vocabulary import Vocabulary
from models.voi import Preprocessing, normalise
from wire.cohort import CohortLesion

STATUS = {"present": 1.0, "absent": 0.0, "ignore": np.nan}


@dataclass(frozen=True)
class SplitArrays:
    """One split, in file order.

    ids, class_ids: [n]. bases: float32 [n, P, M, M, M] (models.voi.normalise). sizes_mm: float64
    [n, 3], edges of the VOI. classes: int64 [n]. features: float32 [n, F], 1 present, 0 absent, NaN
    not assessed or ignored.
    """

    ids: tuple[str, ...]
    class_ids: tuple[str, ...]
    bases: NDArray[np.float32]
    sizes_mm: NDArray[np.float64]
    classes: NDArray[np.int64]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def present(self, vocabulary: Vocabulary) -> list[list[str]]:
        """Ids of the features labelled present, a list a lesion."""
        names = vocabulary.feature_ids
        return [[names[j] for j in np.flatnonzero(row == 1)] for row in self.features]


class ReadLesion(Transform):
    """MONAI transform: a cohort entry -> {'base', 'size_mm', 'entry'}, on the canonical grid."""

    def __init__(
        self,
        cohort: Cohort,
        phases: Sequence[str],
        spec: Preprocessing,
        optional: Sequence[str] = (),
    ) -> None:
        self.cohort, self.phases, self.spec = cohort, tuple(phases), spec
        self.optional = tuple(optional)

    def __call__(self, entry: CohortLesion) -> dict[str, object]:
        lesion = load_lesion(self.cohort, entry, self.phases, self.spec, self.optional)
        return {"base": lesion, "size_mm": lesion.size_mm, "entry": entry}


class NormaliseLesiond(MapTransform):
    """MONAI dictionary transform: canonical lesions under the keys -> bases [P, M, M, M]."""

    def __init__(self, keys: Sequence[str], spec: Preprocessing) -> None:
        super().__init__(keys)
        self.spec = spec

    def __call__(self, data: dict[str, object]) -> dict[str, object]:
        return {**data, **{k: normalise(data[k], self.spec) for k in self.keys}}  # type: ignore[arg-type]


def load_split(
    cohort: Cohort,
    split: str,
    vocabulary: Vocabulary,
    spec: Preprocessing,
    *,
    optional_phases: Sequence[str] = (),
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SplitArrays:
    """Read every lesion of 'training', 'validation' or 'test'.

    optional_phases: may be missing from a lesion, whose base is then zero in that phase: for
    training with phase dropout, and for the bundles that come of it. Raises CohortError for an
    empty split and for a class or phase that the vocabulary lacks; whatever a file holds that
    cannot be used raises as models.cohort.load says.
    """
    entries = cohort.lesions(split)
    if not entries:
        raise CohortError([f"cohort: {split}: no lesions"])
    known = {c: i for i, c in enumerate(vocabulary.class_ids)}
    faults = [
        f"lesion {e.lesion_id}: class: found {e.class_id}; expected one of {', '.join(known)}"
        for e in entries
        if e.class_id not in known
    ]
    if faults:
        raise CohortError(faults)
    transform = Compose(
        [
            ReadLesion(cohort, vocabulary.phase_ids, spec, optional_phases),
            NormaliseLesiond(["base"], spec),
        ]
    )
    data = Dataset(entries, transform)
    shape = (len(entries), len(vocabulary.phases), *(spec.base_voxels,) * 3)
    bases = np.empty(shape, dtype=np.float32)
    sizes = np.empty((len(entries), 3))
    # Decompression and resampling release the interpreter lock, so threads do.
    with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
        try:
            for i, item in enumerate(pool.map(data.__getitem__, range(len(entries)))):
                bases[i], sizes[i] = item["base"], item["size_mm"]
                if progress:
                    progress(i + 1, len(entries))
        except RuntimeError as error:  # MONAI's wrapping around what a file's fault raised
            pool.shutdown(cancel_futures=True)
            if isinstance(error.__cause__, LensError):
                raise error.__cause__ from None
            raise
    return SplitArrays(
        ids=tuple(e.lesion_id for e in entries),
        class_ids=tuple(e.class_id for e in entries),
        bases=bases,
        sizes_mm=sizes,
        classes=np.array([known[e.class_id] for e in entries], dtype=np.int64),
        features=feature_matrix(entries, vocabulary),
    )


def feature_matrix(entries: Sequence[CohortLesion], vocabulary: Vocabulary) -> NDArray[np.float32]:
    """[n, F]: 1 present, 0 absent, NaN where not assessed or to be ignored."""
    out = np.full((len(entries), len(vocabulary.features)), np.nan, dtype=np.float32)
    for i, entry in enumerate(entries):
        for j, feature in enumerate(vocabulary.feature_ids):
            if feature in entry.features:
                out[i, j] = STATUS[entry.features[feature]]
    return out


class BalancedBatches(Sampler[list[int]]):
    """Batches of indices in which every class of the split stands about equally often.

    The order is a function of (seed, epoch) alone, so a resumed training sees the same batches.
    One epoch shows about as many lesions as the split holds.
    """

    def __init__(self, classes: NDArray[np.int64], batch: int, seed: int, epoch: int) -> None:
        self.classes, self.batch, self.seed, self.epoch = classes, batch, seed, epoch

    def __len__(self) -> int:
        return max(1, round(len(self.classes) / self.batch))

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        groups = [np.flatnonzero(self.classes == c) for c in np.unique(self.classes)]
        total = len(self) * self.batch
        each = -(-total // len(groups))
        queues = []
        for group in groups:
            rounds = -(-each // len(group))
            queues.append(np.concatenate([rng.permutation(group) for _ in range(rounds)])[:each])
        # Interleave: consecutive runs of len(groups) indices hold every class once.
        mixed = np.stack([row[rng.permutation(len(groups))] for row in np.stack(queues, axis=1)])
        flat = mixed.ravel()[:total]
        for start in range(0, total, self.batch):
            yield [int(i) for i in flat[start : start + self.batch]]
