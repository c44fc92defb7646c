"""A cohort with classes, features and a vocabulary that are not ours, and a MONAI network on it.

The voxels are the tiny synthetic cohort's; its six classes are merged into three of other names,
and five of its features are kept under other names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.cnn.data import load_split
from models.cohort.format import read_cohort
from models.vocabulary import read_vocabulary
from models.voi import Preprocessing, centre

CLASSES = {
    "hcc": "arising_here", "icc": "arising_here", "crc_metastasis": "spread_from_elsewhere",
    "cyst": "harmless", "hemangioma": "harmless", "fnh": "harmless",
}  # fmt: skip
FEATURES = {
    "washout": "late_darkening",
    "arterial_hyperenhancement": "early_flush",
    "thin_walled": "thin_rim",
    "hypoenhancing_core": "dark_centre",
    "progressive_enhancement": "slow_filling",
}
SPEC = Preprocessing(tensor_voxels=32)


def foreign_cohort(source: Path, folder: Path) -> Path:
    """`folder`/cohort.json and vocabulary.json over the images of `source`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = json.loads((source / "cohort.json").read_text("utf-8"))
    for name in ("images", "masks"):
        if (source / name).is_dir():
            (folder / name).symlink_to(source / name, target_is_directory=True)
    data |= {
        "name": "elsewhere",
        "classes": list(dict.fromkeys(CLASSES.values())),
        "features": list(FEATURES.values()),
        "outside": [],
    }
    for split in ("training", "validation", "test"):
        for lesion in data[split]:
            lesion["class"] = CLASSES[lesion["class"]]
            lesion["features"] = _renamed(lesion["features"])
            lesion["masks"] = _renamed(lesion["masks"], keep="lesion")
    (folder / "cohort.json").write_text(json.dumps(data), "utf-8")
    vocabulary = {
        "name": "site-b",
        "classes": [
            {"id": c, "label": c.replace("_", " "), "plural": c.replace("_", " ") + " lesions"}
            for c in sorted(data["classes"])
        ],
        "phases": [
            {"id": p, "label": p.replace("_", " "), "seconds": s}
            for p, s in zip(data["phases"], (20, 70, 180), strict=True)
        ],
        "features": [
            {"id": f, "label": f.replace("_", " "), "typical_of": []} for f in data["features"]
        ],
    }
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary), "utf-8")
    return folder


def _renamed(entries: dict[str, Any], keep: str = "") -> dict[str, Any]:
    return {
        FEATURES.get(k, k): v for k, v in entries.items() if k in FEATURES or (keep and k == keep)
    }


def train_briefly(module: torch.nn.Module, cohort: Path, steps: int, axes: str = "xyz") -> None:
    """A few steps of Adam on the training lesions, in the vocabulary's order of classes.

    axes: in which order the network takes space.
    """
    words = read_vocabulary(cohort / "vocabulary.json")
    split = load_split(read_cohort(cohort), "training", words, SPEC)
    x = torch.from_numpy(np.stack([centre(b, SPEC) for b in split.bases]))
    x = x.permute(0, 1, *(2 + "xyz".index(a) for a in axes))
    y = torch.from_numpy(split.classes)
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    module.train()
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randperm(len(x), generator=order)[:12]
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
        optimiser.step()
    module.eval()
