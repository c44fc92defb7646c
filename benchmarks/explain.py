"""What does an explanation cost, and how much of it would torch with Captum take?

    python -m benchmarks.explain --bundle build/demo/bundle --out build/bench

One lesion: stochastic passes with their activations and gradients, then integrated gradients of the
predicted class and of every feature. The bundle's graphs in onnxruntime and the same network in
torch, mapped by Captum, take turns; ratios are taken round by round, above 1 where ours is faster.
Each uses both cores in the way that is fastest for it: two maps side by side here; one thread, two
threads within an operator or two maps side by side for torch, whichever took least.
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
from benchmarks.twin import target_of, torch_twin
from models.attribution import chunked
from models.attribution.goal import Attribution, Goal, Settings, centred_logit
from models.attribution.integrated import integrated_gradients
from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.cnn.classifier import Classifier
from models.passes import views
from models.reasons.explain import explain
from models.reasons.maps import class_goal, feature_goal
from models.voi import Lesion, centre, normalise
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.store import resolve
from wire.api import ExplanationParameters

PASSES, STEPS, CORES = 25, 32, 2

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
    features = [feature_goal(f, bundle, base, lesion.size_mm) for f in bundle.probes.features]
    return [class_goal(class_id, bundle), *features]


def passes_here(
    model: OnnxModel, x: NDArray[np.float32], weights: NDArray, taps: list[str]
) -> None:
    chunked.forward(model, x, ["logits", *taps])
    chunked.gradients(model, x, {"logits": weights}, taps)


def passes_torch(network: Classifier, x: NDArray[np.float32], weights: NDArray) -> None:
    leaf = torch.from_numpy(x).requires_grad_(True)
    out = network.outputs(leaf)
    total = (out.logits @ torch.from_numpy(weights)).sum()
    torch.autograd.grad(total, [*out.maps.values(), out.taps["fc"]])


def maps_here(model: OnnxModel, x: NDArray[np.float32], goals: Sequence[Goal]) -> list[Attribution]:
    """Integrated gradients of all goals, shared out over the cores."""
    settings = Settings(steps=STEPS)
    with ThreadPoolExecutor(CORES) as pool:
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
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cards", type=int, default=10, help="lesions explained in full, for p95")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    bundle = read_bundle(resolve(options.bundle, read_settings()))
    model, network = load_model(bundle), torch_twin(bundle)
    lesions = phantom_lesions(max(options.rounds, options.cards), bundle)
    taps, spec = list(bundle.manifest.probe_taps), bundle.preprocessing
    walls: dict[str, list[float]] = {}
    cpus: dict[str, list[float]] = {}
    agreement: list[float] = []

    def take(name: str, way: Callable[[], Any]) -> Any:
        wall, cpu, value = timed(way)
        walls.setdefault(name, []).append(wall)
        cpus.setdefault(name, []).append(cpu)
        return value

    for number, lesion in enumerate(lesions[: options.rounds]):
        base = normalise(lesion, spec)
        x = centre(base, spec)
        top = int(model.forward(x[None], ["logits"])["logits"].argmax())
        weights = centred_logit(top, len(bundle.manifest.classes))
        several = take("views", partial(views, base, spec, bundle.recipe, PASSES, 0))
        class_id = bundle.manifest.classes[top]
        goals = take("edits", partial(goals_of, lesion, base, class_id, bundle))
        take("passes_here", partial(passes_here, model, several, weights, taps))
        ours = take("maps_here", partial(maps_here, model, x, goals))
        for way, (within, beside) in WAYS.items():
            torch.set_num_threads(within)
            take(f"passes_torch/{way}", partial(passes_torch, network, several, weights))
            theirs = take(f"maps_captum/{way}", partial(maps_torch, network, x, goals, beside))
        for mine, other in zip(ours, theirs, strict=True):
            scale = float(np.linalg.norm(other))
            if scale > 0:
                agreement.append(float(np.linalg.norm(mine.map - other)) / scale)
        print(
            f"round {number + 1}/{options.rounds}: maps {walls['maps_here'][-1]:.1f} s, Captum "
            f"{min(walls[f'maps_captum/{w}'][-1] for w in WAYS):.1f} s",
            flush=True,
        )
    torch.set_num_threads(1)
    asked = ExplanationParameters()
    cards = [
        timed(partial(explain, lesion, bundle, model, asked))[0]
        for lesion in lesions[: options.cards]
    ]
    record = report(walls, cpus, np.array(agreement), cards)
    record |= {"bundle": bundle.hash, "goals": 1 + len(bundle.probes.features), "passes": PASSES,
               "steps": STEPS, "rounds": options.rounds, "torch": torch.__version__}  # fmt: skip
    path = options.out / "explain.json"
    write_record(path, record, made_by="python -m benchmarks.explain", seed=991)
    print(path)


def report(
    walls: dict[str, list[float]],
    cpus: dict[str, list[float]],
    agreement: NDArray[np.float64],
    cards: list[float],
) -> dict[str, Any]:
    """The figures of explain.json."""
    wall = {k: np.array(v) for k, v in walls.items()}
    cpu = {k: np.array(v) for k, v in cpus.items()}
    shared = wall["views"] + wall["edits"]
    here = shared + wall["passes_here"] + wall["maps_here"]
    captum = np.minimum.reduce([wall[f"maps_captum/{w}"] for w in WAYS])
    there = shared + captum + np.minimum.reduce([wall[f"passes_torch/{w}"] for w in WAYS])
    return {
        "ratios": {
            "speedup_vs_captum_cpu": spread(cpu["maps_captum/one"] / cpu["maps_here"]),
            "speedup_vs_captum_wall": spread(captum / wall["maps_here"]),
            "deliverable_speedup": spread(there / here),
        },
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
