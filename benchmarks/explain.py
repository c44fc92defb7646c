"""What does an explanation cost, and how much of it would torch with Captum take?

    python -m benchmarks.explain --bundle build/demo/bundle --cohort build/demo/cohort

The same work: integrated gradients of the predicted class and of every feature, 32 steps, by the
bundle's graphs in onnxruntime and by Captum on the same network in torch, in turns. The same
deliverable: class, features, relevance and a map of each, by the way that an explanation takes here
(passes as one recipe, the default number of steps) and by torch and Captum the plain way. Ratios
are taken round by round. CPU ratios compare one thread with one thread; for wall time each uses
both cores in the way that is fastest for it.

Beside them: agreement with Captum, maps of few steps against true masks (benchmarks.steps), the
time of a whole explanation, and a sweep (benchmarks.sweep) with its picture.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients
from numpy.typing import NDArray

from benchmarks.predict import spread
from benchmarks.steps import localisation
from benchmarks.sweep import draw as draw_sweep
from benchmarks.sweep import sweep
from benchmarks.twin import target_of, torch_twin
from models.attribution import chunked
from models.attribution.goal import Attribution, Goal, Settings, centred_logit
from models.attribution.integrated import integrated_gradients
from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.cnn.classifier import Classifier
from models.cohort.format import read_cohort
from models.imaging.edits import Edits
from models.passes import views
from models.reasons.explain import explain
from models.reasons.maps import class_goal, feature_goal, steps_of
from models.recipes import Draw
from models.voi import Lesion, centre, normalise
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.store import resolve
from wire.api import ExplanationParameters

PASSES, STEPS, CORES = 25, 32, 2
FEW = (1, 2, 3, 4, 8, 16)  # steps whose maps are held against those of STEPS

# How torch may use the cores: threads within an operator, targets side by side.
WAYS = {"one": (1, 1), "within": (CORES, 1), "beside": (1, CORES)}


def phantom_lesions(count: int, bundle: Bundle) -> list[Lesion]:
    """Synthetic lesions of a seed that no cohort uses."""
    from models.cohort.phantom.rendering import render
    from models.cohort.phantom.spec import draw
    from models.voi import extract
    from models.volume import Study

    found = []
    for index in range(count):
        drawn = render(draw(991, index))
        study = Study.make(drawn.volumes, drawn.boxes, list(bundle.manifest.phases))
        found.append(extract(study, bundle.preprocessing))
    return found


def goals_of(
    lesion: Lesion, base: NDArray[np.float32], class_id: str, bundle: Bundle
) -> list[Goal]:
    """The class, and every feature of the probes."""
    edits = Edits(base, lesion.size_mm, bundle.preprocessing, bundle.manifest.phases)
    features = [
        feature_goal(f, bundle, base, lesion.size_mm, edits=edits) for f in bundle.probes.features
    ]
    return [class_goal(class_id, bundle), *features]


def passes_here(
    model: OnnxModel, base: NDArray[np.float32], weights: NDArray, bundle: Bundle
) -> None:
    """Views, activations and gradients of the passes, as one recipe."""
    draw = Draw(base, bundle.preprocessing, bundle.recipe, PASSES, 0)
    taps = list(bundle.manifest.probe_taps)
    names = ["logits", *taps, *(f"grad_{tap}" for tap in taps)]
    chunked.passes(model, draw, names, {"logits": weights})


def deliverable_here(
    model: OnnxModel, lesion: Lesion, top: int, steps: int, bundle: Bundle
) -> None:
    """Class, features, relevance and a map of each."""
    base = normalise(lesion, bundle.preprocessing)
    x = centre(base, bundle.preprocessing)
    passes_here(model, base, centred_logit(top, len(bundle.manifest.classes)), bundle)
    goals = goals_of(lesion, base, bundle.manifest.classes[top], bundle)
    integrated_gradients(model, x, goals[:1], Settings(steps=steps))
    few = steps_of("feature", "integrated_gradients", steps)
    integrated_gradients(model, x, goals[1:], Settings(steps=few))


def passes_torch(network: Classifier, x: NDArray[np.float32], weights: NDArray) -> None:
    leaf = torch.from_numpy(x).requires_grad_(True)
    out = network.outputs(leaf)
    total = (out.logits @ torch.from_numpy(weights)).sum()
    torch.autograd.grad(total, [*out.maps.values(), out.taps["fc"]])


def maps_here(
    model: OnnxModel, x: NDArray[np.float32], goals: Sequence[Goal], beside: int
) -> list[Attribution]:
    """Integrated gradients of all goals, `beside` of them at a time."""
    settings = Settings(steps=STEPS)
    with ThreadPoolExecutor(beside) as pool:
        return [
            found[0]
            for found in pool.map(lambda g: integrated_gradients(model, x, [g], settings), goals)
        ]


def maps_torch(
    network: Classifier, x: NDArray[np.float32], goals: Sequence[Goal], beside: int
) -> list[NDArray[np.float32]]:
    """The same by Captum, `beside` targets at a time."""
    image = torch.from_numpy(x)[None]

    def one(goal: Goal) -> NDArray[np.float32]:
        method = IntegratedGradients(target_of(network, goal.weights))
        base = torch.from_numpy(goal.reference(x))[None]
        drawn = method.attribute(image, base, n_steps=STEPS, method="riemann_middle")
        return np.asarray(drawn.detach().numpy()[0])

    with ThreadPoolExecutor(beside) as pool:
        return list(pool.map(one, goals))


def timed(way: Callable[[], Any]) -> tuple[float, float, Any]:
    """(wall seconds, CPU seconds, what it gave)."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = way()
    return time.perf_counter() - wall, time.process_time() - cpu, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or store tag; default: the latest")
    parser.add_argument("--cohort", type=Path, default=Path("build/demo/cohort"),
                        help="with true masks; without it, localisation is left out")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cards", type=int, default=10, help="lesions explained in full, for p95")
    parser.add_argument("--mapped", type=int, default=8, help="lesions a feature or class mapped")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    bundle = read_bundle(resolve(options.bundle, read_settings()))
    model, network = load_model(bundle), torch_twin(bundle)
    lesions = phantom_lesions(max(options.rounds, options.cards), bundle)
    asked = ExplanationParameters()
    bench = Rounds(bundle, model, network, asked.map_steps)
    for number, lesion in enumerate(lesions[: options.rounds]):
        bench.round(lesion)
        print(f"round {number + 1}/{options.rounds}: {bench.said()}", flush=True)
    torch.set_num_threads(1)
    explain(lesions[0], bundle, model, asked)
    cards = [
        timed(partial(explain, lesion, bundle, model, asked))[0]
        for lesion in lesions[: options.cards]
    ]
    record = report(bench.walls, bench.cpus, np.array(bench.agreement), cards)
    record |= {"bundle": bundle.hash, "goals": 1 + len(bundle.probes.features), "passes": PASSES,
               "steps": STEPS, "steps_of_deliverable": {
                   kind: steps_of(kind, "integrated_gradients", asked.map_steps)
                   for kind in ("class", "feature")
               },
               "rounds": options.rounds, "torch": torch.__version__}  # fmt: skip
    print("sweep", flush=True)
    record["sweep"] = swept(lesions, bundle, model)
    if options.cohort.is_dir():
        print("localisation", flush=True)
        record["localisation"] = localisation(
            bundle, model, read_cohort(options.cohort), steps=FEW, against=STEPS,
            each=options.mapped,
        )  # fmt: skip
    path = options.out / "explain.json"
    write_record(path, record, made_by="python -m benchmarks.explain", seed=991)
    draw_sweep(record["sweep"], path.with_suffix(".png"))
    print(path)


