"""The tree of errors that attar explains to its user.

AttarError
├── NotationError     text that does not read: grammar, unknown word, argument of the wrong type
│   └── RecipeError   the same in a recipe file, with its line
├── DataError         rows, columns, labels or splits that cannot be used
├── TeacherError      a source that cannot answer, or answers something else than the data asks
├── StudentError      a student that cannot be built, trained or used with this objective
├── ObjectiveError    a term that cannot compare what it is given
│   └── TapError      a module path that is not there, or cannot be read
├── StoreError        stored answers: missing, damaged, of another teacher
├── ExportError       a graph that cannot be written, or does not answer as the student did
├── EvidenceError     a figure that cannot be computed from what is there
├── TrustError        something that could execute code, without having been trusted
├── RunError          a run folder that is in the way, or belongs to another recipe
├── MissingExtra      an optional library that is not installed
└── DiskFull          no space left for what was about to be written

A message says what was wrong and shows the values; `hint` offers a way out. `str(error)` shows both.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AttarError",
    "DataError",
    "DiskFull",
    "EvidenceError",
    "ExportError",
    "MissingExtra",
    "NotationError",
    "ObjectiveError",
    "RecipeError",
    "RunError",
    "StoreError",
    "StudentError",
    "TapError",
    "TeacherError",
    "TrustError",
    "near",
]


class AttarError(Exception):
    """An error of the user's that we explain: what was wrong, the values, and a hint."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class NotationError(AttarError):
    """Text that does not read: grammar, unknown word, argument of the wrong type."""


class RecipeError(NotationError):
    """A recipe that does not read; the message begins with the file and the line."""


class DataError(AttarError):
    """Rows, columns, labels or splits that cannot be used."""


class TeacherError(AttarError):
    """A source that cannot answer, or answers something else than the data asks."""


class StudentError(AttarError):
    """A student that cannot be built, trained or used with this objective."""


class ObjectiveError(AttarError):
    """A term that cannot compare what it is given."""


class TapError(ObjectiveError):
    """A module path that is not there, or cannot be read."""


class StoreError(AttarError):
    """Stored answers that are missing, damaged or of another teacher."""


class ExportError(AttarError):
    """A graph that cannot be written, or does not answer as the student did."""


class EvidenceError(AttarError):
    """A figure that cannot be computed from what is there."""


class TrustError(AttarError):
    """Something that could execute code, without having been trusted."""


class RunError(AttarError):
    """A run folder that is in the way, or belongs to another recipe."""


class MissingExtra(AttarError):
    """An optional library that is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed", hint=f'pip install "attar[{extra}]"')


class DiskFull(AttarError):
    """No space left for what was about to be written."""


def near(word: str, known: Iterable[str]) -> str:
    """A hint that names the known words nearest to `word`: "did you mean 'kl'?"; else a few that exist."""
    words = sorted(set(known))
    if close := difflib.get_close_matches(word, words, n=3, cutoff=0.5):
        return "did you mean " + " or ".join(repr(w) for w in close) + "?"
    if not words:
        return ""
    return "known: " + ", ".join(words[:12]) + (", …" if len(words) > 12 else "")
