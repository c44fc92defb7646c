"""What each class tends to look like: P(feature | class), base tissue, size. Plain data.

Orders of magnitude follow the radiological reading rules in METHOD of Wang, Hamm et al. 2019 (doi
10.1007/s00330-019-06214-8); they are chosen, not estimated from patients.
"""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = ("hcc", "icc", "crc_metastasis", "cyst", "hemangioma", "fnh")

# Never trained on: a class with a look of its own (`abscess`), none of the features below.
OUTSIDE_CLASSES = ("abscess",)

# Order matters: a feature's place seeds its geometry. Append only.
FEATURES = (
    "arterial_hyperenhancement",
    "washout",
    "enhancing_capsule",
    "central_scar",
    "nodular_peripheral_enhancement",
    "progressive_centripetal_filling",
    "progressive_enhancement",
    "delayed_hyperenhancement",
    "isointense_late",
    "hypoenhancing_core",
    "thin_walled",
    "heterogeneous",
    "infiltrative_growth",
    "nodular_growth",
)

#                                    hcc   icc   crc   cyst  hem   fnh
_GIVEN_CLASS: dict[str, tuple[float, ...]] = {
    "arterial_hyperenhancement": (0.82, 0.08, 0.07, 0.02, 0.04, 0.86),
    "washout": (0.70, 0.06, 0.07, 0.02, 0.02, 0.05),
    "enhancing_capsule": (0.64, 0.06, 0.64, 0.04, 0.04, 0.05),
    "central_scar": (0.04, 0.05, 0.03, 0.02, 0.04, 0.66),
    "nodular_peripheral_enhancement": (0.02, 0.05, 0.05, 0.02, 0.80, 0.02),
    "progressive_centripetal_filling": (0.02, 0.05, 0.04, 0.02, 0.76, 0.02),
    "progressive_enhancement": (0.05, 0.74, 0.64, 0.03, 0.07, 0.05),
    "delayed_hyperenhancement": (0.03, 0.09, 0.05, 0.02, 0.62, 0.05),
    "isointense_late": (0.07, 0.04, 0.03, 0.02, 0.04, 0.70),
    "hypoenhancing_core": (0.08, 0.10, 0.70, 0.78, 0.08, 0.03),
    "thin_walled": (0.03, 0.02, 0.03, 0.78, 0.04, 0.03),
    "heterogeneous": (0.62, 0.60, 0.18, 0.04, 0.10, 0.08),
    "infiltrative_growth": (0.07, 0.64, 0.09, 0.02, 0.03, 0.02),
    "nodular_growth": (0.09, 0.60, 0.13, 0.05, 0.07, 0.06),
}

# Pairs that contradict each other or hide one another; the second one drawn gives way.
_EXCLUDES: dict[str, tuple[str, ...]] = {
    "washout": (
        "progressive_enhancement",
        "delayed_hyperenhancement",
        "isointense_late",
        "progressive_centripetal_filling",
    ),
    "arterial_hyperenhancement": (
        "progressive_enhancement",
        "nodular_peripheral_enhancement",
        "progressive_centripetal_filling",
    ),
    "isointense_late": (
        "progressive_enhancement",
        "delayed_hyperenhancement",
        "nodular_peripheral_enhancement",
        "progressive_centripetal_filling",
        "hypoenhancing_core",
        "heterogeneous",
    ),
    "hypoenhancing_core": ("central_scar", "progressive_centripetal_filling"),
    "central_scar": ("progressive_centripetal_filling",),
    "enhancing_capsule": ("thin_walled", "infiltrative_growth"),
    "thin_walled": ("infiltrative_growth",),
    "progressive_centripetal_filling": ("progressive_enhancement",),
}

# A structure needs room to be seen: smallest lesion diameter in mm.
SMALLEST_MM: dict[str, float] = {
    "central_scar": 26.0,
    "enhancing_capsule": 18.0,
    "nodular_peripheral_enhancement": 22.0,
    "progressive_centripetal_filling": 20.0,
    "hypoenhancing_core": 16.0,
    "heterogeneous": 20.0,
    "infiltrative_growth": 20.0,
    "nodular_growth": 20.0,
}

# What grows beyond the core shape must still lie on the grid.
LARGEST_MM: dict[str, float] = {"infiltrative_growth": 42.0, "nodular_growth": 42.0}

MOST_FEATURES = 4
ATYPICAL_SHARE = 0.10  # of lesions, whose features follow the average over classes by half


@dataclass(frozen=True)
class Profile:
    """One class. base: signal of the tissue over parenchyma with every feature off; mean, sd.

    core_radius: range of a hypoenhancing core's radius over the lesion's. darker_late: share of its
    arterially enhancing lesions whose base tissue ends slightly below parenchyma, not above it.
    """

    class_id: str
    base: tuple[float, float]
    diameter_mm: float
    roughness: float
    core_radius: tuple[float, float]
    darker_late: float = 0.5
    smallest_mm: float = 12.0


_PROFILES = {
    p.class_id: p
    for p in (
        Profile("hcc", (0.86, 0.035), 34.0, 0.055, (0.35, 0.55), 0.7),
        Profile("icc", (0.78, 0.045), 38.0, 0.085, (0.35, 0.55)),
        Profile("crc_metastasis", (0.75, 0.045), 29.0, 0.065, (0.42, 0.66)),
        Profile("cyst", (0.66, 0.055), 26.0, 0.030, (0.72, 0.88)),
        Profile("hemangioma", (0.71, 0.045), 32.0, 0.065, (0.30, 0.50)),
        Profile("fnh", (0.87, 0.030), 35.0, 0.050, (0.35, 0.50), 0.3),
        Profile("abscess", (0.84, 0.030), 36.0, 0.075, (0.35, 0.50), smallest_mm=24.0),
    )
}


def profile(class_id: str) -> Profile:
    """The profile of a class; KeyError for an unknown one."""
    return _PROFILES[class_id]


def chance(feature: str, class_id: str) -> float:
    """P(feature | class) before conflicts and the cap on their number; 0 outside the classes."""
    if class_id not in CLASSES:
        return 0.0
    return _GIVEN_CLASS[feature][CLASSES.index(class_id)]


def mean_chance(feature: str) -> float:
    """P(feature), the mean over the classes."""
    return sum(_GIVEN_CLASS[feature]) / len(CLASSES)


def conflict(a: str, b: str) -> bool:
    """True where the two can't be on one lesion."""
    return b in _EXCLUDES.get(a, ()) or a in _EXCLUDES.get(b, ())
