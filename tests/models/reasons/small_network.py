"""A small network in numpy with exact gradients, and a bundle around it, for tests.

    x -> conv1 = relu(K x + b) voxel by voxel -> mean over space -> fc = relu(W pooled) -> logits

It implements models.model.Model in full, so everything above runs as it does on ONNX graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle.judges import Judges, ReviewQuality
from models.bundle.parts import Reference
from models.bundle.read import Bundle
from models.consistency.features import FeatureModel
from models.consistency.image import ImageExpert
from models.consistency.review import Opinions, ReviewModel
from models.imaging.measurements import measure
from models.imaging.measurements import names as measurement_names
from models.model import ModelInfo
from models.ood import OutOfDistributionScore, readout
from models.passes import PassRecipe
from models.probes.probeset import ProbeSet
from models.recipes import Composed
from models.relevance.directions import Directions
from models.vocabulary import Vocabulary, liver_mri
from models.voi import Lesion, Preprocessing, centre, normalise, tensor
from wire.bundle import Manifest
from wire.explanation import TrustCard

SPEC = Preprocessing(lesion_voxels=32, base_voxels=16, tensor_voxels=12)
CONV, FC = 10, 8


@dataclass
class SmallNetwork(Composed):
    """Weights from a seed. `calls` holds the batch sizes that it was asked for."""

    seed: int = 0
    bias: float = 0.1
    calls: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.kernel = rng.normal(size=(CONV, 3))
        self.dense = rng.normal(size=(FC, CONV))
        self.head = rng.normal(size=(6, FC))

    @property
    def info(self) -> ModelInfo:
        vocabulary = liver_mri()
        return ModelInfo(
            bundle="b-" + "0" * 20,
            classes=tuple(vocabulary.class_ids),
            phases=tuple(vocabulary.phase_ids),
            taps={"conv1": CONV, "fc": FC},
            input_shape=SPEC.shape(3),
        )

    def _run(self, x: NDArray) -> dict[str, NDArray]:
        before = np.einsum("dp,npxyz->ndxyz", self.kernel, x.astype(np.float64)) + self.bias
        conv = np.maximum(before, 0)
        pooled = conv.mean(axis=(2, 3, 4))
        dense = pooled @ self.dense.T
        fc = np.maximum(dense, 0)
        logits = fc @ self.head.T
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return {
            "before": before,
            "dense": dense,
            "conv1_map": conv,
            "conv1": pooled,
            "fc": fc,
            "logits": logits,
            "scores": raised / raised.sum(axis=1, keepdims=True),
        }

    def forward(self, x: NDArray[np.float32], outputs: Sequence[str]) -> dict[str, NDArray]:
        self.calls.append(len(x))
        values = self._run(x)
        return {name: values[name].astype(np.float32) for name in outputs}

    def gradients(
        self,
        x: NDArray[np.float32],
        weights: Mapping[str, NDArray[np.float32]],
        wanted: Sequence[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        self.calls.append(len(x))
        values = self._run(x)
        n, voxels = len(x), x[0, 0].size
        zero = {"logits": np.zeros((n, 6)), "conv1": np.zeros((n, CONV)), "fc": np.zeros((n, FC))}
        w = {**zero, **weights}
        at_fc = w["logits"] @ self.head + w["fc"]
        at_conv = (at_fc * (values["dense"] > 0)) @ self.dense + w["conv1"]
        at_map = (values["before"] > 0) * at_conv[:, :, None, None, None] / voxels
        found = {
            "input": np.einsum("ndxyz,dp->npxyz", at_map, self.kernel),
            "conv1": at_conv,
            "fc": at_fc,
        }
        return {
            name: value.astype(np.float32)
            for name, value in found.items()
            if wanted is None or name in wanted
        }


def lesion(seed: int, *, slices: int = 24, identical: bool = False) -> Lesion:
    """A ball in noise whose enhancement depends on the seed."""
    rng = np.random.default_rng([77, seed])
    n = SPEC.lesion_voxels
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 3, indexing="ij"))
    ball = np.sqrt((grid**2).sum(axis=0)) < n / 5
    levels = 100 + rng.normal(scale=40, size=3)
    voxels = np.stack([np.where(ball, level, 100.0) for level in levels])
    voxels += rng.normal(scale=3, size=voxels.shape)
    if identical:
        voxels[:] = voxels[0]
    return Lesion(
        voxels=voxels.astype(np.float32),
        phases=tuple(liver_mri().phase_ids),
        mm_per_voxel=1.5,
        size_mm=(24.0, 22.0, 20.0),
        slices=slices,
    )


def bundle(network: SmallNetwork, vocabulary: Vocabulary | None = None) -> Bundle:
    """A bundle around the network with probes fitted to lesions of its own; no files behind it."""
    vocabulary = vocabulary or liver_mri()
    count = 48
    x = np.stack([tensor(lesion(i), SPEC) for i in range(count)])
    values = network.forward(x, ["logits", "conv1", "fc"])
    h = np.concatenate([values["conv1"], values["fc"]], axis=1)
    rng = np.random.default_rng(5)
    planes = rng.normal(size=(h.shape[1], len(vocabulary.features)))
    centred = (h - h.mean(axis=0)) @ planes
    labels = (centred > np.quantile(centred, 0.6, axis=0)).astype(float)
    which = values["logits"].argmax(axis=1)
    manifest = Manifest(
        name="small",
        hash=network.info.bundle,
        architecture="small",
        trained_on="test",
        synthetic=True,
        classes=vocabulary.class_ids,
        phases=vocabulary.phase_ids,
        features=vocabulary.feature_ids,
        taps=dict(network.info.taps),
        probe_taps=["conv1", "fc"],
        preprocessing=SPEC.model_dump(),
        passes=PassRecipe().model_dump(),
        temperature=1.3,
        files={},
    )
    return Bundle(
        path=Path(),
        manifest=manifest,
        vocabulary=vocabulary,
        preprocessing=SPEC,
        recipe=PassRecipe(),
        temperature=1.3,
        probes=ProbeSet.fit(h, labels, h, vocabulary.feature_ids, 0),
        reference=Reference(
            h,
            [f"les-{i:03d}" for i in range(count)],
            [vocabulary.class_ids[c] for c in which],
            [
                [f for f, y in zip(vocabulary.feature_ids, row, strict=True) if y == 1][:4]
                for row in labels
            ],
        ),
        ood=OutOfDistributionScore.fit(
            ["conv1", "fc"],
            readout(values, x, ["conv1", "fc"]),
            readout(values, x, ["conv1", "fc"]),
            0.99,
        ),
    )


@cache
def shared() -> tuple[SmallNetwork, Bundle]:
    """One network and its bundle for all rooms: fitting probes takes a second."""
    network = SmallNetwork()
    return network, bundle(network)


def equipped(network: SmallNetwork, plain: Bundle) -> Bundle:
    """The same bundle with pairs, judges and trust cards, fitted to lesions of its own."""
    count = 48
    bases = np.stack([normalise(lesion(i), SPEC) for i in range(count)])
    x = np.stack([centre(base, SPEC) for base in bases])
    values = network.forward(x, ["logits", "conv1", "fc"])
    names = tuple(plain.vocabulary.feature_ids)
    rng = np.random.default_rng(6)
    which = np.tile(np.arange(5), len(names))
    feature = np.repeat(np.arange(len(names)), 5)
    taps = {tap: values[tap] for tap in ("conv1", "fc")}
    absent = {"fc": np.maximum(taps["fc"][which] - rng.random((len(which), FC)), 0)}
    classes = values["logits"].argmax(axis=1)
    # Which features a lesion has follows from its class, so that they say something of it.
    found = ((np.arange(len(names)) + classes[:, None]) % 3 == 0).astype(float)
    model = FeatureModel.fit(found, classes, plain.manifest.classes, names)
    measured = np.stack([measure(base, np.array([24.0, 22.0, 20.0]), SPEC) for base in bases])
    image = ImageExpert.fit(
        measured, classes, plain.manifest.classes, measurement_names(tuple(plain.manifest.phases))
    )
    shares = plain.probabilities(values["logits"])
    opinions = {
        source: Opinions(
            {
                "network": shares,
                "surroundings": shares,
                "image": image.posterior(measured),
                "features": model.posterior(model.from_statuses(found)),
            },
            np.linspace(0.3, 1.0, count),
        )
        for source in ("probes", "reader")
    }
    truth = np.where(np.arange(count) % 6 == 0, (classes + 1) % 6, classes)
    review = ReviewModel.fit(opinions, truth)
    quality = {s: ReviewQuality(0.8, (0.7, 0.9), count, "validation") for s in opinions}
    card = TrustCard(
        method="integrated_gradients", kind="class", n=9, split="validation", pointing=0.75,
        auprc=0.5, control_auprc=0.4, randomisation=0.9, repeatability=0.8, passed=False,
        failed=["randomisation"],
    )  # fmt: skip
    good = card.model_copy(update={"kind": "feature", "passed": True, "failed": []})
    return replace(
        plain,
        directions=Directions.fit(
            names, taps, {t: v[which] for t, v in taps.items()}, absent, feature, origin="rendering"
        ),
        judges=Judges(model, image, review, quality),
        trust=(card, good),
    )


@cache
def shared_equipped() -> tuple[SmallNetwork, Bundle]:
    """As `shared`, with everything that a bundle may hold."""
    network, plain = shared()
    return network, equipped(network, plain)
