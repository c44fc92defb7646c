"""What does one lesion cost each detector, and does the closed form equal the published loop?

    python -m benchmarks.probes --out build/bench

Sizes are those of the publication: 100 units, a marginal of 6,000 draws, 14 features with ten
lesions in 100 passes, a lesion in 25 passes. Activations are drawn, not computed: half of them
zero, as behind a ReLU, none dead. CPU seconds of this process, one thread.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# Before numpy: one thread is what a worker has.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from models.probes.kde import SparseKDE
from models.probes.published.gaussian import Wang2019Gaussian
from models.probes.published.loop import rodeo_log_density
from models.probes.published.marginal import conditional, log_mean_exp
from models.probes.published.rodeo import SpieRodeo
from services.cli.record import write_record

UNITS, DRAWS, FEATURES, LESIONS, TRAINED, PASSES = 100, 6000, 14, 10, 100, 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=DRAWS, help="rows of the marginal")
    parser.add_argument("--loop-passes", type=int, default=PASSES, help="that the slow loop does")
    options = parser.parse_args()
    data = drawn(options.draws)
    report = measured(*data, rounds=options.rounds, loop_passes=options.loop_passes)
    path = options.out / "probes.json"
    write_record(path, report, made_by="python -m benchmarks.probes", seed=0)
    for name, row in report["cpu_ms_per_lesion"].items():
        print(f"{name:24} {row:10.2f} CPU-ms")
    print(f"closed form and loop differ by at most {report['agreement']['max_abs_nats']:.1e} nats")
    print(path)


def drawn(draws: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Labelled lesions [140, 100, D], their labels, a marginal [draws, D], a lesion [1, 25, D]."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 3.0, UNITS)

    def relu(*shape: int) -> NDArray[np.float64]:
        return np.maximum(rng.normal(size=(*shape, UNITS)), 0.0) * scale

    n = FEATURES * LESIONS
    labels = np.zeros((n, FEATURES))
    labels[np.arange(n), np.arange(n) // LESIONS] = 1
    return relu(n, TRAINED), labels, relu(draws), relu(1, PASSES)


def measured(
    own: NDArray[Any],
    labels: NDArray[Any],
    marginal: NDArray[Any],
    lesion: NDArray[Any],
    *,
    rounds: int,
    loop_passes: int,
) -> dict[str, Any]:
    """CPU-ms a lesion of each detector (the median of the rounds), and of the loop once."""
    fitted: dict[str, Wang2019Gaussian | SpieRodeo | SparseKDE] = {
        "wang2019_gaussian": Wang2019Gaussian().fit(own, labels, marginal),
        "spie_rodeo": SpieRodeo().fit(own, labels, marginal),
        "sparse_kde": SparseKDE().fit(own, labels, marginal),
    }
    cost: dict[str, list[float]] = {name: [] for name in fitted}
    for _ in range(rounds):  # interleaved: the machine's moods meet all of them
        for name, detector in fitted.items():
            cost[name].append(cpu(partial(detector.decision_function, lesion)))
    part = lesion[:, :loop_passes]
    slow: list[NDArray[np.float64]] = []
    seconds = cpu(lambda: slow.append(by_loop(own, labels, marginal, part[0])))
    fast = fitted["spie_rodeo"].decision_function(part)[0]
    milliseconds = {name: round(1e3 * float(np.median(v)), 3) for name, v in cost.items()}
    milliseconds["spie_rodeo_loop"] = round(1e3 * seconds * PASSES / loop_passes, 1)
    return {
        "sizes": {
            "units": UNITS, "marginal": len(marginal), "features": FEATURES,
            "rows_per_feature": LESIONS * own.shape[1], "passes": PASSES,
            "passes_in_loop": loop_passes,
        },
        "rounds": rounds,
        "cpu_ms_per_lesion": milliseconds,
        "ratios": {
            "rodeo_loop_vs_closed_form": round(
                milliseconds["spie_rodeo_loop"] / milliseconds["spie_rodeo"], 1
            )
        },
        "agreement": {"max_abs_nats": float(np.abs(fast - slow[0]).max())},
    }  # fmt: skip


def by_loop(
    own: NDArray[Any], labels: NDArray[Any], marginal: NDArray[Any], passes: NDArray[Any]
) -> NDArray[np.float64]:
    """What SpieRodeo says of one lesion [T, D], by the published loop: [F]."""
    base = np.array([rodeo_log_density(x, marginal) for x in passes])
    rows = [[rodeo_log_density(x, group) for x in passes] for group in conditional(own, labels)]
    return log_mean_exp(np.array(rows) - base)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
