"""Test rows under corruptions, on the page: a small picture for each kind, errors, and accuracies told without labels."""

from __future__ import annotations

from collections.abc import Callable

from attar.certificate import Certificate, Figure, digits, metric_name
from attar.certificate.corrupted import Corrupted, Corruption, Severity
from attar.certificate.label_free import LabelFree
from attar.report.drawing import CHARACTER, Axis, Drawing
from attar.report.tables import NOTHING, Cell, Table
from attar.report.words import interval, one

__all__ = ["drawings", "errors", "legend", "told"]

LEFT, TOP, WIDE, HIGH = 36.0, 10.0, 140.0, 104.0
LOOKS = (("teacher", "square", "teacher"), ("student", "disc", "student"), ("likeness", "diamond", "file1"))
SHARES = frozenset({"accuracy", "balanced_accuracy", "auroc", "average_precision", "recall_at_fpr", "recall_at_k"})


def drawings(c: Certificate) -> list[tuple[str, Drawing]]:
    """For each kind, its name and teacher, student and their agreement by severity, all on one scale; 0 is the rows as they are."""
    found = c.corrupted
    if found is None:
        return []
    looks = _looks(found)
    values = [x for kind in found.kinds.values() for s in (found.clean, *kind.severities.values()) for x in _ends(s, looks)]
    if not values:
        return []
    down = Axis.around(values, TOP + HIGH, TOP)
    return [(_name(kind), _drawing(kind, found, down)) for kind in found.kinds]


def legend(c: Certificate) -> Drawing | None:
    """Who is who in the pictures."""
    if not drawings(c) or c.corrupted is None:
        return None
    names = {"teacher": "teacher", "student": "student", "likeness": "both agree" if _agrees(c.corrupted) else "likeness to the teacher"}
    d, x = Drawing("corrupted-legend", "Who is drawn how", ", ".join(names[look] for look, _, _ in _looks(c.corrupted)) + ".", 380, 18), 0.0
    for look, shape, colour in _looks(c.corrupted):
        d.path([(x, 9), (x + 20, 9)], f"curve thin c-{colour}")
        d.mark(x + 10, 9, shape, f"point c-{colour}", 4)
        d.text(x + 27, 13, names[look], "name")
        x += 50 + CHARACTER * len(names[look])
    return d


def errors(c: Certificate) -> Table | None:
    """Means over severities, and the corruption errors relative to the teacher's."""
    found = c.corrupted
    if found is None:
        return None
    metric = metric_name(found.metric)
    rows = [_row("as they are", found.clean, None)]
    rows += [_row(_name(kind), figures, figures) for kind, figures in found.kinds.items()]
    if found.labelled:
        last = [Cell("mean over kinds", "of those that have one"), *[Cell("")] * 3, _ratio(found.error), _ratio(found.relative)]
        rows.append(tuple(last))
    what = "distance from the teacher" if found.alike_by == "root_mean_square_distance" else "agreement" if _agrees(found) else "likeness"
    head = ["", f"teacher, {metric}", f"student, {metric}", what, "error ratio", "ratio of errors added"]
    if not found.labelled:
        rows, head = [(row[0], row[3]) for row in rows], [head[0], head[3]]
    severities = ", ".join(next(iter(found.kinds.values())).severities)
    notes = [f"{found.rows:,} test rows, each under each kind at the severities {severities}; figures are means over these."]
    if found.labelled:
        error = f"1 − {metric}" if found.better > 0 else metric
        notes.append(
            f"Error ratio: the student’s {error} over the teacher’s, summed over severities; above 1 the student errs more. Of errors "
            "added: the same of what is lost against rows as they are; a dash where the teacher loses nothing that can be told from chance."
        )
        notes.append("Intervals: paired BCa bootstrap over rows. They describe: nothing is tested here, and no level adjusted.")
    notes += [f"Without {_name(kind)}: {why}." for kind, why in found.left_out.items()]
    return Table("Under corruptions, the student beside the teacher", tuple(head), tuple(rows), tuple(notes))


