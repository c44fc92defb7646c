"""LLD-MMRI's names and numbers, and ours."""

from __future__ import annotations

from models.errors import InputError

HIDDEN = -1
OUTSIDE_CLASS = "abscess"
PHASES = {"C+A": "arterial", "C+V": "portal_venous", "C+Delay": "delayed"}
# Last, so that the arterial phase stays the one that the others are laid on.
PRECONTRAST = ("C-pre", "precontrast")
CLASSES = {
    0: "hemangioma",
    1: "icc",
    2: OUTSIDE_CLASS,
    3: "metastasis",  # of any primary, so not the default vocabulary's crc_metastasis
    4: "cyst",
    5: "fnh",
    6: "hcc",
}


def class_of(number: object) -> str:
    """The class id of LLD-MMRI's number. Raises InputError for a hidden or unknown one."""
    try:
        category = int(str(number).removesuffix(".0"))
    except ValueError:
        category = HIDDEN - 1
    if category == HIDDEN:
        raise InputError(
            "the class is hidden by the challenge", code="hidden_class", field="category",
            found=str(HIDDEN),
        )  # fmt: skip
    if category not in CLASSES:
        raise InputError(
            "no such class", code="unknown_class", field="category", found=str(number)[:40],
            expected=", ".join(f"{n} {name}" for n, name in CLASSES.items()),
        )  # fmt: skip
    return CLASSES[category]
