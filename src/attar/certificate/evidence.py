"""Further evidence of how good student and teacher are: unlabelled rows put to use, conformal sets, DeLong beside the bootstrap."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from attar.certificate.figures import Figure, interval, number, span

__all__ = ["Evidence", "Powered", "Sets", "lines"]


@dataclass(frozen=True)
class Powered:
    """How often the student is right, from few labels and from the teacher's answers to the rows that have none.

    accuracy: prediction-powered; without a value where it is refused. plain: from the labels alone.
    labelled, unlabelled: test rows. disagreements: of student and teacher on labelled rows.
    refused: why there is no figure, and how many labels would do; "" where there is one. labels_needed: the number alone.
    """

    accuracy: Figure
    plain: Figure
    labelled: int
    unlabelled: int
    disagreements: int
    refused: str = ""
    labels_needed: int | None = None


@dataclass(frozen=True)
class Sets:
    """Conformal sets of outcomes, fitted on calibration rows and counted on test rows.

    rows: calibration rows with a label; of the smallest class, where each class has sets of its own.
    promised: the share of right outcomes that sets hold on average over calibration splits; its interval is where that share lies for 95 %
    of splits of so many rows. coverage: the share on labelled test rows, by who ("teacher", "student"). size: the mean number of outcomes
    in a set, by who. ratio: size of the student ÷ size of the teacher.
    refused: why there are no figures, and how many rows would do; "" where there are some. rows_needed: the number alone, of each class
    where each has its own.
    """

    rows: int
    promised: Figure
    coverage: Mapping[str, Figure] = field(default_factory=dict)
    size: Mapping[str, Figure] = field(default_factory=dict)
    ratio: Figure = field(default_factory=lambda: Figure(None))
    refused: str = ""
    rows_needed: int | None = None


@dataclass(frozen=True)
class Evidence:
    """What labels, unlabelled rows and calibration rows show beyond the metrics; of a classification alone.

    powered: None where every test row has a label. sets: by their form, "all classes" (one threshold) and "each class" (one for each).
    delong: AUROC of "teacher" and "student", and "difference" with DeLong's interval; empty where AUROC is not the metric.
    delong_p: two-sided, of "both rank equally well"; None where there is none.
    """

    powered: Powered | None = None
    sets: Mapping[str, Sets] = field(default_factory=dict)
    delong: Mapping[str, Figure] = field(default_factory=dict)
    delong_p: float | None = None


def lines(evidence: Evidence) -> list[str]:
    """The section as a table for a terminal, its head first."""
    out = [f"{'further evidence':<30}{'teacher':>9}{'student':>9}  [95 %]"]
    if evidence.delong:
        t, s, d = (evidence.delong[who] for who in ("teacher", "student", "difference"))
        p = "" if evidence.delong_p is None else f", p = {evidence.delong_p:.2g}"
        out.append(f"  {'AUROC, DeLong' + p:<28}{number(t):>9}{number(s):>9}  {interval(d)}")
    if evidence.powered is not None:
        out += _powered(evidence.powered)
    for form, sets in evidence.sets.items():
        out += _sets(form, sets)
    return out


def _powered(powered: Powered) -> Iterator[str]:
    if powered.plain.value is not None:
        yield f"  {f'accuracy, {powered.labelled:,} labels alone':<37}{number(powered.plain):>9}  {span(powered.plain)}"
    what = f"accuracy, and {powered.unlabelled:,} rows without"
    if powered.refused:
        yield from _wrapped(f"{what}: {powered.refused}", "  ")
    else:
        yield f"  {what:<37}{number(powered.accuracy):>9}  {span(powered.accuracy)}"


def _sets(form: str, sets: Sets) -> Iterator[str]:
    head = f"  conformal sets, {form}"
    if sets.refused:
        yield from _wrapped(f"{head.strip()}: {sets.refused}", "  ")
        return
    yield f"{head}: {number(sets.promised)} promised, {span(sets.promised)} for {sets.rows:,} rows"
    held, size, r = sets.coverage, sets.size, sets.ratio
    if held:
        yield f"    {'hold the right outcome':<26}{number(held['teacher']):>9}{number(held['student']):>9}"
    times = "" if r.value is None or r.low is None or r.high is None else f"  {r.value:.3f}× [{r.low:.3f}, {r.high:.3f}]"
    yield f"    {'outcomes in a set':<26}{number(size['teacher']):>9}{number(size['student']):>9}{times}"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 80, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False)
