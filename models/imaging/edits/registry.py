"""Which feature has an edit, and how an edit is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.imaging.edits import centre, growth, kinetics, periphery, rim, texture
from models.imaging.edits.scene import Edit, Scene
from models.vocabulary import liver_mri
from models.voi import Preprocessing

_PHASES = tuple(liver_mri().phase_ids)

# A new edit is one function and one line here. A feature of another vocabulary has none.
EDITS: dict[str, Edit] = {
    "arterial_hyperenhancement": kinetics.arterial_hyperenhancement,
    "washout": kinetics.washout,
    "enhancing_capsule": rim.enhancing_capsule,
    "central_scar": centre.central_scar,
    "nodular_peripheral_enhancement": periphery.nodular_peripheral_enhancement,
    "progressive_centripetal_filling": periphery.progressive_centripetal_filling,
    "progressive_enhancement": kinetics.progressive_enhancement,
    "delayed_hyperenhancement": kinetics.delayed_hyperenhancement,
    "isointense_late": kinetics.isointense_late,
    "hypoenhancing_core": centre.hypoenhancing_core,
    "thin_walled": rim.thin_walled,
    "heterogeneous": texture.heterogeneous,
    "infiltrative_growth": growth.rounded,
    "nodular_growth": growth.rounded,
}


def remove(
    feature_id: str,
    base: NDArray[np.float32],
    size_mm: NDArray[np.floating] | Sequence[float],
    spec: Preprocessing | None = None,
    phases: Sequence[str] = _PHASES,
) -> NDArray[np.float32]:
    """The base [P, M, M, M] with the feature edited away; size_mm: the VOI's edges [3].

    Deterministic. Phases that were not acquired stay zero, and an edit that needs one leaves the
    image as it is. Raises InputError for a feature without an edit (`EDITS` holds those that have
    one) and for edges that are not positive.
    """
    return Edits(base, size_mm, spec, phases).without(feature_id).copy()


class Edits:
    """One lesion without this feature or that. What edits have in common (its border, where each
    voxel lies) is found once, and an edit is made once however often it is asked for.

    Arguments as of `remove`.
    """

    def __init__(
        self,
        base: NDArray[np.float32],
        size_mm: NDArray[np.floating] | Sequence[float],
        spec: Preprocessing | None = None,
        phases: Sequence[str] = _PHASES,
    ) -> None:
        self.base = base
        self._scene = Scene(
            base, np.asarray(size_mm, np.float64), spec or Preprocessing(), tuple(phases)
        )
        self._made: dict[Edit, NDArray[np.float32]] = {}

    def without(self, feature_id: str) -> NDArray[np.float32]:
        """As `remove`. The array is shared: read it, don't write in it."""
        edit = EDITS.get(feature_id)
        if edit is None:
            raise _unknown(feature_id)
        if not self._scene.present:
            return self.base.copy()
        if edit not in self._made:
            self._made[edit] = self._scene.restore(edit(self._scene))
            self._made[edit].flags.writeable = False
        return self._made[edit]


def _unknown(feature_id: str) -> InputError:
    return InputError(
        "no image edit for this feature",
        code="no_edit",
        field="feature",
        found=feature_id,
        expected=", ".join(EDITS),
    )
