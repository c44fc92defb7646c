"""From a classifier's graphs to a bundle: everything that comes after the fit.

    activations -> measurements -> calibrate -> probes -> pairs -> review -> evaluation -> trust
    -> bundle

The same for a network that was trained here and for one that was adopted. Training lesions fit
probes and the out-of-distribution score; validation lesions choose (temperature, taps, probe kind,
threshold); test lesions are looked at once, at the end, and choose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.parts import BundleParts
from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.bundle.write import write_bundle
from models.cnn.data import SplitArrays
from models.cohort.format import Cohort
from models.evaluation.calibration import fit_temperature, softmax
from models.evaluation.classification import evaluate_classifier
from models.evaluation.detection import evaluate_features
from models.imaging.measurements import names
from models.probes.labelling import choose_labelled
from models.vocabulary import Vocabulary
from services.training.activations import Activations, read_activations
from services.training.detectors import Detectors, fit_detectors
from services.training.graphs import Graphs
from services.training.measurements import measure_split
from services.training.pairs import Phantom, fit_directions
from services.training.profiles import Profile
from services.training.review import fit_judges
from services.training.splits import NAMES, Splits
from services.training.stages import Stages
from services.training.tolerance import tolerate
from services.training.trust import trust_cards
from services.training.weights import weigh_classes
from wire.bundle import Manifest
from wire.explanation import TrustCard


@dataclass(frozen=True)
class Source:
    """What the lesions are. content: hash of the lesions that are used."""

    cohort: Cohort
    content: str


@dataclass(frozen=True)
class Assembled:
    """A bundle that was written and read back, and what was measured on the way."""

    bundle: Path
    manifest: Manifest
    temperature: float
    detectors: Detectors
    activations: dict[str, Activations]
    evaluation: dict[str, Any]


def assemble(
    graphs: Graphs,
    splits: Splits,
    vocabulary: Vocabulary,
    config: Profile,
    out: Path,
    *,
    name: str,
    source: Source,
    seed: int,
    stages: Stages,
    record: dict[str, Any] | None = None,
) -> Assembled:
    """Write the bundle `out` around the classifier of `graphs`; it opens as a server would open it.

    config: preprocessing, recipe, passes, labelled, probe_taps, pairs, trust, phase_dropout,
    ood_quantile and bootstraps are read; its architecture and optimisation are not. name: of the
    bundle. record: joins training.json.

    Raises BundleError for graphs that a server would refuse.
    """
    training, validation, test = splits.training, splits.validation, splits.test
    labelled = choose_labelled(training.features, config.labelled, seed)
    with stages.stage("activations", "stochastic passes of every lesion"):
        at = _activations(graphs, splits, config, labelled, stages)
        stages.result(
            f"{config.passes} passes a labelled or validation lesion, "
            f"{config.reference_passes} a reference or test lesion"
        )

    with stages.stage("measurements", "of the image, without the network"):
        phases = vocabulary.phase_ids
        measured = {
            n: measure_split(getattr(splits, n), config.preprocessing, phases) for n in NAMES
        }
        stages.result(f"{measured['training'].shape[1]} a lesion")

    with stages.stage("calibrate", "temperature on validation"):
        # On the plain view: what /v1/predictions serves.
        temperature = fit_temperature(at["validation"].logits, validation.classes)
        stages.result(f"T = {temperature:.3f}")

    with stages.stage("probes", f"{len(vocabulary.features)} features"):
        detectors = fit_detectors(
            training,
            validation,
            at["training"],
            at["validation"],
            (measured["training"], measured["validation"]),
            labelled,
            vocabulary,
            config.tap_choices(list(graphs.taps)),
            config.preprocessing,
            ood_quantile=config.ood_quantile,
            bootstraps=config.bootstraps,
            seed=seed,
        )
        macro = detectors.choices["+".join(detectors.probe_taps)]
        stages.result(
            f"{len(labelled)} labelled lesions, taps {'+'.join(detectors.probe_taps)}, "
            f"validation macro AUROC {'undefined' if macro is None else f'{macro:.3f}'}"
        )

    with stages.stage("pairs", "lesions with and without each feature"):
        directions = fit_directions(
            graphs.classifier,
            training,
            at["training"],
            labelled,
            vocabulary,
            config.preprocessing,
            phantom=Phantom.of(source.cohort),
            per_feature=config.pairs,
            seed=seed,
            progress=stages.step,
        )
        stages.result(
            f"{directions.counts.sum()} pairs by {directions.origin}" if directions else "none"
        )

    with stages.stage("review", "when a person should look again"):
        judges = fit_judges(
            graphs.classifier,
            training,
            validation,
            at["validation"],
            (measured["training"], measured["validation"]),
            names(tuple(phases)),
            labelled,
            detectors,
            vocabulary,
            temperature,
            config.preprocessing,
            bootstraps=config.bootstraps,
            seed=seed,
        )
        found = judges.quality["probes"].auroc
        stages.result(
            "wrong answers told from right ones on validation with AUROC "
            f"{'undefined' if found is None else f'{found:.3f}'}"
        )

    with stages.stage("evaluation", "the test split, once"):
        evaluation: dict[str, Any] = {}
        for split_name, split in (("validation", validation), ("test", test)):
            evaluation |= _evaluate(
                at[split_name],
                measured[split_name],
                split,
                split_name,
                detectors,
                vocabulary,
                temperature,
                config,
                seed,
            )
        evaluation["parity"] = {
            "split": "validation",
            "n": graphs.n_compared,
            **rounded(graphs.figures),
        }
        if directions is not None:
            seen = detectors.evidence.join(at["validation"].averaged, measured["validation"])
            evaluation["relevance"] = {
                "split": "validation",
                "form": "activation_removal",
                "classes": weigh_classes(
                    graphs.gradients,
                    validation,
                    at["validation"],
                    directions,
                    detectors.probes.found(seen),
                    vocabulary,
                    config.preprocessing,
                    draws=config.bootstraps,
                    seed=seed,
                ),
            }
        evaluation["probe_taps"] = {"split": "validation", "macro_auroc": detectors.choices}
        held = evaluation["classifier"]
        stages.result(
            f"test accuracy {held['accuracy']:.3f} (95 % {held['ci'][0]:.3f} to "
            f"{held['ci'][1]:.3f}, n = {held['n']}), calibration error {held['ece']:.3f}"
        )

    if optional := config.optional_phases(vocabulary.phase_ids):
        with stages.stage("tolerance", f"without {', '.join(optional)}"):
            ood, evaluation["classifier_missing"] = tolerate(
                graphs.classifier,
                splits,
                vocabulary,
                config,
                detectors.ood,
                temperature,
                seed,
                stages.step,
            )
            detectors = replace(detectors, ood=ood)
            stages.result(
                "; ".join(
                    f"without {name.replace('+', ' and ')}: test accuracy {f['accuracy']:.3f}"
                    for name, f in evaluation["classifier_missing"].items()
                )
            )

    parts = BundleParts(
        name=name,
        architecture=graphs.architecture,
        trained_on=source.cohort.file.name,
        synthetic=source.cohort.file.synthetic,
        vocabulary=vocabulary,
        taps=graphs.taps,
        probe_taps=detectors.probe_taps,
        measurements=list(detectors.evidence.measurements),
        preprocessing=config.preprocessing,
        recipe=config.recipe,
        temperature=temperature,
        classifier=graphs.classifier,
        gradients=graphs.gradients,
        probes=detectors.probes,
        reference=detectors.reference,
        ood=detectors.ood,
        parity=graphs.parity,
        training=_record(splits, source, seed, labelled) | (record or {}),
        evaluation=evaluation,
        directions=directions,
        judges=judges,
        optional_phases=config.optional_phases(vocabulary.phase_ids),
        modality=source.cohort.file.modality,
        origin=graphs.origin,
    )
    with stages.stage("trust", "how far maps can be trusted"):
        trust: list[TrustCard] = []
        if config.trust:
            trust = _trust(parts, validation, source.cohort, out.parent, seed, stages)
        passed = [f"{c.method} ({c.kind})" for c in trust if c.passed]
        stages.result(f"passed: {', '.join(passed) or 'none'}" if trust else "not measured")

    with stages.stage("bundle", "writing and reading back"):
        manifest = write_bundle(out, replace(parts, trust=trust))
        load_model(out)  # refuses what a server would refuse
        stages.result(manifest.hash)
    return Assembled(out, manifest, temperature, detectors, at, evaluation)


def _trust(
    parts: BundleParts,
    validation: SplitArrays,
    cohort: Cohort,
    folder: Path,
    seed: int,
    stages: Stages,
) -> list[TrustCard]:
    """Maps are measured as a server would draw them: from a bundle, written aside for that."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as aside:
        write_bundle(Path(aside) / "bundle", parts)
        bundle = read_bundle(Path(aside) / "bundle")
        model = load_model(bundle)

        def tick(fraction: float) -> None:
            stages.step(round(100 * fraction), 100)

        return trust_cards(bundle, model, validation, cohort=cohort, seed=seed, tick=tick)


