"""Feature labels from readers' tables: read, checked, merged, joined to a cohort.

    table -> readings, each with its line -> one status a lesion and feature -> cohort

Two layouts, told apart by the header:

    lesion, feature, status[, reader]           one reading a line
    lesion[, reader], washout, central scar ... one lesion a line; an empty cell is no reading
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.cohort.format import SETS
from models.cohort.table import Row, Table, plain, read_table
from models.errors import CohortError, InputError
from models.vocabulary import Vocabulary, liver_mri
from wire.cohort import CohortFile, CohortLesion, FeatureStatus

ONE_READER = "reader"  # the name of a reader who has none

_COLUMNS = {
    "lesion": ("lesion", "lesion_id", "lesionid", "id"),
    "feature": ("feature", "feature_id", "featureid", "sign"),
    "status": ("status", "label", "value", "rating"),
    "reader": ("reader", "reader_id", "readerid", "rater", "radiologist", "observer"),
}
# Columns that a table of lesions may have beside its features.
_BESIDE = {
    "patient",
    "patient_id",
    "class",
    "comment",
    "comments",
    "note",
    "notes",
    "date",
    "split",
}
_SPELLINGS: dict[FeatureStatus, tuple[str, ...]] = {
    "present": ("present", "p", "yes", "y", "1", "true", "t", "+", "++", "pos", "positive", "x",
                "ja", "oui"),
    "absent": ("absent", "a", "no", "n", "0", "false", "f", "-", "−", "–", "neg", "negative",
               "none", "nein", "non"),
    "ignore": ("ignore", "?", "uncertain", "unsure", "unclear", "unknown", "equivocal", "maybe",
               "indeterminate", "not assessed", "not assessable", "n/a", "na", "nan"),
}  # fmt: skip
_STATUS = {text: status for status, texts in _SPELLINGS.items() for text in texts}


@dataclass(frozen=True)
class Reading:
    """One reader's word on one feature of one lesion. line: where it stands in the table."""

    lesion: str
    feature: str
    status: FeatureStatus
    reader: str
    line: int


@dataclass(frozen=True)
class Merged:
    """What the readers' table changes. status: (lesion, feature) -> the merged word.

    contradicting: '<lesion>: <feature>' that is now absent though the cohort holds its mask.
    """

    file: CohortFile
    status: dict[tuple[str, str], FeatureStatus]
    added: int
    changed: int
    unchanged: int
    contradicting: tuple[str, ...]


# --- Reading --------------------------------------------------------------------------------------


def read_readings(
    path: Path,
    file: CohortFile,
    *,
    sheet: str | None = None,
    reader: str | None = None,
    new_features: bool = False,
    vocabulary: Vocabulary | None = None,
) -> list[Reading]:
    """Read a table of readings and match it with a cohort. A reading given twice counts once.

    reader: the name where the table gives none. new_features: names that the cohort lacks become
    features instead of faults. Features are found by id, and by the labels and synonyms of the
    vocabulary (the default one if None), whatever their case and hyphens.
    Raises InputError for a file that is no such table, CohortError with one line a bad row.
    """
    table = read_table(path, sheet=sheet, field="labels")
    names = feature_names(file, vocabulary or liver_mri())
    parsed = _Parsed(table, _columns(table), file, names, reader, new_features)
    readings = list(parsed.long() if "feature" in parsed.columns else parsed.wide())
    kept: dict[tuple[str, str, str], Reading] = {}
    for reading in readings:
        key = (reading.lesion, reading.feature, reading.reader)
        earlier = kept.setdefault(key, reading)
        if earlier.status != reading.status:
            parsed.fault(
                reading.line,
                f"status: {reading.reader} says {reading.status} of {reading.feature} in "
                f"{reading.lesion}, but {earlier.status} in line {earlier.line}",
            )
    if parsed.faults:
        raise CohortError([text for _, text in sorted(parsed.faults)])
    if not kept:
        raise InputError(
            "no readings in the table", code="empty_table", field="labels", found=table.name
        )
    return list(kept.values())


def feature_names(file: CohortFile, vocabulary: Vocabulary) -> dict[str, str]:
    """Comparable name -> feature id of the cohort. A name that means two features means none."""
    ids = set(file.features)
    meant: dict[str, set[str]] = {}
    for feature in vocabulary.features:
        if feature.id in ids:
            for name in (feature.label, *feature.synonyms):
                meant.setdefault(plain(name), set()).add(feature.id)
    names = {name: next(iter(found)) for name, found in meant.items() if len(found) == 1}
    return names | {plain(i): i for i in file.features}


