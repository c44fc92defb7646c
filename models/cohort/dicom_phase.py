"""Which series is which contrast phase? Times first, descriptions second, and ask when unsure.

    1. seconds after the bolus      acquisition time - contrast bolus start, against usual delays
    2. the order of one dynamic     series of one technique whose gaps fit the usual delays
    3. words in descriptions        only where times do not decide

Times go first because descriptions rarely name the phase in real archives and are copied from one
series to the next; where both speak and differ, nobody is believed and the user is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from models.cohort.dicom_slices import Stack, clean
from models.errors import InputError
from models.vocabulary import liver_mri

# A delay is taken for a phase's within this factor; between two phases the nearer one wins.
_FACTOR = 3.0
# One reading of the times must be this much better (natural log of a ratio) than the next one.
_MARGIN = 0.3
_GAP_FACTOR = 2.5
_LONGEST_DYNAMIC = 24  # beyond this many time points, gaps alone never decide

_WORDS = {
    "arterial": r"\b(arterial|arteriell\w*|arterielle?|artérielle?|art|hap|early[ _]?art\w*)\b",
    "portal_venous": r"\b(portal\w*|porto\w*|pv|pvp|portven\w*|ven|venous|venös\w*|veineux)\b",
    "delayed": r"\b(delay\w*|delayed|del|late|equilib\w*|spät\w*|tardi\w*|\d+ ?min)\b",
    "pre-contrast": r"\b(pre|pre ?contrast|native?|plain|unenhanced|nonc|noncon\w*)\b",
    "hepatobiliary": r"\b(hepatobil\w*|hbp|hb ?phase|hepatospez\w*|20 ?min)\b",
}
_NOT_LIVER = re.compile(
    r"\b(brain|head|neuro\w*|skull|neck|spine|[ctl]spine|knee|shoulder|ankle|hip|wrist|hand|elbow|"
    r"foot|heart|cardiac|breast|prostate|pelvis|chest|lung|extremity|kopf|sch[aä]del|crane|crâne)\b"
)
_LIVER = re.compile(r"\b(liver|abd\w*|hep\w*|leber\w*|oberbauch|foie|upper ?abd\w*)\b")
# Reconstructions that are no contrast-enhanced intensities: subtractions, projections, Dixon parts.
_DERIVED = re.compile(
    r"\b(SUBTRACT\w*|SUB|MIP|MNIP|PROJECTION IMAGE|LOCALIZER|SCOUT|FAT|F|IP|OP|IN_PHASE|OUT_PHASE|"
    r"OPP_PHASE|ADC|TRACEW|FAT_FRACTION|FF|R2_STAR|T2_STAR|DIFFUSION|SCREEN SAVE)\b"
)


@dataclass(frozen=True)
class PhaseTime:
    """A phase and its usual delay after the injection in seconds; None where nobody told."""

    id: str
    seconds: float | None


def phase_times(phases: Sequence[str]) -> list[PhaseTime]:
    """The phases with their usual delays from the default vocabulary."""
    known = {p.id: p.seconds for p in liver_mri().phases}
    return [PhaseTime(p, known.get(p)) for p in phases]


def usable(stacks: Sequence[Stack]) -> list[Stack]:
    """Stacks that may be a contrast phase: no subtractions, reformats only alone."""
    kept = [s for s in stacks if not _DERIVED.search(" ".join(s.first.image_type))]
    originals = {_moment(s) for s in kept if "DERIVED" not in s.first.image_type}
    return [s for s in kept if "DERIVED" not in s.first.image_type or _moment(s) not in originals]


def _moment(stack: Stack) -> object:
    return stack.first.series if stack.time is None else round(stack.time)


def assign(
    candidates: Sequence[Stack],
    phases: Sequence[PhaseTime],
    all_stacks: Sequence[Stack] = (),
    other: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> dict[str, int]:
    """Phase id -> index in `candidates`; without an optional phase that surely is not there.

    Raises InputError, codes missing_phase, ambiguous_phase, not_liver; its line names the series.
    """
    try:
        return _assign(candidates, phases, phases, all_stacks, other)
    except InputError as error:
        fewer = _assign_fewer(candidates, phases, optional)
        if error.code != "missing_phase" or fewer is None:
            raise
        return fewer


def _assign_fewer(
    candidates: Sequence[Stack], phases: Sequence[PhaseTime], optional: Sequence[str]
) -> dict[str, int] | None:
    """The one reading that leaves out optional phases and no series. None where there is none.

    A series left over might be the phase that seems to be missing, so then nothing is inferred.
    """
    named = _by_name(candidates, phases)
    aside = {i for word in ("pre-contrast", "hepatobiliary") for i in named.get(word, [])}
    aside |= {i for i, s in enumerate(candidates) if s.seconds is not None and s.seconds <= 0}
    contenders = [s for i, s in enumerate(candidates) if i not in aside]
    readings = []
    for kept in combinations(phases, len(contenders)):
        if not contenders or any(p not in kept and p.id not in optional for p in phases):
            continue
        try:
            reading = _assign(contenders, kept, phases)
        except InputError:
            continue
        readings.append({p: candidates.index(contenders[i]) for p, i in reading.items()})
    return readings[0] if len(readings) == 1 else None


def _assign(
    candidates: Sequence[Stack],
    phases: Sequence[PhaseTime],
    known: Sequence[PhaseTime],
    all_stacks: Sequence[Stack] = (),
    other: Sequence[str] = (),
) -> dict[str, int]:
    """A series for each of `phases`, told apart from all that are `known`."""
    shown = list(all_stacks) or list(candidates)
    _check_body(shown, phases)
    named = _by_name(candidates, known)
    times = _by_bolus(candidates, phases, known, named)
    for reading in (times, _by_order(candidates, phases, named)):
        if reading is not None:
            _check_names(candidates, reading, named)
            return reading
    single = {p: found[0] for p, found in named.items() if len(found) == 1}
    if all(p.id in single for p in phases):
        _check_order(candidates, single, phases)
        return {p.id: single[p.id] for p in phases}
    raise _unresolved(candidates, phases, named, shown, other)


def _by_bolus(
    stacks: Sequence[Stack],
    phases: Sequence[PhaseTime],
    known: Sequence[PhaseTime],
    named: Mapping[str, list[int]],
) -> dict[str, int] | None:
    """By seconds after the injection. None where they do not decide."""
    found: dict[str, list[tuple[float, int]]] = {p.id: [] for p in known}
    for i, stack in enumerate(stacks):
        if stack.seconds is None or stack.seconds <= 0:
            continue
        miss = {
            p.id: abs(math.log(stack.seconds / p.seconds)) for p in known if p.seconds is not None
        }
        if miss and (best := min(miss, key=miss.__getitem__)) and miss[best] < math.log(_FACTOR):
            found[best].append((miss[best], i))
    chosen = {}
    for phase in [p.id for p in phases]:
        fits = sorted(found[phase])
        if len(fits) > 1 and fits[1][0] - fits[0][0] < _MARGIN:
            fits = [fit for fit in fits if fit[1] in named.get(phase, [])]
        if not fits or (len(fits) > 1 and fits[1][0] - fits[0][0] < _MARGIN):
            return None
        chosen[phase] = fits[0][1]
    return chosen


def _by_order(
    stacks: Sequence[Stack], phases: Sequence[PhaseTime], named: Mapping[str, list[int]]
) -> dict[str, int] | None:
    """By the gaps between series of one technique. None where they do not decide."""
    if len(phases) < 2 or any(p.seconds is None for p in phases):
        return None
    ordered = sorted(phases, key=lambda p: p.seconds or 0)
    usual = [(b.seconds or 0) - (a.seconds or 0) for a, b in pairwise(ordered)]
    skip = {i for word in ("pre-contrast", "hepatobiliary") for i in named.get(word, [])}
    groups: dict[object, list[int]] = {}
    for i, stack in enumerate(stacks):
        if stack.time is not None and i not in skip:
            first = stack.first
            key = (first.modality, first.technique, first.rows, first.columns)
            groups.setdefault(key, []).append(i)
    readings: list[tuple[float, tuple[int, ...]]] = []
    for members in groups.values():
        contrast = [i for i in members if stacks[i].first.contrast]
        members = contrast if len(contrast) >= len(phases) else members
        members = sorted(members, key=lambda i: stacks[i].time or 0)
        if len(members) > _LONGEST_DYNAMIC:
            return None
        for chosen in combinations(members, len(ordered)):
            times = [stacks[i].time or 0 for i in chosen]
            gaps = [b - a for a, b in pairwise(times)]
            ratios = [
                math.log(g / u) if g > 0 else math.inf for g, u in zip(gaps, usual, strict=True)
            ]
            if all(abs(r) < math.log(_GAP_FACTOR) for r in ratios):
                readings.append((sum(map(abs, ratios)), chosen))
    readings.sort()
    if not readings or (len(readings) > 1 and readings[1][0] - readings[0][0] < _MARGIN):
        return None
    return {p.id: i for p, i in zip(ordered, readings[0][1], strict=True)}


def _by_name(stacks: Sequence[Stack], phases: Sequence[PhaseTime]) -> dict[str, list[int]]:
    """Phase id (or 'pre-contrast', 'hepatobiliary') -> stacks whose words name it, and it alone."""
    words = {p.id: _WORDS.get(p.id, rf"\b{re.escape(p.id.replace('_', ' '))}\b") for p in phases}
    words |= {k: v for k, v in _WORDS.items() if k in ("pre-contrast", "hepatobiliary")}
    found: dict[str, list[int]] = {}
    for i, stack in enumerate(stacks):
        text = re.sub(r"[_+/.,;:()\-]+", " ", stack.text.lower())
        names = [name for name, pattern in words.items() if re.search(pattern, text)]
        if "arterial" in names and "delayed" in names and re.search(r"\blate art", text):
            names.remove("delayed")
        if "hepatobiliary" in names and "delayed" in names:
            names.remove("delayed")
        if "portal_venous" in names and "delayed" in names and not re.search(r"\bport|\bpv", text):
            names.remove("portal_venous")  # 'late venous' is a delayed phase
        if len(names) == 1:
            found.setdefault(names[0], []).append(i)
    return found


def _check_names(
    stacks: Sequence[Stack], reading: Mapping[str, int], named: Mapping[str, list[int]]
) -> None:
    """Raise where the times say one phase and the description plainly another."""
    for phase, i in reading.items():
        said = next((name for name, found in named.items() if i in found), phase)
        if said != phase:
            raise InputError(
                "times and descriptions disagree",
                code="ambiguous_phase",
                field="dicom",
                found=f"{stacks[i].label}: {words(phase)} by its time, {words(said)} by its name",
                expected=_way_out(list(reading)),
            )


def _check_order(
    stacks: Sequence[Stack], chosen: Mapping[str, int], phases: Sequence[PhaseTime]
) -> None:
    """Raise where the descriptions put the phases in another order than the clock did."""
    timed = [p for p in phases if p.seconds is not None and stacks[chosen[p.id]].time is not None]
    timed.sort(key=lambda p: p.seconds or 0)
    for a, b in pairwise(timed):
        first, second = stacks[chosen[a.id]], stacks[chosen[b.id]]
        if (first.time or 0) > (second.time or 0):
            raise InputError(
                "times and descriptions disagree",
                code="ambiguous_phase",
                field="dicom",
                found=f"{words(a.id)} in {first.label} after {words(b.id)} in {second.label}",
                expected=_way_out([p.id for p in phases]),
            )


def _check_body(stacks: Sequence[Stack], phases: Sequence[PhaseTime]) -> None:
    """Raise for a study that names another part of the body and nowhere the liver or abdomen."""
    said = [(s.first.body_part, s.first.study_description, s.text) for s in stacks]
    text = " ".join(" ".join(parts) for parts in said).lower()
    text = re.sub(r"[_^+/.,;:()\-]+", " ", text)
    if _LIVER.search(text) or not (hit := _NOT_LIVER.search(text)):
        return
    raise InputError(
        f"not a multi-phase liver study (it says '{clean(hit[0])}'), so no "
        f"{_or(p.id for p in phases)} phase",
        code="not_liver",
        field="dicom",
        found=describe(stacks),
        expected=_expected([p.id for p in phases]),
    )


def _unresolved(
    stacks: Sequence[Stack],
    phases: Sequence[PhaseTime],
    named: Mapping[str, list[int]],
    shown: Sequence[Stack],
    other: Sequence[str],
) -> InputError:
    ids = [p.id for p in phases]
    found = describe(shown)
    if other:
        found += f" and {len(other)} other DICOM file{'s' if len(other) != 1 else ''} ({other[0]})"
    rivals = next((p for p in ids if len(named.get(p, [])) > 1), None)
    if rivals:
        labels = ", ".join(stacks[i].label for i in named[rivals][:4])
        return InputError(
            f"more than one series may be the {words(rivals)} phase",
            code="ambiguous_phase",
            field="dicom",
            found=labels,
            expected=_way_out(ids),
        )
    missing = [p for p in ids if p not in named]
    if len(stacks) >= len(ids) and len(missing) == len(ids):
        return InputError(
            "neither times nor descriptions tell the phases apart",
            code="ambiguous_phase",
            field="dicom",
            found=found,
            expected=_way_out(ids),
        )
    names = ", ".join(words(p) for p in missing)
    return InputError(
        f"missing phase{'s' if len(missing) != 1 else ''}: {names}",
        code="missing_phase",
        field="dicom",
        found=found,
        expected=_expected(ids),
    )


def describe(stacks: Sequence[Stack]) -> str:
    """The series of a folder with what is known of their times, for a message."""
    parts = []
    for stack in stacks[:6]:
        first = stack.first
        facts = [clean(v) for v in (first.modality, first.body_part) if v]
        if stack.seconds is not None:
            facts.append(f"{stack.seconds:.0f} s after the bolus")
        elif stack.time is not None:
            clock = int(stack.time % 86400)
            facts.append(f"at {clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}")
        parts.append(f"{stack.label}" + (f" [{', '.join(facts)}]" if facts else ""))
    if len(stacks) > 6:
        parts.append(f"{len(stacks) - 6} more")
    count = f"{len(stacks)} series" if stacks else "no image series"
    return f"{count}: {', '.join(parts)}" if parts else count


def words(phase: str) -> str:
    return phase.replace("_", " ")


def _or(phases: object) -> str:
    names = [words(str(p)) for p in phases]  # type: ignore[attr-defined]
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _expected(phases: Sequence[str]) -> str:
    return f"one series for each of {', '.join(words(p) for p in phases)}"


def _way_out(phases: Sequence[str]) -> str:
    return f"one series for each phase; sort them into folders named {', '.join(phases)}"
