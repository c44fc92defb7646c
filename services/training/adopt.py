"""Bring your own classifier: a network that was trained elsewhere, in a bundle of ours.

    open -> wrap -> load -> parity -> (assemble: activations -> measurements -> calibrate -> probes
    -> pairs -> review -> evaluation -> trust -> bundle) -> register

The network stays as it is. The cohort's training lesions fit probes and the out-of-distribution
score, its validation lesions choose, its test lesions are looked at once. Whether the network saw
any of them when it was trained is for the person to know: the figures are only as honest.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from pydantic import ValidationError
from torch import nn

from models.cohort.format import read_cohort
from models.errors import InputError
from models.graph.wrap import tap_names
from models.vocabulary import Vocabulary, read_vocabulary
from models.voi import Preprocessing, centre
from services.common.settings import Settings
from services.common.store import register
from services.training.assemble import Source, assemble
from services.training.foreign.check import check, compare
from services.training.foreign.graph import Foreign, build, open_graph
from services.training.foreign.module import errors, export_module, load_module, submodules
from services.training.foreign.running import read_onnx
from services.training.graphs import CLASSIFIER, GRADIENTS, Graphs
from services.training.profiles import Profile
from services.training.splits import load_splits
from services.training.stages import Progress, Stages
from services.training.vocabularies import vocabulary_of

PARITY_LESIONS = 32
ADOPTED = Profile(name="adopted")


@dataclass(frozen=True)
class Classifier:
    """What is adopted: an ONNX file, or a torch module by import path.

    module: 'package.module:factory'. arguments: of the factory. logits, layout: of an ONNX file, as
    services.training.foreign.graph.open_graph takes them.
    """

    model: Path | None = None
    module: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    logits: str | None = None
    layout: str | None = None

    @property
    def name(self) -> str:
        return self.model.stem if self.model else (self.module or "").partition(":")[2]


@dataclass(frozen=True)
class AdoptResult:
    """bundle: the folder; hash: its content address. tag: in the model store, or None.

    figures: how near the written graphs came to the original. stages: name -> seconds.
    """

    bundle: Path
    hash: str
    tag: str | None
    taps: dict[str, int]
    probe_taps: list[str]
    validation_accuracy: float
    test_accuracy: float
    test_ci: tuple[float, float]
    n_test: int
    temperature: float
    figures: dict[str, float]
    stages: dict[str, float] = field(default_factory=dict)


def adopt(
    classifier: Classifier,
    cohort_path: Path,
    taps: Sequence[str],
    out: Path,
    *,
    vocabulary: Path | None = None,
    classes: Sequence[str] = (),
    config: Profile = ADOPTED,
    seed: int = 0,
    progress: Progress | None = None,
    store: bool = True,
    settings: Settings | None = None,
) -> AdoptResult:
    """Write `out`/bundle around the classifier; register it.

    taps: 'name=value' or 'value' each. vocabulary: JSON; the cohort's ids described by the default
    one without. classes: the order of the network's outputs, where it is not the vocabulary's.
    config: preprocessing and what probes need; its architecture and optimisation are not read.

    Raises InputError (adopt_..., unknown_value), CohortError and BundleError (no_derivative naming
    the node, parity).
    """
    stages = Stages(progress)
    names = tap_names(taps)
    folder = out / "export"
    folder.mkdir(parents=True, exist_ok=True)
    # The network first: what does not fit is said before any lesion is read.
    with stages.stage("open", f"{classifier.name}, every value measured"):
        cohort = read_cohort(cohort_path)
        words = _vocabulary(vocabulary) if vocabulary else vocabulary_of(cohort)
        words = _ordered(words, classes)
        phases, edge = len(words.phases), config.preprocessing.tensor_voxels
        module, model = _opened(classifier, list(names.values()), phases, edge, folder)
        foreign = open_graph(
            model, phases, edge, logits=classifier.logits, layout=classifier.layout
        )
        _check_classes(foreign, words)
        stages.result(f"{len(foreign.model.graph.node)} nodes, {foreign.classes} classes")

    with stages.stage("wrap", "taps, scores and gradients"):
        widths = build(foreign, names, folder / CLASSIFIER, folder / GRADIENTS)
        stages.result(", ".join(f"{tap} {d}" for tap, d in widths.items()))

    with stages.stage("load", "reading the cohort"):
        splits = load_splits(cohort, words, config.preprocessing, stages)
        stages.result(
            f"{len(splits.training)} training, {len(splits.validation)} validation, "
            f"{len(splits.test)} test lesions" + (" (synthetic)" if cohort.file.synthetic else "")
        )

    with stages.stage("parity", "what was written against the original"):
        bases = splits.validation.bases[:PARITY_LESIONS]
        plain = np.stack([centre(base, config.preprocessing) for base in bases])
        found = compare(foreign, folder / CLASSIFIER, folder / GRADIENTS, widths, plain, seed)
        figures = dict(found.figures)
        if module is not None:
            figures |= errors(module, names, found, probabilities=foreign.probabilities)
        check(figures)
        stages.result(", ".join(f"{k} {v:.1e}" for k, v in figures.items()))

    graphs = Graphs(
        folder, classifier.name, widths, found.sample, figures, len(plain), origin="adopted"
    )
    done = assemble(
        graphs,
        splits,
        words,
        config,
        out / "bundle",
        name=f"lesionlens-{cohort.file.name}-{classifier.name}",
        source=Source(cohort, cohort.hash),
        seed=seed,
        stages=stages,
        record=_record(classifier, names, config),
    )
    tag = None
    if store:
        with stages.stage("register", "BentoML model store"):
            tag = register(out / "bundle", settings)
            stages.result(tag)
    held = done.evaluation["classifier"]
    return AdoptResult(
        bundle=done.bundle,
        hash=done.manifest.hash,
        tag=tag,
        taps=widths,
        probe_taps=done.detectors.probe_taps,
        validation_accuracy=float(done.evaluation["classifier_validation"]["accuracy"]),
        test_accuracy=float(held["accuracy"]),
        test_ci=(float(held["ci"][0]), float(held["ci"][1])),
        n_test=int(held["n"]),
        temperature=done.temperature,
        figures=figures,
        stages=stages.seconds,
    )


def list_taps(classifier: Classifier, phases: int, edge: int) -> list[Place]:
    """What can be a tap, in the network's order. phases, edge: of the tensors it will be given."""
    if classifier.model is None:
        module = _module(classifier)
        return [Place(s.path, s.kind, s.shape, None) for s in submodules(module, phases, edge)]
    model = read_onnx(classifier.model)
    foreign = open_graph(model, phases, edge, logits=classifier.logits, layout=classifier.layout)
    return [Place(v.name, v.op, v.shape, v.whole) for v in foreign.values()]