def _activations(
    graphs: Graphs,
    splits: Splits,
    config: Profile,
    labelled: NDArray[np.int64],
    stages: Stages,
) -> dict[str, Activations]:
    passes = np.full(len(splits.training), config.reference_passes)
    passes[labelled] = config.passes
    counts: Sequence[NDArray[np.int64] | int] = (passes, config.passes, config.reference_passes)
    parts: list[SplitArrays] = [getattr(splits, n) for n in NAMES]
    total, before, result = sum(len(p) for p in parts), 0, {}
    for name, split, count in zip(NAMES, parts, counts, strict=True):

        def step(i: int, _: int, before: int = before) -> None:
            stages.step(before + i, total)

        result[name] = read_activations(
            graphs.classifier,
            split,
            list(graphs.taps),
            config.preprocessing,
            config.recipe,
            count,
            progress=step,
        )
        before += len(split)
    return result


def _evaluate(
    at: Activations,
    measured: NDArray[np.float32],
    split: SplitArrays,
    name: str,
    detectors: Detectors,
    vocabulary: Vocabulary,
    temperature: float,
    config: Profile,
    seed: int,
) -> dict[str, Any]:
    suffix = "" if name == "test" else f"_{name}"
    h = detectors.evidence.join(at.averaged, measured)
    return {
        f"classifier{suffix}": evaluate_classifier(
            softmax(at.logits / temperature),
            split.classes,
            vocabulary.class_ids,
            split=name,
            draws=config.bootstraps,
            seed=seed,
        ),
        f"features{suffix}": evaluate_features(
            detectors.probes.probabilities(h),
            detectors.probes.found(h),
            split.features,
            vocabulary.feature_ids,
            split=name,
            draws=config.bootstraps,
            seed=seed,
        ),
    }


def _record(
    splits: Splits, source: Source, seed: int, labelled: NDArray[np.int64]
) -> dict[str, Any]:
    """training.json. It holds no times, so the same run gives the same bundle."""
    return {
        "seed": seed,
        "cohort": source.content,
        "n_train": len(splits.training),
        "n_validation": len(splits.validation),
        "n_test": len(splits.test),
        "n_labelled": len(labelled),
        "labelled_lesions": [splits.training.ids[i] for i in labelled],
    }


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Four significant digits: what a record needs."""
    return {k: float(f"{v:.4g}") for k, v in figures.items()}