def status_of(text: str) -> FeatureStatus | None:
    """A status by any of its common spellings; None where it is none."""
    return _STATUS.get(" ".join(text.lower().replace("_", " ").split()))


def _columns(table: Table) -> dict[str, str]:
    """'lesion', 'feature', 'status', 'reader' -> the table's own column. Raises InputError."""
    found = {}
    for role, names in _COLUMNS.items():
        present = [c for c in table.columns if c in names]
        if present:
            found[role] = present[0]
    if "lesion" not in found or ("feature" in found) != ("status" in found):
        missing = [r for r in ("lesion", "feature", "status") if r not in found]
        raise InputError(
            f"{table.name} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            code="missing_column",
            field="labels",
            found=", ".join(table.columns),
            expected="lesion, feature, status and optionally reader; or lesion, reader and one "
            "column a feature",
        )
    return found


class _Parsed:
    """The rows of one table; faults gather in `faults` as (line, text)."""

    def __init__(
        self,
        table: Table,
        columns: Mapping[str, str],
        file: CohortFile,
        names: dict[str, str],
        reader: str | None,
        new_features: bool,
    ) -> None:
        self.table, self.columns, self.names = table, columns, names
        self.reader, self.new_features = reader, new_features
        self.lesions = {lesion.lesion_id for lesion in _lesions(file)}
        self.readers: dict[str, str] = {}  # 'ada' is Ada, in the spelling that came first
        self.faults: list[tuple[int, str]] = []

    def fault(self, line: int, text: str) -> None:
        self.faults.append((line, f"{self.table.name}: line {line}: {text}"))

    def long(self) -> Iterator[Reading]:
        """One reading a row; each fault of a row is told, not the first alone."""
        for row in self.table.rows:
            lesion, reader = self._lesion(row), self._reader(row)
            feature = self._feature(row[self.columns["feature"]], row.line)
            status = self._status(row[self.columns["status"]], row.line, "status")
            if lesion and reader and feature and status:
                yield Reading(lesion, feature, status, reader, row.line)

    def wide(self) -> Iterator[Reading]:
        """One lesion a row, one feature a column."""
        skip = {*self.columns.values(), *_BESIDE}
        header = self.table.rows[0].line - 1 if self.table.rows else 1
        features = {
            column: self._feature(column, header) for column in self.table.columns
            if column not in skip
        }  # fmt: skip
        if not features:
            self.fault(header, "feature: no column names a feature")
        for row in self.table.rows:
            lesion, reader = self._lesion(row), self._reader(row)
            for column, feature in features.items():
                if not row[column]:
                    continue
                status = self._status(row[column], row.line, column)
                if lesion and reader and feature and status:
                    yield Reading(lesion, feature, status, reader, row.line)

    def _lesion(self, row: Row) -> str | None:
        found = row[self.columns["lesion"]]
        if found in self.lesions:
            return found
        self.fault(
            row.line,
            f"lesion: {found!r} is not in the cohort{_near(found, self.lesions)}"
            if found
            else "lesion: empty",
        )
        return None

    def _reader(self, row: Row) -> str | None:
        found = row[self.columns["reader"]] if "reader" in self.columns else ""
        if found or self.reader:
            name = found or self.reader or ONE_READER
            return self.readers.setdefault(" ".join(name.casefold().split()), name)
        if "reader" in self.columns:
            self.fault(row.line, "reader: empty")
            return None
        return ONE_READER

    def _feature(self, found: str, line: int) -> str | None:
        name = plain(found)
        if name in self.names:
            return self.names[name]
        if not name:
            self.fault(line, "feature: empty")
            return None
        if self.new_features:
            self.names[name] = name
            return name
        known = sorted(set(self.names.values()))
        near = _near(name, self.names) or (
            f"; expected {', '.join(known)}" if known else "; the cohort names no features"
        )
        self.fault(line, f"feature: {found!r} is not one of the cohort's features{near}")
        return None

    def _status(self, found: str, line: int, column: str) -> FeatureStatus | None:
        status = status_of(found)
        if status is None:
            text = f"{found[:40]!r} is no status" if found else "empty"
            self.fault(line, f"{column}: {text}; expected present, absent or ignore")
        return status


