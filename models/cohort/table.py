"""A table that a person keeps: CSV, TSV or XLSX, as rows of text with their line numbers.

    file -> cells -> header made comparable -> rows, each knowing its line

Commas, semicolons and tabs are told apart by the header line, since Excel writes the list separator
of its own country. Every cell is text: a lesion called 7 is '7', whether Excel holds 7 or 7.0.
"""

from __future__ import annotations

import csv
import datetime as dt
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import InputError

_DELIMITERS = ",;\t"
_CELL_LIMIT = 32_767  # characters, as in Excel
_ROW_LIMIT = 1_048_576  # rows, as in Excel
# What openpyxl lets through of a damaged archive or sheet; XML's ParseError is a SyntaxError.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, IndexError,
    AttributeError, SyntaxError, OSError,
)  # fmt: skip
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Row:
    """One line of a table. cells: column -> text, stripped; a cell left empty is ''."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


@dataclass(frozen=True)
class Table:
    """columns: names in lower case with underscores, in file order; rows without the empty ones."""

    name: str
    columns: list[str]
    rows: list[Row]

    def need(self, *columns: str, field: str = "table") -> None:
        """Raises InputError where one of the columns is missing."""
        missing = [c for c in columns if c not in self.columns]
        if missing:
            raise InputError(
                f"{self.name} lacks the column{'s' if len(missing) > 1 else ''} "
                + ", ".join(map(repr, missing)),
                code="missing_column",
                field=field,
                found=", ".join(self.columns),
                expected=", ".join(columns),
            )


def read_table(path: Path, *, sheet: str | None = None, field: str = "table") -> Table:
    """Read .csv, .tsv, .txt or .xlsx (the first sheet, or the one named).

    Raises InputError naming `field`: not_found, unreadable, wrong_encoding, wrong_table,
    missing_package (openpyxl, for .xlsx), unknown_sheet.
    """
    if not path.is_file():
        raise InputError("no such file", code="not_found", field=field, found=path.name)
    try:
        with path.open("rb") as stream:
            packed = stream.read(4) == b"PK\x03\x04"
        lines = _sheet(path, sheet, field) if packed else _text(path, field)
        return _table(path.name, lines, field)
    except OSError as error:
        raise InputError(
            "the file cannot be read", code="unreadable", field=field,
            found=f"{path.name} ({error.strerror or type(error).__name__})",
        ) from None  # fmt: skip


def plain(name: str) -> str:
    """A name as it is compared: lower case, one underscore for every run of other signs."""
    return re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")


def _table(name: str, lines: Iterable[tuple[int, Sequence[str]]], field: str) -> Table:
    columns: list[str] = []
    rows: list[Row] = []
    for line, cells in lines:
        texts = [c.strip() for c in cells]
        if not any(texts):
            continue
        if line > _ROW_LIMIT:
            raise _wrong(f"{name} is longer than {_ROW_LIMIT} lines", field)
        if not columns:
            while texts and not texts[-1]:
                texts.pop()
            columns = [plain(t) for t in texts]
            twice = sorted({c for c in columns if columns.count(c) > 1})
            if twice or "" in columns:
                what = f"the column {twice[0]!r} stands twice" if twice else "a column has no name"
                raise _wrong(f"{name}: line {line}: {what}", field)
            continue
        if any(texts[len(columns) :]):
            raise _wrong(
                f"{name}: line {line}: {len(texts)} cells under {len(columns)} column names; "
                "quote a cell that holds the separator",
                field,
            )
        padded = texts + [""] * (len(columns) - len(texts))
        rows.append(Row(line, dict(zip(columns, padded, strict=False))))
    if not columns:
        raise _wrong(f"{name} is empty", field)
    return Table(name, columns, rows)


def _text(path: Path, field: str) -> Iterator[tuple[int, Sequence[str]]]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} is not UTF-8", code="wrong_encoding", field=field,
            found=f"byte {raw[error.start]:#04x} at {error.start}",
            expected="'CSV UTF-8' in Excel's Save as",
        ) from None  # fmt: skip
    if "\0" in text:
        raise _wrong(f"{path.name} holds binary data", field)
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=head.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise _wrong(f"{path.name}: line {start}: {error}", field) from None


def _sheet(path: Path, sheet: str | None, field: str) -> list[tuple[int, Sequence[str]]]:
    try:
        import openpyxl  # type: ignore[import-untyped]
        from openpyxl.utils.exceptions import (  # type: ignore[import-untyped]
            InvalidFileException,
        )
    except ModuleNotFoundError:
        raise InputError(
            "reading .xlsx needs the package openpyxl",
            code="missing_package",
            field=field,
            expected="pip install 'lesionlens[import]', or the table saved as CSV",
        ) from None
    try:
        with path.open("rb") as stream:  # by content, whatever the file is called
            return _cells(
                openpyxl.load_workbook(stream, read_only=True, data_only=True), sheet, field
            )
    except (*_BROKEN, InvalidFileException) as error:
        raise InputError(
            f"{path.name} is not a readable workbook", code="unreadable", field=field,
            found=(str(error).splitlines() or [type(error).__name__])[0][:100], expected=".xlsx",
        ) from None  # fmt: skip


def _cells(book: Any, sheet: str | None, field: str) -> list[tuple[int, Sequence[str]]]:
    if sheet is not None and sheet not in book.sheetnames:
        raise InputError(
            "no such sheet", code="unknown_sheet", field=field, found=repr(sheet),
            expected=", ".join(book.sheetnames),
        )  # fmt: skip
    chosen = book[sheet] if sheet is not None else book.worksheets[0]
    rows = enumerate(chosen.iter_rows(values_only=True), start=1)
    return [(number, [_cell(value)[:_CELL_LIMIT] for value in cells]) for number, cells in rows]


def _cell(value: object) -> str:
    """A cell as a person reads it; whole numbers without a decimal point."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        return value.date().isoformat()
    return str(value)


def _wrong(message: str, field: str) -> InputError:
    return InputError(message, code="wrong_table", field=field)
