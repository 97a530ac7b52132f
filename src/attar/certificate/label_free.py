"""Accuracy on rows from elsewhere as it is told without their labels, beside the truth where that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attar.certificate.figures import Figure, number, shortened, span

__all__ = ["LabelFree", "lines"]


@dataclass(frozen=True)
class LabelFree:
    """The student's accuracy, told from how often it agrees with the teacher there and how often it is right at home where it does.

    estimate: its interval is that of sampling alone, not of what was assumed. truth: by labels; no value where there are none.
    decisions, confidence: how far the teacher's answers have moved from those at home, 0..1. believed: False where it is too far.
    """

    estimate: Figure
    truth: Figure
    decisions: float
    confidence: float
    believed: bool


def lines(told: Mapping[str, LabelFree]) -> list[str]:
    """The table for a terminal, one line for each data set."""
    found = [f"{'accuracy told without labels':<34}{'told':>9}  {'[95 %]':<18}{'by labels':>9}"]
    for name, free in told.items():
        found.append(f"  {shortened(name, 32):<32}{number(free.estimate):>9}  {span(free.estimate):<18}{number(free.truth):>9}")
        if not free.believed:
            found.append("    not to be believed: the teacher's own answers have moved far")
    return found
