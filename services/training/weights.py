"""What each feature weighs in the verdicts of each class, over validation lesions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cnn.data import SplitArrays
from models.cnn.export import open_session
from models.relevance.by_class import class_relevance
from models.relevance.directions import Directions
from models.vocabulary import Vocabulary
from models.voi import Preprocessing, centre
from services.training.activations import Activations


def weigh_classes(
    gradients: Path,
    split: SplitArrays,
    at: Activations,
    directions: Directions,
    found: NDArray[np.bool_],
    vocabulary: Vocabulary,
    spec: Preprocessing,
    *,
    draws: int,
    seed: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Removal in activations of the features `found` [n, F], as models.relevance.by_class has it.

    gradients: the ONNX graph. at: of the split; plain views are read.
    """
    predicted = at.logits.argmax(axis=1)
    slopes = _slopes(gradients, split, predicted, directions.target, spec)
    here = np.asarray(at.plain[directions.target], np.float64)[:, None]
    gone = directions.without(here, directions.displacement(at.plain))
    change = np.einsum("nft,nt->nf", here - gone, slopes)
    change[:, directions.counts == 0] = np.nan
    return class_relevance(
        change, predicted, found, vocabulary.class_ids, vocabulary.feature_ids,
        draws=draws, seed=seed,
    )  # fmt: skip


def _slopes(
    gradients: Path,
    split: SplitArrays,
    predicted: NDArray[np.integer],
    target: str,
    spec: Preprocessing,
) -> NDArray[np.float64]:
    """Gradient of each lesion's predicted centred logit at the target, [n, T]."""
    session = open_session(gradients)
    widths = {i.name: int(i.shape[1]) for i in session.get_inputs() if i.name != "x"}
    classes = widths["w_logits"]
    rows = []
    for base, winner in zip(split.bases, predicted, strict=True):
        feed = {name: np.zeros((1, width), np.float32) for name, width in widths.items()}
        feed["w_logits"] = (np.eye(classes, dtype=np.float32) - np.float32(1 / classes))[[winner]]
        feed["x"] = centre(base, spec)[None]
        rows.append(session.run([f"grad_{target}"], feed)[0][0])
    return np.asarray(rows, dtype=np.float64)