class Rounds:
    """Both ways in turns: wall and CPU seconds by name, a value a round."""

    def __init__(self, bundle: Bundle, model: OnnxModel, network: Classifier, steps: int) -> None:
        self.bundle, self.model, self.network, self.steps = bundle, model, network, steps
        self.walls: dict[str, list[float]] = {}
        self.cpus: dict[str, list[float]] = {}
        self.agreement: list[float] = []

    def _take(self, name: str, way: Callable[[], Any]) -> Any:
        wall, cpu, value = timed(way)
        self.walls.setdefault(name, []).append(wall)
        self.cpus.setdefault(name, []).append(cpu)
        return value

    def round(self, lesion: Lesion) -> None:
        """One lesion, every way."""
        bundle, model, network = self.bundle, self.model, self.network
        spec, take = bundle.preprocessing, self._take
        base = take("normalise", partial(normalise, lesion, spec))
        x = centre(base, spec)
        top = int(model.forward(x[None], ["logits"])["logits"].argmax())
        weights = centred_logit(top, len(bundle.manifest.classes))
        several = take("views", partial(views, base, spec, bundle.recipe, PASSES, 0))
        class_id = bundle.manifest.classes[top]
        goals = take("edits", partial(goals_of, lesion, base, class_id, bundle))
        take("passes_here", partial(passes_here, model, base, weights, bundle))
        for way, beside in (("beside", CORES), ("one", 1)):
            ours = take(f"maps_here/{way}", partial(maps_here, model, x, goals, beside))
        take("deliverable_here", partial(
            deliverable_here, model, lesion, top, self.steps, bundle
        ))  # fmt: skip
        for way, (within, beside) in WAYS.items():
            torch.set_num_threads(within)
            take(f"passes_torch/{way}", partial(passes_torch, network, several, weights))
            theirs = take(f"maps_captum/{way}", partial(maps_torch, network, x, goals, beside))
        for mine, other in zip(ours, theirs, strict=True):
            scale = float(np.linalg.norm(other))
            if scale > 0:
                self.agreement.append(float(np.linalg.norm(mine.map - other)) / scale)

    def said(self) -> str:
        """Of the last round, for whoever waits."""
        names = ("maps_here/one", "maps_captum/one", "deliverable_here")
        return ", ".join(f"{name} {self.cpus[name][-1]:.2f} CPU-s" for name in names)


