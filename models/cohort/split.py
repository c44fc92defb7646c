"""Splits and folds by patient, classes spread evenly, the same for the same seed.

A patient's lesions share their scanner, liver and contrast timing; splitting them by lesion would
let a network recognise the patient. So whole patients move, and each goes where its lesions'
classes are scarcest.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping

from models.errors import InputError

FRACTIONS = {"training": 0.6, "validation": 0.2, "test": 0.2}


def split_patients(
    patient_of: Mapping[str, str],
    class_of: Mapping[str, str],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> dict[str, str]:
    """Patient id -> name of a split.

    patient_of, class_of: lesion id -> patient id, class id. fractions: split -> its share of the
    lesions; they need not sum to one. The outcome depends on the ids and the seed, not on the order
    of the mappings. Largest patients go first, each to the split that lacks most of its lesions'
    classes; among equals, patients are shuffled by the seed.

    Raises InputError where the shares are not positive numbers or the two mappings disagree.
    """
    share = _shares(fractions)
    if patient_of.keys() != class_of.keys():
        odd = sorted(patient_of.keys() ^ class_of.keys())[0]
        raise InputError("a lesion without a patient or a class", field="lesions", found=odd)
    classes: dict[str, Counter[str]] = {}
    for lesion, patient in patient_of.items():
        classes.setdefault(patient, Counter())[class_of[lesion]] += 1
    whole = Counter(class_of.values())
    got: dict[str, Counter[str]] = {name: Counter() for name in share}
    size: Counter[str] = Counter()
    total = len(patient_of)

    def lack(name: str, lesions: Counter[str]) -> float:
        """Lesions that the split still lacks of these classes, plus those that it lacks in all.

        Without the second, classes of one or two lesions would all go to the largest split.
        """
        wanted = sum(n * (share[name] * whole[c] - got[name][c]) for c, n in lesions.items())
        return wanted / lesions.total() + share[name] * total - size[name]

    chosen = {}
    for patient in sorted(classes, key=lambda p: (-classes[p].total(), _draw(seed, p))):
        lesions = classes[patient]
        name = max(share, key=lambda s: lack(s, lesions))
        got[name].update(lesions)
        size[name] += lesions.total()
        chosen[patient] = name
    return chosen


def folds(
    patient_of: Mapping[str, str], class_of: Mapping[str, str], k: int, seed: int = 0
) -> dict[str, int]:
    """Patient id -> fold, 1 to k: k equal shares by patient, classes spread evenly.

    Raises InputError for fewer than two folds or fewer patients than folds.
    """
    patients = len(set(patient_of.values()))
    if not 2 <= k <= patients:
        raise InputError(
            "no such number of folds", field="folds", found=str(k),
            expected=f"2 to {patients}, the number of patients",
        )  # fmt: skip
    names = {str(i): 1.0 for i in range(1, k + 1)}
    return {p: int(s) for p, s in split_patients(patient_of, class_of, names, seed).items()}


def _shares(fractions: Mapping[str, float]) -> dict[str, float]:
    total = sum(fractions.values())
    if (
        not fractions
        or any(not (math.isfinite(f) and f >= 0) for f in fractions.values())
        or (total <= 0)
    ):
        raise InputError(
            "not shares of a cohort",
            field="splits",
            found=", ".join(f"{k} {v:g}" for k, v in fractions.items()) or "none",
            expected="positive numbers, such as training 0.6, validation 0.2, test 0.2",
        )
    return {name: value / total for name, value in fractions.items() if value > 0}


def _draw(seed: int, patient: str) -> bytes:
    """A patient's place in the shuffle: its own, whoever else is in the cohort."""
    return hashlib.sha256(f"{seed}/{patient}".encode()).digest()
