"""Records of text files: JSONL, CSV, TSV, or a text on each line; each remembers its file and line, for what may be wrong with it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attar.errors import DataError, near

__all__ = ["Records", "files_of", "read_records"]

FORMS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".txt": "lines"}
SUFFIXES = ".jsonl .csv .tsv .txt, or one of these with .gz"
LINES = "text"  # what the one column of a file of lines is called


@dataclass(frozen=True, eq=False)
class Records:
    """N records. columns: (N,) objects by name, None where missing: texts, and from JSONL whatever JSON has.

    files: where they come from; file: (N,) which of them; line: (N,) at which line, from 1, a record begins.
    notes: sentences on what was found.
    """

    columns: dict[str, np.ndarray]
    files: tuple[Path, ...]
    file: np.ndarray
    line: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.line)

    def place(self, i: int) -> str:
        """Where record i stands: "movies.tsv, line 17"."""
        return f"{self.files[self.file[i]]}, line {self.line[i]}"

    def column(self, name: str, role: str) -> np.ndarray:
        """One column. Raises DataError, with the columns that there are, for one that is not there."""
        if name not in self.columns:
            there = ", ".join(map(repr, self.columns))
            close = near(name, self.columns)
            hint = close if close.startswith("did") else f"columns: {there}"
            raise DataError(f"{role}: there is no column {name!r} in {self._where()}", hint=hint)
        return self.columns[name]

    def take(self, at: np.ndarray) -> Records:
        """The records at (M,) positions."""
        columns = {name: values[at] for name, values in self.columns.items()}
        return Records(columns, self.files, self.file[at], self.line[at], self.notes)

    def join(self, others: Sequence[Records], names: Sequence[str]) -> Records:
        """These and others, one behind the other, with the columns `names`. Raises DataError where one of them lacks a column."""
        every = [self, *others]
        columns = {name: np.concatenate([r.column(name, "column") for r in every]) for name in dict.fromkeys(names)}
        starts = np.cumsum([0] + [len(r.files) for r in every])
        return Records(
            columns,
            tuple(path for r in every for path in r.files),
            np.concatenate([r.file + start for r, start in zip(every, starts, strict=False)]),
            np.concatenate([r.line for r in every]),
            tuple(note for r in every for note in r.notes),
        )

    def _where(self) -> str:
        return str(self.files[0]) if len(self.files) == 1 else str(self.files[0].parent)


def read_records(path: Path, separator: str | None = None) -> Records:
    """The records of a file, or of every file of a folder. Raises DataError, naming file and line, for what does not read.

    separator: of the columns of .csv and .tsv, a comma and a tab without. Files are UTF-8; what stands before a first line that is
    marked as such, and how lines end, makes no difference.
    """
    files, notes = files_of(path)
    parts = [_read_file(file, separator) for file in files]
    if len(parts) == 1:
        return Records(parts[0].columns, parts[0].files, parts[0].file, parts[0].line, notes)
    first = parts[0]
    for part in parts[1:]:
        if form_of(part.files[0]) != "jsonl" and part.columns.keys() != first.columns.keys():
            raise DataError(
                f"{part.files[0].name} has the columns {', '.join(map(repr, part.columns))}, "
                f"{first.files[0].name} has {', '.join(map(repr, first.columns))}",
                hint="the files of one folder have the same columns; name a file to read it alone",
            )
    names = list(dict.fromkeys(name for part in parts for name in part.columns))
    padded = [part if part.columns.keys() >= set(names) else _padded(part, names) for part in parts]
    counts = ", ".join(f"{stem(part.files[0])} {len(part):,}" for part in parts)
    whole = padded[0].join(padded[1:], names)
    return Records(whole.columns, whole.files, whole.file, whole.line, (*notes, f"{len(parts)} files: {counts}"))


def files_of(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The file, or the files of a folder in the order of their names; and notes. Raises DataError for none, or for several forms."""
    if path.is_file():
        return [path], ()
    if not path.is_dir():
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file or folder {str(path)!r}", hint=near(path.name, there) or "look at the folder's name")
    there = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    files = [p for p in there if form_of(p)]
    if not files:
        found = ", ".join(p.name for p in there[:3]) + ", …" * (len(there) > 3)
        raise DataError(f"{path} holds no text files" + (f", but {found}" if there else ""), hint=SUFFIXES)
    forms = {form_of(p): p.name for p in files}
    if len(forms) > 1:
        raise DataError(f"{path} holds files of several forms: {', '.join(forms.values())}", hint="one form in a folder, or name one file")
    others = len(there) - len(files)
    return files, ((f"{others:,} files of {path.name} that are no text by their suffix are left out",) if others else ())


def form_of(path: Path) -> str:
    """ "jsonl", "csv", "tsv" or "lines" by the suffix, "" for any other."""
    return FORMS.get(Path(path.name.lower().removesuffix(".gz")).suffix, "")