@dataclass(frozen=True)
class Place:
    """A value or submodule by name. whole: everything flows through it; None: not known."""

    name: str
    kind: str
    shape: tuple[int | None, ...]
    whole: bool | None


def read_preprocessing(path: Path) -> Preprocessing:
    """JSON of models.voi.Preprocessing, what is left out as usual. Raises InputError."""
    try:
        return Preprocessing.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, OSError, ValueError) as error:
        raise _unreadable("preprocessing", path, error) from None


def _opened(
    classifier: Classifier, taps: Sequence[str], phases: int, edge: int, folder: Path
) -> tuple[nn.Module | None, onnx.ModelProto]:
    if classifier.model is not None:
        return None, read_onnx(classifier.model)
    module = _module(classifier)
    return module, export_module(module, taps, phases, edge, folder / "module.onnx")


def _module(classifier: Classifier) -> nn.Module:
    return load_module(classifier.module or "", classifier.arguments, classifier.weights)


def _vocabulary(path: Path) -> Vocabulary:
    try:
        return read_vocabulary(path)
    except (ValidationError, OSError, ValueError) as error:
        raise _unreadable("vocabulary", path, error) from None


def _unreadable(field: str, path: Path, error: Exception) -> InputError:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = f"{where}: {first['msg']}" if where else first["msg"]
    else:
        text = type(error).__name__
    return InputError(f"{path.name} cannot be read: {text}", code=f"adopt_{field}", field=field)


def _ordered(words: Vocabulary, classes: Sequence[str]) -> Vocabulary:
    """The vocabulary with its classes in the order of the network's outputs."""
    if not classes:
        return words
    if sorted(classes) != sorted(words.class_ids):
        raise InputError(
            "not the vocabulary's classes", code="adopt_classes", field="classes",
            found=", ".join(classes), expected="in any order " + ", ".join(words.class_ids),
        )  # fmt: skip
    return words.model_copy(update={"classes": [words.lesion_class(c) for c in classes]})


def _check_classes(foreign: Foreign, words: Vocabulary) -> None:
    if foreign.classes != len(words.classes):
        raise InputError(
            "the network tells another number of classes apart", code="adopt_classes",
            field="classes", found=str(foreign.classes),
            expected=f"{len(words.classes)} ({', '.join(words.class_ids)})",
        )  # fmt: skip


def _record(classifier: Classifier, taps: Mapping[str, str], config: Profile) -> dict[str, Any]:
    """What joins training.json: where the classifier came from, as far as it can be told."""
    source = classifier.model or classifier.weights
    packages = ("numpy", "onnx", "onnxruntime") + (() if classifier.model else ("torch",))
    digest = {"sha256": hashlib.sha256(source.read_bytes()).hexdigest()} if source else {}
    return {
        **digest,
        "profile": config.name,
        "adopted": classifier.model.name if classifier.model else classifier.module,
        "taps": dict(taps),
        "versions": {p: importlib.metadata.version(p).split("+")[0] for p in packages},
        "config": config.model_dump(mode="json", exclude={"architecture", "optimisation"}),
    }