def swept(lesions: Sequence[Lesion], bundle: Bundle, model: OnnxModel) -> dict[str, Any]:
    """Cost against passes, features (maps), steps and lesions."""
    lesion = lesions[0]
    base = normalise(lesion, bundle.preprocessing)
    x = centre(base, bundle.preprocessing)
    goals = goals_of(lesion, base, bundle.manifest.classes[0], bundle)[1:]
    weights = centred_logit(0, len(bundle.manifest.classes))

    def passes(count: int) -> None:
        draw = Draw(base, bundle.preprocessing, bundle.recipe, count, 0)
        chunked.passes(model, draw, ["logits", "grad_fc"], {"logits": weights})

    def features(count: int) -> None:
        integrated_gradients(model, x, goals[:count], Settings(steps=8))

    def steps(count: int) -> None:
        integrated_gradients(model, x, goals[:2], Settings(steps=count))

    def several(count: int) -> None:
        for number in range(count):
            explain(lesions[number % len(lesions)], bundle, model, ExplanationParameters())

    return sweep(
        {
            "passes": ((5, 10, 25, 50, 100), passes),
            "features": ([n for n in (1, 3, 6, 10, 14) if n <= len(goals)], features),
            "steps": ((2, 8, 16, 32, 64), steps),
            "lesions": ((1, 2, 4, 8), several),
        }
    )


def report(
    walls: dict[str, list[float]],
    cpus: dict[str, list[float]],
    agreement: NDArray[np.float64],
    cards: list[float],
) -> dict[str, Any]:
    """The figures of explain.json. Both ways begin with the same normalisation, views and edits."""
    wall = {k: np.array(v) for k, v in walls.items()}
    cpu = {k: np.array(v) for k, v in cpus.items()}
    shared = {name: sum(t[n] for n in ("normalise", "views", "edits"))
              for name, t in (("wall", wall), ("cpu", cpu))}  # fmt: skip
    captum = np.minimum.reduce([wall[f"maps_captum/{w}"] for w in WAYS])
    there = shared["wall"] + captum
    there = there + np.minimum.reduce([wall[f"passes_torch/{w}"] for w in WAYS])
    there_cpu = shared["cpu"] + cpu["maps_captum/one"] + cpu["passes_torch/one"]
    here, here_cpu = wall["deliverable_here"], cpu["deliverable_here"]
    return {
        "ratios": {
            "speedup_vs_captum_cpu": spread(cpu["maps_captum/one"] / cpu["maps_here/one"]),
            "cpu_vs_captum": spread(cpu["maps_here/one"] / cpu["maps_captum/one"]),
            "speedup_vs_captum_wall": spread(captum / wall["maps_here/beside"]),
            "deliverable_speedup": spread(there_cpu / here_cpu),
            "deliverable_speedup_wall": spread(there / here),
        },
        "deliverable_cpu_s": {"here": spread(here_cpu), "torch_captum": spread(there_cpu)},
        "deliverable_s": {"here": spread(here), "torch_captum": spread(there)},
        "wall_s": {k: spread(v) for k, v in wall.items()},
        "cpu_s": {k: spread(v) for k, v in cpu.items()},
        "card_p95_s": round(float(np.quantile(cards, 0.95)), 3) if cards else None,
        "card_s": spread(np.array(cards)) if cards else None,
        "agreement": {
            "measure": "relative L2 of a map against Captum's",
            "n": len(agreement),
            "median": float(f"{np.median(agreement):.3g}"),
            "q95": float(f"{np.quantile(agreement, 0.95):.3g}"),
        },
    }


if __name__ == "__main__":
    main()
