"""What `lesionlens eval` makes and measures, and the digests that tell which parts are done."""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.cohort.phantom.generate import VERSION
from services.training.profiles import CONCEPT_WEIGHT, Profile, profile

_ROOT = Path(__file__).resolve().parents[2]

# The sources that decide a part, beside its configuration, data and seed.
_IMAGE = (
    "models/volume.py", "models/voi.py", "models/cohort/load.py", "models/cohort/nifti.py",
    "models/cnn/data.py",
)  # fmt: skip
_FIT = (
    "models/cnn/architecture.py", "models/cnn/augment.py", "models/cnn/classifier.py",
    "models/cnn/lightning_module.py", "models/cnn/network.py", "models/cnn/networks.py",
    "models/cnn/wang2019.py", "models/passes.py", "models/probes/labelling.py",
    "services/training/fit.py",
)  # fmt: skip
_SCORE = ("models/evaluation", "services/training/trial.py")
_BUNDLE = (
    "models/attribution", "models/bundle", "models/cnn/export.py", "models/consistency",
    "models/graph", "models/imaging", "models/ood", "models/probes", "models/reasons/maps.py",
    "models/relevance", "models/trial/data.py", "models/trial/localisation.py",
    "models/trial/mapped.py", "services/training/activations.py", "services/training/assemble.py",
    "services/training/detectors.py", "services/training/measurements.py",
    "services/training/pairs.py", "services/training/pipeline.py",
    "services/training/randomised.py", "services/training/review.py",
    "services/training/samples.py", "services/training/trust.py",
)  # fmt: skip
_RENDERING = ("models/cohort/phantom",)
_TRIAL = ("models/evaluation", "models/trial", "services/cli/eval_science.py")
_SEEDS = ("seed", "draws")

# Networks beside the default: other seeds, trainings on spoiled data, feature heads.
MEMBERS = ("seed1", "seed2")
NETS = (*MEMBERS, "shortcut", "label_noise", "concept")


@dataclass(frozen=True)
class Part:
    """needs: parts that must be done before. fields: of the plan that decide it, beside those
    of its training. sources: code that does, beside that of its training and of what it needs.
    """

    needs: tuple[str, ...]
    fields: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


# Every kind of part; 'curve' stands for all points of the learning curve, 'net' for all networks
# that are trained beside the default.
KINDS = {
    "cohort": Part(()),
    "arrays": Part(("cohort",), (), (*_IMAGE, "services/training/trial.py")),
    "default": Part(("arrays",), (), (*_SCORE, *_BUNDLE)),
    "wang2019": Part(("arrays",), (), _SCORE),
    "curve": Part(("arrays",), (), _SCORE),
    "net": Part(("arrays",), (), (*_SCORE, *_BUNDLE, "services/cli/eval_nets.py")),
    "ood": Part(
        ("default",), ("spoiled", "real", "seed"),
        ("models/trial/distribution.py", "models/trial/outliers.py",
         "services/cli/eval_outliers.py"),
    ),
    "truth": Part(
        ("default",), ("truth", "joint"),
        (*_RENDERING, "models/trial/switched.py", "services/cli/eval_substrate.py"),
    ),
    "stress": Part(
        ("default", *(f"net-{name}" for name in NETS[:-1])), ("stress", "passes"),
        (*_RENDERING, "models/trial/stressed.py", "services/cli/eval_substrate.py"),
    ),
    "probes": Part(("default", "net-concept"), ("labellings", *_SEEDS), (*_TRIAL, "models/probes")),
    "relevance": Part(
        ("default", "truth"), ("labellings", "edited", *_SEEDS),
        (*_TRIAL, "models/imaging", "models/relevance"),
    ),
    "errors": Part(("default", "stress"), _SEEDS, (*_TRIAL, "models/consistency")),
    "maps": Part(
        ("default", "net-seed1"), ("mapped", "twins", "steps", *_SEEDS),
        (*_TRIAL, "models/attribution", "models/reasons", "models/report/plates.py"),
    ),
}  # fmt: skip


