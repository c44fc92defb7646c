"""Grad-CAM: where the network's own layer speaks for the target.

    map = relu(sum over channels k of alpha_k * A_k), alpha the mean gradient at the layer's map A

Source: Selvaraju et al. 2017 (arXiv 1610.02391). A layer is coarser than the input and joins the
phases: the map is resampled and shared out evenly over the phases. A goal's baseline plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.attribution import chunked
from models.attribution.goal import Attribution, Goal, Settings, changes
from models.errors import InputError
from models.model import Model


def grad_cam(
    model: Model,
    x: NDArray[np.float32],
    goals: Sequence[Goal],
    settings: Settings = Settings(),  # noqa: B008 - frozen
    tick: chunked.Tick | None = None,
) -> list[Attribution]:
    """A map for each goal at the tap of `settings`. The forward is shared.

    Raises InputError where the network has no such map.
    """
    tap, held = _held(model, x, settings.cam_tap)
    copies = np.broadcast_to(x, (len(goals), *x.shape))
    slopes = chunked.row_gradients(model, copies, [g.weights for g in goals], tick, tap)
    voxels = held[0].size
    found = []
    for slope, change in zip(slopes, changes(model, x, goals), strict=True):
        # The gradient along a uniform shift is the sum over voxels of the map's gradient.
        cam = np.maximum(np.tensordot(slope.astype(np.float64) / voxels, held, axes=1), 0)
        found.append(Attribution(_spread(cam, x), change, complete=False))
    return found


def _maps(model: Model) -> list[str]:
    """Taps that are means of a map, in the network's order."""
    names = getattr(model, "outputs", None)
    taps = list(model.info.taps)
    return [t for t in taps if f"{t}_map" in names] if names is not None else taps[:-1]


def _held(
    model: Model, x: NDArray[np.float32], wanted: str | None
) -> tuple[str, NDArray[np.float64]]:
    """(tap, its map [D, x, y, z]): the one wanted, or the deepest that is not too coarse."""
    maps = _maps(model)
    if not maps or (wanted is not None and wanted not in maps):
        raise InputError(
            "the network has no such map", code="no_map", field="cam_tap",
            found=wanted or "none", expected=", ".join(maps) or "a tap with a map",
        )  # fmt: skip
    outputs = model.forward(x[None], [f"{t}_map" for t in ([wanted] if wanted else maps)])
    fine = [t for t in maps if wanted or outputs[f"{t}_map"].shape[2] * 4 >= x.shape[1]]
    tap = wanted or (fine or maps)[-1]
    return tap, outputs[f"{tap}_map"][0].astype(np.float64)


def _spread(cam: NDArray[np.float64], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """[a, b, c] -> [P, K, K, K] by linear interpolation; its sum is kept, shared by the phases."""
    zoom = [k / n for k, n in zip(x.shape[1:], cam.shape, strict=True)]
    from scipy import ndimage  # not at the start of a service, see models.voi

    fine = ndimage.zoom(cam, zoom, order=1, mode="nearest", grid_mode=True) if cam.size else cam
    total, held = float(cam.sum()), float(fine.sum())
    fine = fine * (total / held) if abs(held) > 1e-12 * float(np.abs(fine).sum()) else fine
    return np.broadcast_to(fine / len(x), x.shape).astype(np.float32)
