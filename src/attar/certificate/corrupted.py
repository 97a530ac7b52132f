"""Test rows under corruptions: how much more the student suffers than the teacher, by kind and severity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attar.certificate.figures import Figure, digits, metric_name, number, shortened, span
from attar.certificate.label_free import LabelFree

__all__ = ["Corrupted", "Corruption", "Severity", "lines"]


@dataclass(frozen=True)
class Severity:
    """Teacher and student on rows under one corruption of one severity, or on the same rows as they are.

    teacher, student: the primary metric; no value where no row has a label. likeness: how like the teacher the student answers.
    label_free: the student's accuracy as it is told without labels; None where that is not known how to.
    """

    teacher: Figure
    student: Figure
    likeness: Figure
    label_free: LabelFree | None = None


@dataclass(frozen=True)
class Corruption:
    """One kind. severities: by number. teacher, student, likeness: means over severities.

    error: the corruption error, Σ E_student / Σ E_teacher over severities; E is 1 − metric where more is better, else the metric.
    relative: the same of what is lost against clean rows; no value where the teacher loses nothing.
    """

    severities: Mapping[str, Severity]
    teacher: Figure
    student: Figure
    likeness: Figure
    error: Figure
    relative: Figure


@dataclass(frozen=True)
class Corrupted:
    """Some test rows under every corruption that was asked. All of it describes; nothing is tested, and no level adjusted.

    rows: how many test rows, each asked under each kind and severity; labelled: of them with a label. spec: as it was asked.
    metric: of `teacher` and `student`; better: +1 where more of it is better. alike_by: what `likeness` is.
    clean: the same rows as they are. kinds: by name. error, relative: means over kinds, mCE and relative mCE.
    left_out: why a kind that was asked is not there.
    told: how far off the accuracies told without labels were where they are believed, on average; assumed: how far off the accuracy at
    home was on the same rows. believed, doubted: how many were and were not to be believed.
    """

    spec: str
    rows: int
    labelled: int
    metric: str
    better: int
    alike_by: str
    clean: Severity
    kinds: Mapping[str, Corruption]
    error: Figure
    relative: Figure
    left_out: Mapping[str, str]
    told: Figure
    assumed: Figure
    believed: int
    doubted: int


def lines(c: Corrupted) -> list[str]:
    """The table for a terminal: one line for each kind, means over severities, and the mean over kinds."""
    severities = len(next(iter(c.kinds.values())).severities)
    head = f"corrupted, {metric_name(c.metric)}" if c.labelled else "corrupted"
    alike = "alike" if c.alike_by == "agreement" else "distance" if "distance" in c.alike_by else "likeness"
    found = [f"{shortened(head, 30):<30}{'teacher':>9}{'student':>9}{alike:>10}  error ratio [95 %]"]
    rows = {"clean": (c.clean, None), **{name: (kind, kind.error) for name, kind in c.kinds.items()}}
    for name, (figures, error) in rows.items():
        numbers = f"{number(figures.teacher):>9}{number(figures.student):>9}{number(figures.likeness):>10}"
        found.append(f"  {shortened(name.replace('_', ' '), 28):<28}{numbers}  {_ratio(error)}".rstrip())
    if c.error.value is not None:
        found.append(f"  {'mean over kinds (mCE)':<28}{'':>28}  {_ratio(c.error)}")
    if c.relative.value is not None:
        found.append(f"  {'of errors added (relative mCE)':<32}{'':>24}  {_ratio(c.relative)}")
    found.append(f"  {c.rows:,} test rows, means over {severities} severit{'ies' if severities != 1 else 'y'}; described, not tested")
    for name, why in c.left_out.items():
        found.append("  " + shortened(f"without {name.replace('_', ' ')}: {why}", 78))
    if c.told.value is not None:
        believed = f"{c.believed} of {c.believed + c.doubted}"
        found.append(f"  accuracy told without labels, believed in {believed} pairs of kind and severity:")
        found.append(f"  off by {_off(c.told)} on average;")
        found.append(f"  the accuracy at home is off by {_off(c.assumed)} there")
    return found


def _off(figure: Figure) -> str:
    return digits(figure.value or 0.0) + (f" {span(figure)}" if figure.low is not None else " [one kind alone: no interval]")


def _ratio(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "" if figure is None else "-"
    text = f"{figure.value:.2f}"
    return text if figure.low is None or figure.high is None else f"{text} [{figure.low:.2f}, {figure.high:.2f}]"
