"""One run of the repeated experiment: a network from scratch, fresh labels, three detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.cnn.export import export_classifier
from models.probes.labelling import choose_labelled
from models.probes.published.marginal import draw_marginal
from models.trial.published import (
    MARGINAL_DRAWS,
    MARGINAL_PASSES,
    SCAR_CLASS,
    detect_gaussian,
    detect_rodeo,
    scar_size,
)
from models.trial.reproduce import Answer, Run
from models.vocabulary import Vocabulary
from services.training.activations import Activations, read_activations
from services.training.detectors import fit_detectors
from services.training.hardware import Hardware
from services.training.measurements import measure_split
from services.training.pipeline import fit_members, joined
from services.training.profiles import Profile
from services.training.splits import Splits
from services.training.stages import Progress, Stages

OURS = "default"


@dataclass(frozen=True)
class Sizes:
    """Passes of a labelled and of a test lesion, as in Wang 2019, and of a test lesion in SPIE."""

    labelled: int = 100
    test: int = 100
    spie: int = 30
    unlabelled: int = MARGINAL_PASSES
    draws: int = MARGINAL_DRAWS


def rerun(
    splits: Splits,
    vocabulary: Vocabulary,
    config: Profile,
    folder: Path,
    seed: int,
    content: str,
    sizes: Sizes,
    progress: Progress | None = None,
) -> tuple[Run, dict[str, float]]:
    """Train with `seed`, label with `seed`, detect; continue a training that was stopped.

    content: hash of what the splits hold. Returns the answers on the test lesions and seconds by
    stage. Raises as services.training.fit.
    """
    stages = Stages(progress)
    training, validation, test = splits.training, splits.validation, splits.test
    fitted = fit_members(
        splits, config, content, folder, len(vocabulary.classes), seed, None, True, False,
        Hardware(), stages,
    )  # fmt: skip
    network = joined([f.network for f in fitted])
    with stages.stage("activations", "stochastic passes of every lesion"):
        graph = folder / "classifier.onnx"
        export_classifier(network, graph, config.preprocessing.tensor_voxels)
        labelled = choose_labelled(training.features, config.labelled, seed)
        counts = np.full(len(training), sizes.unlabelled)
        counts[labelled] = sizes.labelled
        at: dict[str, Activations] = {}
        for name, split, passes in (
            ("training", training, counts),
            ("validation", validation, config.passes),
            ("test", test, sizes.test),
        ):
            at[name] = read_activations(
                graph, split, list(network.taps), config.preprocessing, config.recipe, passes,
                threads=1, progress=stages.step,
            )  # fmt: skip
        graph.unlink()
    with stages.stage("detectors", f"{len(labelled)} labelled lesions"):
        phases = vocabulary.phase_ids
        measured = {
            n: measure_split(s, config.preprocessing, phases, threads=1)
            for n, s in (("training", training), ("validation", validation), ("test", test))
        }
        ours = fit_detectors(
            training, validation, at["training"], at["validation"],
            (measured["training"], measured["validation"]), labelled, vocabulary,
            config.tap_choices(list(network.taps)), config.preprocessing,
            ood_quantile=config.ood_quantile, bootstraps=50, seed=seed,
        )  # fmt: skip
        h = ours.evidence.join(at["test"].averaged, measured["test"])
        p, found = ours.probes.probabilities(h), ours.probes.found(h)
        answers = {OURS: Answer(p, found, _first(p, found))}
        answers |= _published(splits, labelled, at, vocabulary, sizes, seed)
    predicted = at["test"].logits.argmax(axis=1).astype(np.int64)
    return Run(predicted, answers), stages.seconds


def _published(
    splits: Splits,
    labelled: NDArray[np.int64],
    at: dict[str, Activations],
    vocabulary: Vocabulary,
    sizes: Sizes,
    seed: int,
) -> dict[str, Answer]:
    training, test = splits.training, splits.test
    tap = list(at["training"].passes)[-1]
    each = at["training"].passes[tap]
    own = np.stack([each[i] for i in labelled])
    others = np.stack([rows[: sizes.unlabelled] for rows in each])
    seen = np.stack(at["test"].passes[tap])
    labels = np.asarray(training.features[labelled], dtype=np.float64)
    names: Sequence[str] = vocabulary.class_ids
    scar = names.index(SCAR_CLASS) if SCAR_CLASS in names else -1
    gaussian = detect_gaussian(
        own, labels, others.reshape(-1, others.shape[2]), seen, vocabulary.feature_ids,
        test.sizes_mm, scar_size(training.sizes_mm[training.classes == scar]),
    )  # fmt: skip
    rodeo = detect_rodeo(
        own, labels, training.classes[labelled],
        draw_marginal(others, training.classes, sizes.draws, seed), seen[:, : sizes.spie],
    )  # fmt: skip
    return {
        "wang2019_gaussian": Answer(gaussian.scores, gaussian.found, gaussian.first),
        "spie_rodeo": Answer(rodeo.scores, rodeo.found, rodeo.first),
    }


def _first(p: NDArray[np.float64], found: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The most probable of the features found, -1 where none is."""
    best = np.where(found, p, -1.0).argmax(axis=1)
    return np.where(found.any(axis=1), best, -1).astype(np.int64)