class Plan(BaseModel):
    """Sizes and seeds of one evaluation. Everything is a synthetic cohort of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "full"
    cohort_seed: int = 2024
    training: int = Field(2000, description="Lesions in the training pool.")
    validation: int = 500
    test: int = 1500
    outside: int = Field(250, description="Lesions of a class that is never trained.")
    main: int = Field(500, description="Training lesions of both classifiers that are compared.")
    sizes: tuple[int, ...] = Field((125, 250, 500, 1000, 2000), description="Learning curve.")
    side_steps: int = Field(400, description="Steps of networks on spoiled data or with heads.")
    spoiled: int = Field(200, description="Test lesions to spoil, for each kind of outlier.")
    real: int = Field(60, description="VOIs in each real examination; 0: none is fetched.")
    truth: int = Field(1000, description="Test lesions to render without each of their features.")
    joint: int = Field(300, description="Of these, to render without all of their features.")
    stress: int = Field(400, description="Test lesions in each stress cohort.")
    passes: int = Field(10, description="Stochastic passes of a lesion of a stress cohort.")
    edited: int = Field(400, description="Test lesions whose image is edited for relevance.")
    mapped: int = Field(12, description="Test lesions of each feature whose maps are drawn.")
    twins: int = Field(24, description="Of these lesions, drawn by a network's twins too.")
    steps: int = Field(16, description="Points on the path of integrated gradients.")
    labellings: int = Field(3, description="Draws of the lesions that lend their feature labels.")
    draws: int = Field(1000, description="Bootstrap draws behind an interval.")
    seed: int = Field(0, description="Of trainings, subsets and intervals.")

    def config(self, name: str) -> Profile:
        """The profile of this name, cut down where the plan is quick."""
        chosen = profile(name)
        if self.name == "full":
            return chosen
        optimisation = chosen.optimisation.model_copy(update={"epochs": 2})
        small = {"passes": 3, "reference_passes": 3, "bootstraps": 50, "pairs": 1, "trust": False}
        return chosen.model_copy(update={"optimisation": optimisation, **small})

    def side(self, part: str) -> Profile:
        """The default with fewer passes, for networks beside it; fewer steps too, but for those of
        other seeds, which make a fair ensemble.
        """
        config = self.config("default")
        if part == "net-concept":
            config = config.model_copy(update={"concepts": CONCEPT_WEIGHT})
        optimisation = config.optimisation
        if part.removeprefix("net-") not in MEMBERS:
            optimisation = optimisation.model_copy(update={"steps": self.side_steps})
        few = {"passes": self.passes, "reference_passes": 1, "pairs": 0, "trust": False}
        if part == "net-concept":  # its samples are read: every lesion as often as the others
            few["passes"] = few["reference_passes"] = max(self.passes // 2, 1)
        return config.model_copy(update={"optimisation": optimisation, **few})

    @property
    def parts(self) -> list[str]:
        """Names of the parts, in the order in which they are started."""
        rest = sorted((s for s in self.sizes if s != self.main), reverse=True)
        large = [f"curve-{s}" for s in rest if s > self.main]
        small = [f"curve-{s}" for s in rest if s < self.main]
        nets = [f"net-{name}" for name in NETS]
        science = ["relevance", "probes", "errors", "maps"]
        return [
            "cohort", "arrays", "default", *nets, "truth", "stress", *science, *large,
            "ood", "wang2019", *small,
        ]  # fmt: skip

    @property
    def data(self) -> str:
        """Digest of the cohort: equal digests are equal voxels."""
        return _digest("phantom", VERSION, self.cohort_seed, self.training, self.validation,
                       self.test, self.outside)  # fmt: skip

    def trained(self, part: str) -> Profile:
        """The profile by which the network of this part is trained."""
        if part.startswith("net-"):
            return self.side(part)
        return self.config("wang2019" if part == "wang2019" else "default")

    def fit_digest(self, part: str) -> str:
        """Digest of what decides a network's weights; its checkpoints lie in a folder of it."""
        config = self.trained(part).model_dump(
            mode="json",
            include={"architecture", "optimisation", "preprocessing", "recipe", "phase_dropout",
                     "members", "concepts", "labelled"},
        )  # fmt: skip
        size = int(part.removeprefix("curve-")) if part.startswith("curve-") else self.main
        spoiled = (part, code(*_RENDERING)) if part.startswith("net-") else ()
        return _digest(self.data, config, size, self.seed, *spoiled, code(*_IMAGE, *_FIT))

    def digest(self, part: str) -> str:
        """Digest of configuration, data, seed and code version of a part."""
        if part == "cohort":
            return self.data
        kind = KINDS[part.partition("-")[0]]
        fields = {name: getattr(self, name) for name in kind.fields}
        before = [self.digest(name) for name in kind.needs]
        own: list[object] = []
        if fits(part):
            own = [self.fit_digest(part), self.trained(part).model_dump(mode="json")]
        elif part == "arrays":
            own = [self.config("default").preprocessing.model_dump(mode="json")]
        return _digest(part, fields, before, own, code(*kind.sources))


class Keys(BaseModel):
    """The digests of a run, taken once at its start: code that is edited meanwhile changes none.

    data: of the cohort. parts: name -> digest of all that decides it. fits: name -> of the weights.
    """

    model_config = ConfigDict(frozen=True)

    data: str
    parts: dict[str, str]
    fits: dict[str, str]

    @classmethod
    def of(cls, plan: Plan) -> Keys:
        """The digests of the plan with the code as it is now."""
        return cls(
            data=plan.data,
            parts={p: plan.digest(p) for p in plan.parts},
            fits={p: plan.fit_digest(p) for p in plan.parts if fits(p)},
        )


QUICK = Plan(
    name="quick", training=40, validation=18, test=18, outside=4, main=24, sizes=(24, 40),
    side_steps=4, spoiled=4, real=0, truth=6, joint=3, edited=4, stress=8,
    passes=2, mapped=1, twins=1, steps=2, draws=50,
)  # fmt: skip


def fits(part: str) -> bool:
    """Whether the part trains a network."""
    return part in ("default", "wang2019") or part.startswith(("curve-", "net-"))


def needs(part: str) -> tuple[str, ...]:
    """The parts that must be done before this one."""
    return KINDS[part.partition("-")[0]].needs


@cache
def code(*sources: str) -> str:
    """Digest of what these files do: their syntax without comments, docstrings and layout."""
    digest = hashlib.sha256()
    for source in sources:
        path = _ROOT / source
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            tree = ast.parse(file.read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                    node.value = ast.Constant(None)
            digest.update(str(file.relative_to(_ROOT)).encode() + ast.dump(tree).encode())
    return digest.hexdigest()[:16]


def _digest(*values: object) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
