"""Edits of enhancement: the tissue's course over the phases without one kind of change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.imaging.edits.scene import Scene

Array = NDArray[np.float64]

_TISSUE = (0.0, 0.8)  # radii over the border whose median is 'the tissue'
# First pass: what is left of arterial enhancement in the venous phase, over parenchyma then.
_LEFT = 0.13
# Share of washout that has happened by the venous phase; all has by the delayed one.
_BY_VENOUS = 0.6
_DROP = 0.04  # from venous to delayed phase, that is surely a loss
_CONTRAST = 0.12  # late contrast with parenchyma that is small and yet seen
_TRACE = 0.005  # what is left of such a contrast where it is not seen
_ENOUGH, _SOFT = 0.12, 0.04  # over parenchyma: clearly brighter, and how softly that is told
# Share of a rise that goes unseen where something else has lifted all of the tissue.
_COVERED = 0.8


def retained(scene: Scene) -> float:
    """How much of other changes the delayed phase hides, being brighter than parenchyma: 0 to 0.8.

    Delayed hyperenhancement lifts tissue whatever its level was, so it hides where it came from.
    """
    delayed = scene.phase("delayed")
    if delayed is None:
        return 0.0
    over = float(scene.level(0.4, 0.9)[delayed]) - _ENOUGH
    return _COVERED * float(0.5 * (1 + np.tanh(over / _SOFT)))


def arterial_hyperenhancement(scene: Scene) -> Array:
    """Bring tissue that is brighter than parenchyma in the arterial phase down to it."""
    out = scene.relative.copy()
    first, venous = scene.phase("arterial"), scene.phase("portal_venous")
    if first is None:
        return out
    over = max(float(scene.level(*_TISSUE, 0.75)[first]), 0.0)
    taken = np.clip(scene.smooth[first], 0.0, over) * scene.cover()
    out[first] -= taken
    if venous is not None:
        out[venous] -= _LEFT * taken
    return out


def washout(scene: Scene) -> Array:
    """Carry the level before the loss on: it is read by running the loss backwards.

    What is left of the bolus in the venous phase is not part of it. Without a venous phase the
    arterial level stands for the level before, parenchyma's at most.
    """
    out = scene.relative.copy()
    first, venous = scene.phase("arterial"), scene.phase("portal_venous")
    delayed = scene.phase("delayed")
    if delayed is None or (venous is None and first is None):
        return out
    level = scene.level(*_TISSUE)
    end = float(level[delayed])
    if venous is not None:
        bolus = _LEFT * max(float(level[first]), 0.0) if first is not None else 0.0
        drop = float(level[venous]) - bolus - end
        before = float(np.clip(end + drop / (1 - _BY_VENOUS), -_CONTRAST, _CONTRAST))
        lost = max(before - end, 0.0) * float(np.clip(drop / _DROP, 0.0, 1.0))
    else:
        lost = max(min(float(level[first]), 0.0) - end, 0.0)
    out[delayed] += lost * scene.cover()
    if venous is not None:
        out[venous] += lost * _BY_VENOUS * scene.cover()
    return out


def progressive_enhancement(scene: Scene) -> Array:
    """Keep late phases at the arterial level, where they rose towards that of parenchyma.

    What lies above parenchyma has another cause and stays.
    """
    out = scene.relative.copy()
    first = scene.phase("arterial")
    if first is None:
        return out
    level = np.minimum(scene.level(0.3, 0.85, 0.6), 0.03)
    for p in scene.present:
        if p == first:
            continue
        rise = max(float(level[p] - level[first]), 0.0)
        gained = np.clip(np.minimum(scene.smooth[p], 0.05) - scene.smooth[first], 0.0, rise)
        if scene.phases[p] == "delayed":
            gained = gained * (1 - retained(scene))
        out[p] -= gained * scene.cover()
    return out


def delayed_hyperenhancement(scene: Scene) -> Array:
    """Let the delayed phase follow the venous one."""
    out = scene.relative.copy()
    venous, delayed = scene.phase("portal_venous"), scene.phase("delayed")
    if venous is None or delayed is None:
        return out
    gained = np.maximum(scene.smooth[delayed] - scene.smooth[venous], 0.0)
    out[delayed] -= gained * scene.cover()
    return out


def isointense_late(scene: Scene) -> Array:
    """Bring back a late contrast with parenchyma, to the side on which a trace of it is left.

    Tissue that was darker in the arterial phase gets that level back. A lesion that has a late
    contrast already is left as it is.
    """
    out = scene.relative.copy()
    first = scene.phase("arterial")
    level = scene.level(0.4, 0.85)
    late = [p for p in scene.present if p != first]
    if not late:
        return out
    early = float(level[first]) if first is not None else 0.0
    now = float(np.mean(level[late]))
    goal = early if early < -0.08 else _CONTRAST * float(np.tanh(now / _TRACE))
    alike = float(np.clip((_CONTRAST - abs(now)) / (0.5 * _CONTRAST), 0.0, 1.0))
    for p in late:
        out[p] += alike * (goal - now) * scene.cover()
    return out
