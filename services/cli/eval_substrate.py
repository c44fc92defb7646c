"""Parts of an evaluation that make what experiments read: causal truth and stress cohorts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.manifest import CLASSIFIER
from models.bundle.runtime import OnnxModel, load_model
from models.cnn.data import SplitArrays
from models.cohort.phantom import stress as kinds
from models.cohort.phantom.generate import TRUTH_FILE
from models.cohort.phantom.spec import LesionSpec, draw
from models.trial.stressed import Lesions, stressed
from models.trial.switched import all_off, switched_off
from models.voi import centre
from services.cli.eval_place import Place, Tell, counted
from services.cli.eval_plan import MEMBERS
from services.training.samples import read_sample

JOINT = "joint.npy"  # logits of the first lesions of 'truth' without any of their features


def truth(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    """The first test lesions without each of their features, through the default network."""
    bundle = place.bundle()
    chosen = specs(place, place.sample("test").ids[: place.plan.truth])
    pairs = switched_off(
        chosen,
        bundle.vocabulary.feature_ids,
        load_model(bundle),
        bundle.preprocessing,
        counted(tell, "lesion"),
    )
    joint = all_off(
        chosen[: place.plan.joint],
        bundle.vocabulary.feature_ids,
        load_model(bundle),
        bundle.preprocessing,
        counted(tell, "bare lesion"),
    )
    pairs.save(place.folder(name))
    np.save(place.folder(name) / JOINT, joint, allow_pickle=False)
    return {"lesions": len(chosen), "pairs": len(pairs), "bare": len(joint)}


def specs(place: Place, ids: tuple[str, ...]) -> list[LesionSpec]:
    """What the phantom drew for these lesions."""
    record = json.loads((place.folder("cohort") / TRUTH_FILE).read_text("utf-8"))
    return [draw(int(record["seed"]), int(record["lesions"][i]["index"])) for i in ids]


def stress(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    """Every stress cohort through the network that it is for, and through other seeds' networks.

    <kind>/sample; <kind>/members.npy: plain logits of the networks of other seeds [S, n, C], where
    the cohort is the default network's; 'test' has the members for the plain test lesions.
    """
    plan, bundle = place.plan, place.bundle()
    test = place.sample("test")
    rows = np.arange(min(plan.stress, len(test)))
    indices = [spec.index for spec in specs(place, test.ids[: len(rows)])]
    part = test.take(rows)
    plain = Lesions(part.ids, part.patients, part.classes, part.labels, part.sizes_mm, part.bases)
    members = [load_model(place.bundle(f"net-{m}")) for m in MEMBERS]
    _save_members(place, "test", test.bases, members)
    counts: dict[str, int] = {}
    for done, kind in enumerate(kinds.KINDS):
        tell(kind, done / len(kinds.KINDS))
        lesions = stressed(kind, plain, plan.cohort_seed, indices, bundle.preprocessing)
        network = place.bundle(f"net-{kind}") if kind in kinds.TRAINED else bundle
        sample = read_sample(
            network.path / CLASSIFIER,
            _split(lesions, list(network.manifest.classes)),
            lesions.patients,
            list(network.manifest.taps),
            network.preprocessing,
            network.recipe,
            plan.passes,
        )
        sample.save(place.folder(name) / kind / "sample")
        if kind not in kinds.TRAINED:
            _save_members(place, kind, sample.bases, members)
        counts[kind] = len(sample)
    return {"n": counts}


def _split(lesions: Lesions, classes: list[str]) -> SplitArrays:
    named = [classes[c] if c >= 0 else "" for c in lesions.classes]
    return SplitArrays(
        ids=lesions.ids,
        class_ids=tuple(named),
        bases=lesions.bases,
        sizes_mm=lesions.sizes_mm,
        classes=lesions.classes,
        features=lesions.labels.astype(np.float32),
    )


def _save_members(
    place: Place, kind: str, bases: NDArray[np.float32], members: list[OnnxModel]
) -> None:
    spec = place.bundle().preprocessing
    logits = [
        np.concatenate([m.forward(centre(b, spec)[None], ["logits"])["logits"] for b in bases])
        for m in members
    ]
    folder = place.folder("stress") / kind
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "members.npy", np.stack(logits), allow_pickle=False)