def stem(path: Path) -> str:
    """The file's name without its suffixes: its domain."""
    return re.sub(r"(\.\w+)?(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _padded(part: Records, names: Sequence[str]) -> Records:
    absent = np.full(len(part), None, dtype=object)
    return Records({name: part.columns.get(name, absent) for name in names}, part.files, part.file, part.line, part.notes)


def _read_file(path: Path, separator: str | None) -> Records:
    form = form_of(path)
    if not form:
        hint = "one object on each line, as .jsonl" if path.suffix.lower() == ".json" else f"texts are read from {SUFFIXES}"
        raise DataError(f"{path} is no file of texts by its suffix", hint=hint)
    if separator is not None and (form not in ("csv", "tsv") or len(separator) != 1):
        raise DataError(f"separator={separator!r} for {path}", hint="one character, for .csv and .tsv")
    text = _decoded(path)
    if form == "lines":
        lines = _lines(text)
        return _records(path, {LINES: lines}, np.arange(1, len(lines) + 1))
    if form == "jsonl":
        return _json(path, text)
    separator = separator or ("\t" if form == "tsv" else ",")
    return _separated(path, text, separator)


def _records(path: Path, columns: dict[str, list[Any]], line: Sequence[int] | np.ndarray) -> Records:
    held = {name: np.empty(len(values), dtype=object) for name, values in columns.items()}
    for name, values in columns.items():
        held[name][:] = values
    return Records(held, (path,), np.zeros(len(line), dtype=np.int64), np.asarray(line, dtype=np.int64))


def _decoded(path: Path) -> str:
    """The file as text, its lines ended by line feeds."""
    try:
        raw = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            raw = gzip.decompress(raw)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} does not unpack: {error}", hint="is the file complete?") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint="is it there, and may you read it?") from error
    if not raw.strip():
        raise DataError(f"{path} is empty", hint="a text on each line, or a line of column names and rows below it")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16", hint="save it as UTF-8")
    if (at := raw.find(b"\0")) >= 0:
        raise DataError(f"{path}, line {_line(raw, at)} holds a NUL byte, byte {at + 1:,} of the file", hint="is it a file of text?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + 3 * raw.startswith(b"\xef\xbb\xbf")
        raise DataError(
            f"{path}, line {_line(raw, at)} is not UTF-8: byte {at + 1:,} of the file is 0x{raw[at]:02x}, "
            f"after {raw[max(0, at - 20) : at].decode('utf-8', 'ignore')!r}",
            hint="save the file as UTF-8",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _line(raw: bytes, at: int) -> int:
    return raw.count(b"\n", 0, at) + 1


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")  # not splitlines: U+2028 and its like are text


def _json(path: Path, text: str) -> Records:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{path}, line {number} is no JSON: {said}: {_cut(line)}", hint="one object on each line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} is no object: {_cut(line)}", hint='each line is like {"text": "…", "label": "…"}')
        rows.append(row)
        numbers.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return _records(path, {name: [row.get(name) for row in rows] for name in names}, numbers)


def _separated(path: Path, text: str, separator: str) -> Records:
    rows, numbers = _rows(path, text, separator)
    header, width = [name.strip() for name in rows[0]], len(rows[0])
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path}: several columns are called {', '.join(map(repr, repeated[:5]))}", hint="give each column its own name")
    if width == 1 and (found := [s for s in "\t;|," if s != separator and s in header[0]]):
        raise DataError(f"{path} reads as one column, {_cut(header[0])}", hint=f"separator={json.dumps(found[0])}")
    if len(rows) == 1:
        raise DataError(f"{path} has no rows", hint="only the line of column names is there")
    for row, number in zip(rows, numbers, strict=True):
        if len(row) != width:
            raise DataError(
                f"{path}, line {number} has {len(row)} columns, the first line has {width}: {_cut(separator.join(row))}",
                hint=f"is the line complete? a text that holds {json.dumps(separator)} stands in double quotes",
            )
    columns = zip(*rows[1:], strict=True)
    return _records(path, {name: list(values) for name, values in zip(header, columns, strict=True)}, numbers[1:])


def _rows(path: Path, text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """The fields of each row that is not blank, and the lines where they begin.

    Commas: as the csv module has it, and quotes that do not close are an error. Tabs: the same where each quote belongs to a pair
    around a whole field; otherwise a quote is a sign like any other, as in the files of GLUE and of the STS benchmark, whose
    sentences a csv reader would glue together.
    """
    if '"' not in text or (separator == "\t" and not _quoted(text, separator)):
        lines = [(line, number) for number, line in enumerate(_lines(text), 1) if line]
        return [line.split(separator) for line, _ in lines], [number for _, number in lines]
    rows, numbers, start = [], [], 1
    with _long_fields():
        reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
        try:
            for row in reader:
                if row:
                    rows.append(row)
                    numbers.append(start)
                start = reader.line_num + 1
        except csv.Error as error:
            line = _lines(text)[start - 1]
            raise DataError(
                f"{path}, line {start}: {error}: {_cut(line)}", hint='a quote within a quoted field is written twice: "he said ""no"""'
            ) from error
    return rows, numbers


def _quoted(text: str, separator: str) -> bool:
    """Whether every quote belongs to a pair around a whole field, in which quotes are written twice."""
    borders, at = (separator, "\n", ""), 0
    while (start := text.find('"', at)) >= 0:
        found = _FIELD.match(text, start)
        if found is None or text[start - 1 : start] not in borders or text[found.end() : found.end() + 1] not in borders:
            return False
        at = found.end()
    return True


_FIELD = re.compile(r'"[^"]*(?:""[^"]*)*"')


@contextmanager
def _long_fields() -> Iterator[None]:
    """Within it the csv module reads fields of any length; its limit, 131,072 characters, is one for the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
