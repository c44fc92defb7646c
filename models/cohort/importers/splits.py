"""Where imported lesions go: as the source says, else by patient with classes spread evenly."""

from __future__ import annotations

from collections.abc import Sequence

from models.cohort.format import OUTSIDE, SPLITS
from models.cohort.importers.base import Found, Options, Skip
from models.cohort.split import split_patients
from models.errors import InputError


def place(cases: Sequence[Found], options: Options) -> tuple[dict[str, str], list[Skip]]:
    """Lesion id -> split, in the order of `cases`, and the lesions that no split can take.

    A source that names some splits keeps them; its unnamed lesions are shared out over the splits
    that it does not name, by options.splits and options.seed. A patient whom the source put into
    two splits, or an outside lesion of a training patient, would leak: such lesions are skipped
    from the later of the two in the order training, validation, test, outside.
    """
    named = {c.split for c in cases} - {None, OUTSIDE}
    home: dict[str, str] = {}
    for split in SPLITS:
        for case in cases:
            if case.split == split:
                home.setdefault(case.patient_id, split)
    shares = {
        name: share
        for name, share in zip(SPLITS, options.splits, strict=True)
        if name not in named or named == set(SPLITS)
    }
    # Where the source names only 'training', its unnamed lesions are for validation and test.
    free = [c for c in cases if c.split is None and c.patient_id not in home]
    home |= split_patients(
        {c.lesion_id: c.patient_id for c in free},
        {c.lesion_id: c.class_id for c in free},
        shares,
        options.seed,
    )
    placed: dict[str, str] = {}
    skipped = []
    for case in cases:
        split = case.split or home[case.patient_id]
        patient = home.get(case.patient_id, split)
        leaks = patient == "training" if split == OUTSIDE else patient != split
        if leaks:
            error = InputError(
                "the patient is in another split",
                code="patient_leak",
                field="split",
                found=f"{split}, and {patient} for patient {case.patient_id!r}",
                expected="splits by patient",
            )
            skipped.append(Skip(case.lesion_id, error))
        else:
            placed[case.lesion_id] = split
    return placed, skipped
