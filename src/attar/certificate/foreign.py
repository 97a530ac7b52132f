"""How well student and teacher tell rows that are not of the task from those that are."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from attar.certificate.figures import interval, number, shortened
from attar.certificate.quality import Quality

__all__ = ["DETECTORS", "FIGURES", "Foreign", "lines"]

DETECTORS = {
    "confidence": "confidence",
    "energy": "energy",
    "knn": "nearest neighbours",
    "mahalanobis": "Mahalanobis",
    "relative_mahalanobis": "relative Mahalanobis",
}
FIGURES = {"auroc": "AUROC", "fpr_at_95": "FPR at 95 % TPR"}


@dataclass(frozen=True)
class Foreign:
    """Foreign rows beside the test rows, and how well each detector tells the two apart.

    data: digest of the rows' ids. rows: how many were asked; home: test rows beside them; left_out: rows that are among those at home,
    or that the teacher had learned from. All count alike, whatever test rows weigh elsewhere.
    rows_needed: of each of the two, where there are too few of one for any figure; None where there are enough.
    detectors: by name, then `auroc` (P(a test row looks more at home than a foreign one)) and `fpr_at_95` (share of foreign rows that pass
    the threshold which 95 % of test rows pass). A figure that one side lacks has no value.
    curves: by "teacher" and "student", of their confidence: "foreign" and "home", the shares that pass as the threshold falls.
    notes: what could not be measured, and why.
    """

    data: str
    rows: int
    home: int
    left_out: int
    rows_needed: int | None = None
    detectors: Mapping[str, Mapping[str, Quality]] = field(default_factory=dict)
    curves: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def lines(name: str, section: Foreign, width: int = 80) -> list[str]:
    """The table of one set of foreign rows for a terminal, its head first."""
    head = f"foreign: {shortened(name, 20)}"
    if section.rows_needed is not None:
        return [head, *_wrapped(too_few(section), width)]
    found = [f"{head:<30}{'teacher':>9}{'student':>9}  student − teacher [95 %]"]
    counts = f"{section.rows:,} rows beside {section.home:,} test rows"
    for figure, said in FIGURES.items():
        found.append(f"  {said}" + (f", {counts}" if figure == "auroc" else ""))
        for detector, by in section.detectors.items():
            q = by[figure]
            found.append(f"    {DETECTORS[detector]:<26}{number(q.teacher):>9}{number(q.student):>9}  {interval(q.difference)}")
    return [*found, *(line for note in section.notes for line in _wrapped(note, width))]


def too_few(section: Foreign) -> str:
    """In a sentence, why nothing is said."""
    return (
        f"INSUFFICIENT EVIDENCE: {section.rows:,} foreign and {section.home:,} test rows; "
        f"at least {section.rows_needed:,} of each are needed"
    )


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ", break_long_words=False)