def _near(found: str, known: object) -> str:
    close = difflib.get_close_matches(found, list(known), n=1, cutoff=0.75)  # type: ignore[call-overload]
    return f"; did you mean {close[0]!r}?" if close else ""


def _lesions(file: CohortFile) -> Iterator[CohortLesion]:
    for split in SETS:
        yield from getattr(file, split)


# --- Merging --------------------------------------------------------------------------------------


def _majority(votes: Counter[FeatureStatus]) -> FeatureStatus:
    ranked = votes.most_common()
    tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
    return "ignore" if tied else ranked[0][0]


def _unanimous(votes: Counter[FeatureStatus]) -> FeatureStatus:
    return next(iter(votes)) if len(votes) == 1 else "ignore"


def _any(votes: Counter[FeatureStatus]) -> FeatureStatus:
    return next((s for s in ("present", "absent") if votes[s]), "ignore")  # type: ignore[index]


# What several readers' words become; 'ignore' is a word like the others, 'I could not tell'.
POLICIES: dict[str, Callable[[Counter[FeatureStatus]], FeatureStatus]] = {
    "majority": _majority,
    "unanimous": _unanimous,
    "any": _any,
}


def merge(
    readings: Sequence[Reading], policy: str = "majority"
) -> dict[tuple[str, str], FeatureStatus]:
    """(lesion, feature) -> one status; the order of readings and readers does not matter.

    majority: the most frequent status, a tie is 'ignore'. unanimous: 'ignore' unless all agree.
    any: present if one reader says so, else absent if one does. Raises InputError for another name.
    """
    if policy not in POLICIES:
        raise InputError(
            "no such policy", code="unknown_policy", field="policy", found=repr(policy),
            expected=", ".join(POLICIES),
        )  # fmt: skip
    votes: dict[tuple[str, str], Counter[FeatureStatus]] = {}
    for reading in readings:
        votes.setdefault((reading.lesion, reading.feature), Counter())[reading.status] += 1
    return {key: POLICIES[policy](count) for key, count in votes.items()}


def join(file: CohortFile, status: Mapping[tuple[str, str], FeatureStatus]) -> Merged:
    """The cohort with these labels; labels of other lesions and features stay as they are.

    Features that the cohort did not name are appended to its list in alphabetical order.
    """
    added = changed = unchanged = 0
    contradicting: list[str] = []
    by_lesion: dict[str, dict[str, FeatureStatus]] = {}
    for (lesion_id, feature), value in status.items():
        by_lesion.setdefault(lesion_id, {})[feature] = value
    extra = sorted({feature for _, feature in status} - set(file.features))
    order = {feature: i for i, feature in enumerate([*file.features, *extra])}
    lists: dict[str, list[CohortLesion]] = {}
    for split in SETS:
        lists[split] = []
        for lesion in getattr(file, split):
            new = by_lesion.get(lesion.lesion_id, {})
            for feature, value in new.items():
                before = lesion.features.get(feature)
                added += before is None
                changed += before is not None and before != value
                unchanged += before == value
                if value == "absent" and feature in lesion.masks:
                    contradicting.append(f"{lesion.lesion_id}: {feature}")
            labels = {**lesion.features, **new}
            labels = dict(sorted(labels.items(), key=lambda item: order[item[0]]))
            lists[split].append(lesion.model_copy(update={"features": labels}))
    joined = file.model_copy(update={"features": list(order), **lists})
    return Merged(joined, dict(status), added, changed, unchanged, tuple(contradicting))


def rating_matrix(
    readings: Sequence[Reading], feature: str, *, count_ignore: bool = False
) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Lesions, readers and codes [lesions, readers]: 0 absent, 1 present, -1 not rated.

    'ignore' is no rating, unless count_ignore makes it the third category, 2. Both lists are
    sorted, so the result does not depend on the order of the table.
    """
    codes = {"absent": 0, "present": 1, "ignore": 2 if count_ignore else -1}
    own = [r for r in readings if r.feature == feature]
    lesions, readers = sorted({r.lesion for r in own}), sorted({r.reader for r in own})
    row, column = {v: i for i, v in enumerate(lesions)}, {v: i for i, v in enumerate(readers)}
    matrix = np.full((len(lesions), len(readers)), -1, dtype=np.int64)
    for r in own:
        matrix[row[r.lesion], column[r.reader]] = codes[r.status]
    return lesions, readers, matrix
