"""Parts of an evaluation that measure: experiments of models.trial on what earlier parts made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models.attribution.goal import Settings
from models.bundle.read import Bundle
from models.bundle.runtime import load_model
from models.cohort.phantom.stress import KINDS, TRAINED
from models.probes.labelling import choose_labelled
from models.report.plates import plate_picture
from models.trial.data import Pairs, Sample
from models.trial.errors import measure_errors
from models.trial.experiment import Experiment
from models.trial.gallery import Plate, plates
from models.trial.judged import Judged, judge
from models.trial.localisation import map_figures
from models.trial.mapped import MappedLesions, Network, chosen
from models.trial.relevance import Sizes, measure_relevance
from models.trial.shortcut import measure_shortcut
from services.cli.eval_place import Place, Tell
from services.cli.eval_plan import MEMBERS
from services.cli.eval_substrate import JOINT

_SCAR = "fnh"  # the class whose sizes bound a central scar, as published


def probes(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    """Detection: every detector, what labels are worth, where a feature is seen best."""
    from models.trial import detection, labelling

    plan, manifest = place.plan, place.bundle().manifest
    seeds = tuple(plan.seed + i for i in range(plan.labellings))
    experiment = _experiment(place, "default", tuple(manifest.probe_taps), seeds)
    # Its heads were taught by the first draw's labels.
    concept = _experiment(place, "net-concept", (detection.CONCEPT,), seeds[:1])
    scar = manifest.classes.index(_SCAR) if _SCAR in manifest.classes else None
    tell("detectors", 0.0)
    report = detection.measure_probes(
        experiment, scar_class=scar, concept=concept, draws=plan.draws, seed=plan.seed
    )
    tell("labelling protocols", 0.5)
    report["protocol"] = labelling.protocols(experiment, draws=plan.draws, seed=plan.seed)
    tell("number of labelled lesions", 0.7)
    report["label_curve"] = labelling.learning_curve(experiment, draws=plan.draws, seed=plan.seed)
    tell("shuffled labels", 0.85)
    report["selectivity"] = labelling.selectivity(experiment, draws=plan.draws, seed=plan.seed)
    tell("taps", 0.9)
    report["best_tap"] = labelling.by_tap(experiment, draws=plan.draws, seed=plan.seed)
    return report


def _experiment(
    place: Place, part: str, taps: tuple[str, ...], seeds: tuple[int, ...]
) -> Experiment:
    bundle = place.bundle(part)
    return Experiment(
        training=place.sample("training", part),
        validation=place.sample("validation", part),
        test=place.sample("test", part),
        features=tuple(bundle.manifest.features),
        taps=taps,
        phases=tuple(bundle.manifest.phases),
        spec=bundle.preprocessing,
        seeds=seeds,
    )


def relevance(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    """What a feature is said to weigh against what happens when it is switched off."""
    plan, bundle = place.plan, place.bundle()
    training, folder = place.sample("training"), place.folder("truth")
    found = measure_relevance(
        bundle,
        load_model(bundle),
        training,
        place.sample("test"),
        Pairs.open(folder),
        [
            choose_labelled(training.labels, plan.config("default").labelled, plan.seed + i)
            for i in range(plan.labellings)
        ],
        Sizes(edited=plan.edited, draws=plan.draws, seed=plan.seed),
        joint=np.load(folder / JOINT, allow_pickle=False),
        progress=tell,
    )
    return {"relevance": found}


def maps(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    """Every map method against true masks, and against itself: trust cards."""
    from services.training.randomised import randomised_model
    from services.training.trust import with_masks

    plan, bundle, test = place.plan, place.bundle(), place.sample("test")
    lesions = MappedLesions(
        ids=test.ids,
        bases=test.bases,
        sizes_mm=test.sizes_mm,
        classes=test.classes,
        labels=test.labels,
    )
    rows = {
        i
        for kind in ("feature", "class")
        for i, _ in chosen(lesions, kind, plan.mapped, plan.seed)  # type: ignore[arg-type]
    }
    lesions = with_masks(lesions, sorted(rows), place.cohort(), bundle.preprocessing)
    again = place.bundle("net-seed1")
    own, settings = Network(bundle, load_model(bundle)), Settings(steps=plan.steps, seed=plan.seed)
    figures = map_figures(
        lesions,
        own,
        randomised_model(bundle, plan.seed),
        Network(again, load_model(again)),
        each=plan.mapped,
        twins=plan.twins,
        settings=settings,
        draws=plan.draws,
        seed=plan.seed,
        patients=test.patients,
        tick=lambda share: tell("maps", share),
    )
    tell("gallery", None)
    figures["gallery"] = _gallery(
        place.folder(name), plates(lesions, own, settings, seed=plan.seed)
    )
    return {"maps": figures}


def _gallery(folder: Path, found: list[Plate]) -> list[dict[str, str]]:
    """One PNG a plate, all with one scale of colour."""
    folder.mkdir(parents=True, exist_ok=True)
    strength = np.concatenate([np.abs(p.heat).ravel() for p in found] or [np.ones(1)])
    end, rows = max(float(np.percentile(strength, 99.5)), 1e-9), []
    for p in found:
        plate_picture(p.image, p.heat, p.mask, end).save(folder / f"{p.feature}.png")
        rows.append(
            {"feature": p.feature, "lesion": p.lesion_id, "phase": p.phase,
             "file": f"{folder.name}/{p.feature}.png"}
        )  # fmt: skip
    return rows


def errors(place: Place, name: str, tell: Tell) -> dict[str, Any]:
    """How mistakes are told, in distribution and on each stress cohort."""
    own, plan = place.bundle(), place.plan
    warmth = [place.bundle(f"net-{m}").temperature for m in MEMBERS]
    folder = place.folder("stress")

    def judged(kind: str, sample: Sample, bundle: Bundle) -> Judged:
        tell(f"judging {kind}", None)
        file = folder / kind / "members.npy"
        members = np.load(file, allow_pickle=False) if file.is_file() else None
        return judge(sample, bundle, load_model(bundle), members, warmth if file.is_file() else ())

    stress: dict[str, Judged] = {
        kind: judged(
            kind,
            Sample.open(folder / kind / "sample"),
            place.bundle(f"net-{kind}") if kind in TRAINED else own,
        )
        for kind in KINDS
    }
    inside = judged("test", place.sample("test"), own)
    figures = measure_errors(inside, stress, draws=plan.draws, seed=plan.seed)
    network = place.bundle("net-shortcut")
    figures["stress"]["shortcut"]["shortcut"] = measure_shortcut(
        stress["shortcut"],
        Sample.open(folder / "shortcut" / "sample"),
        load_model(network),
        load_model(own),
        accuracy_like_training=network.evaluation["classifier_validation"]["accuracy"],
        draws=plan.draws,
        seed=plan.seed,
    )
    return {"errors": figures}