def told(c: Certificate) -> Table | None:
    """Accuracies told without labels, beside what labels say: of rows from elsewhere, and of each corruption at its highest severity."""
    free: dict[str, LabelFree] = {name: s.label_free for name, s in c.shift.items() if s.label_free is not None}
    for kind, figures in c.corrupted.kinds.items() if c.corrupted is not None else ():
        number, severity = list(figures.severities.items())[-1]
        if severity.label_free is not None:
            free[f"{_name(kind)}, severity {number}"] = severity.label_free
    if not free:
        return None
    rows = []
    for name, f in free.items():
        moved = Cell(f"{f.decisions * 100:.0f} / {f.confidence * 100:.0f} %")
        rows.append((Cell(name), _figure(f.estimate), _figure(f.truth), moved, Cell("yes" if f.believed else "no")))
    notes = [
        "Told: from how often the student agrees with the teacher there, and how often it is right at home where both agree and where not; "
        "its interval is that of sampling alone. Teacher moved: the shares of its decisions, and its mean confidence, against home. "
        "Where either moved far the teacher itself may have collapsed, and what is told is not to be believed. What both get wrong "
        "together, and are sure of, moves neither."
    ]
    if c.corrupted is not None and c.corrupted.told.value is not None and c.corrupted.assumed.value is not None:
        k = c.corrupted
        notes.append(
            f"Of {k.believed + k.doubted} pairs of a kind and a severity {k.believed} are believed; there what is told is off by "
            f"{interval(c.corrupted.told)} on average, and the accuracy at home by {interval(c.corrupted.assumed)}."
        )
    head = ("", "told", "by labels", "teacher moved", "to be believed")
    return Table("The student’s accuracy, told without labels", head, tuple(rows), tuple(notes))


def _drawing(kind: str, found: Corrupted, down: Axis) -> Drawing:
    by = {0: found.clean} | {int(number): s for number, s in found.kinds[kind].severities.items()}
    across = Axis(0, max(by), LEFT + 6, LEFT + WIDE - 6)
    said = "; ".join(f"{n}: " + ", ".join(f"{look} {_said(s, look)}" for look, _, _ in _looks(found)) for n, s in by.items())
    d = Drawing(f"corrupted-{kind}", f"{_name(kind)}, by severity", said + ".", LEFT + WIDE + 4, TOP + HIGH + 36)
    for tick in down.ticks(4):
        d.line(LEFT, down(tick), LEFT + WIDE, down(tick), "grid")
        d.text(LEFT - 5, down(tick) + 4, f"{tick:g}", "tick", "end")
    for number in by:
        d.text(across(number), TOP + HIGH + 15, str(number), "tick", "middle")
    d.text(LEFT + WIDE / 2, TOP + HIGH + 32, "severity", "small", "middle")
    for look, shape, colour in _looks(found):
        points = [(number, figure) for number, s in by.items() if one(figure := _of(s, look)) is not None]
        for number, f in points:
            if f.low is not None and f.high is not None:
                d.line(across(number), down(f.low), across(number), down(f.high), f"whisker thin c-{colour}")
        if len(points) > 1:
            d.path([(across(number), down(f.value or 0.0)) for number, f in points], f"curve thin c-{colour}")
        for number, f in points:
            d.mark(
                across(number), down(f.value or 0.0), shape, f"point c-{colour}", 3, f"{look}, severity {number}: {digits(f.value or 0.0)}"
            )
    return d


def _looks(found: Corrupted) -> list[tuple[str, str, str]]:
    """What is drawn: look, shape, colour. Likeness only where it is of the same scale as the metric, or all that there is."""
    both = [look for look in LOOKS if look[0] != "likeness"] if found.labelled else []
    return both + [look for look in LOOKS if look[0] == "likeness" and (not both or (_agrees(found) and found.metric in SHARES))]


def _agrees(found: Corrupted) -> bool:
    return found.alike_by == "agreement"


def _of(severity: Severity, look: str) -> Figure:
    return {"teacher": severity.teacher, "student": severity.student, "likeness": severity.likeness}[look]


def _ends(severity: Severity, looks: list[tuple[str, str, str]]) -> list[float]:
    figures = [_of(severity, look) for look, _, _ in looks]
    return [x for f in figures for x in (f.value, f.low, f.high) if x is not None]


def _said(severity: Severity, look: str) -> str:
    value = one(_of(severity, look))
    return NOTHING if value is None else digits(value)


def _row(name: str, figures: Severity | Corruption, kind: Corruption | None) -> tuple[Cell, ...]:
    ratios = [Cell(""), Cell("")] if kind is None else [_ratio(kind.error), _ratio(kind.relative)]
    return (Cell(name), _figure(figures.teacher), _figure(figures.student), _figure(figures.likeness), *ratios)


def _ratio(figure: Figure) -> Cell:
    return _figure(figure, lambda x: f"{x:.2f}")


def _figure(figure: Figure, write: Callable[[float], str] = digits) -> Cell:
    if figure.value is None:
        return Cell(NOTHING)
    there = [end for end in (figure.low, figure.high) if end is not None]
    return Cell(write(figure.value), f"[{', '.join(map(write, there))}]" if len(there) == 2 else "")


def _name(kind: str) -> str:
    return kind.replace("_", " ")
