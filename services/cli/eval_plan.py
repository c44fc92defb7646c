"""What `lesionlens eval` makes and measures, and the digests that tell which parts are done."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.cohort.phantom.generate import VERSION
from services.training.profiles import Profile, profile

_ROOT = Path(__file__).resolve().parents[2]

# The sources that decide a part, beside its configuration, data and seed.
_IMAGE = ("models/volume.py", "models/voi.py", "models/cohort/load.py", "models/cohort/nifti.py")
_FIT = (
    "models/cnn/architecture.py", "models/cnn/augment.py", "models/cnn/classifier.py",
    "models/cnn/data.py", "models/cnn/lightning_module.py", "models/cnn/network.py",
    "models/cnn/networks.py", "models/cnn/wang2019.py", "models/passes.py",
    "services/training/fit.py",
)  # fmt: skip
_SCORE = ("models/evaluation", "services/training/trial.py")
_BUNDLE = (
    "models/bundle", "models/cnn/export.py", "models/graph", "models/ood", "models/probes",
    "models/trial/measure.py",
    "services/training/assemble.py", "services/training/detectors.py",
    "services/training/activations.py", "services/training/pipeline.py",
)  # fmt: skip
_OUTLIERS = ("models/trial", "models/ood", "services/cli/eval_outliers.py")


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
    spoiled: int = Field(300, description="Test lesions to spoil, for each kind of outlier.")
    real: int = Field(60, description="VOIs in each real examination.")
    seed: int = Field(0, description="Of trainings, subsets and intervals.")

    def config(self, name: str) -> Profile:
        """The profile of this name, cut down where the plan is quick."""
        chosen = profile(name)
        if self.name == "full":
            return chosen
        optimisation = chosen.optimisation.model_copy(update={"epochs": 2})
        small = {"passes": 3, "reference_passes": 1, "bootstraps": 50}
        return chosen.model_copy(update={"optimisation": optimisation, **small})

    @property
    def parts(self) -> list[str]:
        """Names of the parts, in the order in which they are started."""
        rest = sorted((s for s in self.sizes if s != self.main), reverse=True)
        large = [f"curve-{s}" for s in rest if s > self.main]
        small = [f"curve-{s}" for s in rest if s < self.main]
        return ["cohort", "arrays", "default", *large, "ood", "wang2019", *small]

    @property
    def data(self) -> str:
        """Digest of the cohort: equal digests are equal voxels."""
        return _digest("phantom", VERSION, self.cohort_seed, self.training, self.validation,
                       self.test, self.outside)  # fmt: skip

    def fit_digest(self, part: str) -> str:
        """Digest of what decides a network's weights; its checkpoints lie in a folder of it."""
        name = "wang2019" if part == "wang2019" else "default"
        config = self.config(name).model_dump(
            mode="json",
            include={"architecture", "optimisation", "preprocessing", "recipe", "phase_dropout",
                     "members"},
        )  # fmt: skip
        size = int(part.removeprefix("curve-")) if part.startswith("curve-") else self.main
        return _digest(self.data, config, size, self.seed, code(*_IMAGE, *_FIT))

    def digest(self, part: str) -> str:
        """Digest of configuration, data, seed and code version of a part."""
        spec = self.config("default").preprocessing.model_dump(mode="json")
        if part == "cohort":
            return self.data
        if part == "arrays":
            return _digest(self.data, spec, code(*_IMAGE))
        if part == "default":
            config = self.config("default").model_dump(mode="json")
            return _digest(self.fit_digest(part), config, code(*_SCORE, *_BUNDLE))
        if part == "ood":
            return _digest(self.digest("default"), self.spoiled, self.real, code(*_OUTLIERS))
        return _digest(self.fit_digest(part), code(*_SCORE))


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
        fits = [p for p in plan.parts if p in ("default", "wang2019") or p.startswith("curve-")]
        return cls(
            data=plan.data,
            parts={p: plan.digest(p) for p in plan.parts},
            fits={p: plan.fit_digest(p) for p in fits},
        )


QUICK = Plan(
    name="quick", training=40, validation=18, test=18, outside=4, main=24, sizes=(24, 40),
    spoiled=4, real=2,
)  # fmt: skip


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
