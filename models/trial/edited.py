"""Lesions with a feature edited away in the image: what paired renderings are, without a generator.

An edit knows the box and the image alone, so these pairs can be made of any cohort's own lesions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.imaging.edits import EDITS, remove
from models.model import Model
from models.trial.data import Pairs, Sample
from models.vocabulary import Vocabulary
from models.voi import Preprocessing, centre

_BATCH = 16


def editable(
    labels: NDArray[np.floating], vocabulary: Vocabulary
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(lesion [k], feature [k]): each feature labelled present that has an edit; labels [n, F]."""
    known = np.array([f in EDITS for f in vocabulary.feature_ids], dtype=bool)
    lesion, feature = np.nonzero((np.asarray(labels) == 1) & known)
    return lesion.astype(np.int64), feature.astype(np.int64)


def edited_pairs(
    sample: Sample,
    model: Model,
    taps: Sequence[str],
    vocabulary: Vocabulary,
    spec: Preprocessing,
    which: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """Edit each (lesion, feature) of `which` and read it through the network's plain view.

    which: rows of the sample and indices of features, by default `editable(sample.labels)`. taps:
    those kept beside the logits. About 0.03 CPU-seconds a pair; deterministic. Raises InputError
    for a feature without an edit.
    """
    lesion, feature = which if which is not None else editable(sample.labels, vocabulary)
    edge, names = spec.tensor_voxels, ["logits", *taps]
    x = np.empty((len(lesion), len(vocabulary.phases), edge, edge, edge), dtype=np.float16)
    widths = [len(model.info.classes), *(model.info.taps[t] for t in taps)]
    rows = {n: np.empty((len(lesion), w), np.float32) for n, w in zip(names, widths, strict=True)}
    for start in range(0, len(lesion), _BATCH):
        part = slice(start, min(start + _BATCH, len(lesion)))
        views = np.stack(
            [
                _view(sample, int(i), vocabulary.feature_ids[f], vocabulary, spec)
                for i, f in zip(lesion[part], feature[part], strict=True)
            ]
        )
        x[part] = views
        outputs = model.forward(views, names)
        for name in names:
            rows[name][part] = outputs[name]
        if progress:
            progress(part.stop, len(lesion))
    logits = rows.pop("logits")
    return Pairs("edit", lesion, feature, logits, rows, x)


def _view(
    sample: Sample, row: int, feature: str, vocabulary: Vocabulary, spec: Preprocessing
) -> NDArray[np.float32]:
    base, size = np.asarray(sample.bases[row]), sample.sizes_mm[row]
    return centre(remove(feature, base, size, spec, vocabulary.phase_ids), spec)
