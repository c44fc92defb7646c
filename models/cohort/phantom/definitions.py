"""What each label means in the images: what is rendered when a feature is on, and when it is off.

Ratios are signal over the parenchyma of the same phase; s is the strength, 0.35 to 1.
"""

from __future__ import annotations

from typing import NamedTuple


class Definition(NamedTuple):
    """on: what the feature adds. off: what is there instead."""

    on: str
    off: str


DEFINITIONS: dict[str, Definition] = {
    "arterial_hyperenhancement": Definition(
        "lesion tissue gains 0.25 + 0.45 s in the arterial phase, a fifth of it in the venous",
        "the arterial level of the base tissue: iso- or hypointense",
    ),
    "washout": Definition(
        "lesion tissue falls to a ratio of 0.84 - 0.20 s (by at least 0.10) by the delayed phase, "
        "two thirds of the way in the venous",
        "the late phases keep the base level",
    ),
    "enhancing_capsule": Definition(
        "a closed rim of 2.2-3.2 mm inside the border, ratio 1.08, 1.32, 1.42 in the three phases",
        "lesion tissue meets parenchyma",
    ),
    "central_scar": Definition(
        "a star of five or six septa around a hub, its axis near the slices' normal; dark in the "
        "first two phases, bright in the delayed",
        "lesion tissue in the centre",
    ),
    "nodular_peripheral_enhancement": Definition(
        "seven to eleven globules along the inside of the border with the signal of blood",
        "the periphery is like the rest of the lesion",
    ),
    "progressive_centripetal_filling": Definition(
        "a front of blood signal from the border inwards: a rim, about half, 50-90 % of the radius",
        "nothing fills in; the interior keeps its level",
    ),
    "progressive_enhancement": Definition(
        "the whole tissue rises from phase to phase towards parenchyma, by (0.45 + 0.55 s) of the "
        "gap, never above it",
        "tissue over parenchyma stays level within 0.03 (after arterial hyperenhancement: the "
        "base tissue's late level, within 0.15)",
    ),
    "delayed_hyperenhancement": Definition(
        "all perfused tissue is raised towards a ratio of 1.20 + 0.20 s in the delayed phase alone",
        "the delayed phase follows the venous one",
    ),
    "isointense_late": Definition(
        "0.55 + 0.45 s of the contrast with parenchyma is gone in the venous and delayed phases",
        "a late contrast of at least 0.06 stays",
    ),
    "hypoenhancing_core": Definition(
        "a smooth core of fluid signal that takes up nothing, 0.3-0.9 of the radius by class",
        "the centre is like the rest of the lesion",
    ),
    "thin_walled": Definition(
        "a wall of 1.2-1.8 mm on the border, brightest in the arterial phase (ratio 1.6 before "
        "partial volume)",
        "no wall",
    ),
    "heterogeneous": Definition(
        "a mosaic of 26 brighter and darker cells, up to +-(0.11 + 0.19 s) of parenchyma in every "
        "phase",
        "homogeneous but for the fine texture that parenchyma has too",
    ),
    "infiltrative_growth": Definition(
        "tongues of tissue reach into parenchyma and the border fades over millimetres",
        "a well-defined border, one voxel wide",
    ),
    "nodular_growth": Definition(
        "seven nodules bulge out of the lesion, set off from it by clefts of parenchyma, and three "
        "satellites lie beside it",
        "one rounded lesion with a slightly rough border",
    ),
}
