"""What every experiment reads: lesions with their activations, and lesions switched on and off.

A `Sample` is one split or one stress cohort, row by row. `Pairs` are the same lesions with one
feature taken away, in the rendering (the truth, for phantoms) or in the image (an edit).
Experiments are functions of these: none renders, trains or reads a file, all see equal numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """n lesions through one network.

    ids, patients: [n]. classes: true class index [n]. labels: 1 present, 0 absent, NaN not
    assessed [n, F]. sizes_mm: VOI edges [n, 3]. bases: [n, P, M, M, M] (models.voi.normalise).
    logits: plain view, not calibrated [n, C]. pass_logits: stochastic passes [n, T, C]. plain,
    averaged: tap -> [n, D], of the plain view and averaged over the passes; every tap. passes:
    tap -> [n, T, D], each pass by itself, of the taps whose spread is studied (the last one, which
    the published methods read); it may be empty.
    """

    ids: tuple[str, ...]
    patients: tuple[str, ...]
    classes: NDArray[np.int64]
    labels: NDArray[np.float64]
    sizes_mm: NDArray[np.float64]
    bases: NDArray[np.float32]
    logits: NDArray[np.float32]
    pass_logits: NDArray[np.float32]
    plain: Mapping[str, NDArray[np.float32]]
    averaged: Mapping[str, NDArray[np.float32]]
    passes: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def joined(self, taps: list[str] | tuple[str, ...], *, plain: bool = False) -> NDArray:
        """The taps side by side, [n, D]."""
        source = self.plain if plain else self.averaged
        return np.concatenate([source[t] for t in taps], axis=1)

    def take(self, rows: NDArray[np.int64]) -> Sample:
        """Some of the lesions, in the order of `rows`."""
        arrays: dict[str, Any] = {f: getattr(self, f)[rows] for f in _ROWS}
        return Sample(
            ids=tuple(self.ids[i] for i in rows),
            patients=tuple(self.patients[i] for i in rows),
            **arrays,
            plain={t: v[rows] for t, v in self.plain.items()},
            averaged={t: v[rows] for t, v in self.averaged.items()},
            passes={t: v[rows] for t, v in self.passes.items()},
        )

    def save(self, folder: Path) -> None:
        """One .npy an array, so that a reader maps what it needs; `sample.json` comes last."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ROWS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        groups = {"plain": self.plain, "averaged": self.averaged, "passes": self.passes}
        _save_taps(folder, groups)
        record = {
            "ids": self.ids,
            "patients": self.patients,
            "taps": list(self.plain),
            "pass_taps": list(self.passes),
        }
        (folder / "sample.json").write_text(json.dumps(record), "utf-8")

    @classmethod
    def open(cls, folder: Path) -> Sample:
        """What `save` wrote, mapped from disk."""
        record = json.loads((folder / "sample.json").read_text("utf-8"))
        arrays: dict[str, Any] = {name: _open(folder / f"{name}.npy") for name in _ROWS}
        return cls(
            ids=tuple(record["ids"]),
            patients=tuple(record["patients"]),
            **arrays,
            **_open_taps(folder, ("plain", "averaged"), record["taps"]),
            **_open_taps(folder, ("passes",), record.get("pass_taps", [])),
        )


_ROWS = ("classes", "labels", "sizes_mm", "bases", "logits", "pass_logits")


@dataclass(frozen=True)
class Pairs:
    """k times a lesion of a sample with one feature taken away, all else equal.

    lesion: row in the sample [k]. feature: index in the vocabulary [k]. logits: of the plain view
    without the feature [k, C]. plain: tap -> [k, D] without it. x: the plain view without it,
    float16 [k, P, K, K, K]. `origin`: 'rendering' (switched off in the phantom) or 'edit'.
    What the lesion gives with the feature stands in the sample.
    """

    origin: str
    lesion: NDArray[np.int64]
    feature: NDArray[np.int64]
    logits: NDArray[np.float32]
    plain: Mapping[str, NDArray[np.float32]]
    x: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.lesion)

    def joined(self, taps: list[str] | tuple[str, ...]) -> NDArray:
        """The taps side by side, [k, D], without the feature."""
        return np.concatenate([self.plain[t] for t in taps], axis=1)

    def save(self, folder: Path) -> None:
        """As Sample.save."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("lesion", "feature", "logits", "x"):
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        _save_taps(folder, {"plain": self.plain})
        record = {"origin": self.origin, "taps": list(self.plain)}
        (folder / "pairs.json").write_text(json.dumps(record), "utf-8")

    @classmethod
    def open(cls, folder: Path) -> Pairs:
        """What `save` wrote, mapped from disk."""
        record = json.loads((folder / "pairs.json").read_text("utf-8"))
        names = ("lesion", "feature", "logits", "x")
        arrays: dict[str, Any] = {name: _open(folder / f"{name}.npy") for name in names}
        return cls(
            origin=record["origin"], **arrays, **_open_taps(folder, ("plain",), record["taps"])
        )


def _open(path: Path) -> NDArray:
    # Copy on write: torch wants memory that could be written.
    return np.load(path, mmap_mode="c", allow_pickle=False)


def _save_taps(folder: Path, groups: Mapping[str, Mapping[str, NDArray]]) -> None:
    for group, taps in groups.items():
        for tap, value in taps.items():
            np.save(folder / f"{group}-{tap}.npy", value, allow_pickle=False)


def _open_taps(folder: Path, groups: tuple[str, ...], taps: list[str]) -> dict[str, Any]:
    return {g: {t: _open(folder / f"{g}-{t}.npy") for t in taps} for g in groups}
