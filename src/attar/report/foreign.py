"""Foreign inputs on the page: a curve of confidence for each set of foreign rows, and what every detector tells, as tables."""

from __future__ import annotations

from collections.abc import Callable

from attar.certificate import Certificate, Figure, digits, signed
from attar.certificate.foreign import DETECTORS, Foreign, too_few
from attar.report.drawing import Axis, Drawing
from attar.report.tables import Cell, Table
from attar.report.words import one, percent

__all__ = ["curves", "tables"]

DRAWN = 6  # sets whose curves are drawn
SHAPES = {"teacher": "square", "student": "disc"}


def curves(c: Certificate) -> list[tuple[str, Drawing]]:
    """For each set of foreign rows its name, and the shares of test rows and of foreign rows that pass as the threshold falls."""
    drawn = [(name, section) for name, section in c.foreign.items() if section.curves]
    return [(name, _curve(f"foreign-{k}", name, section)) for k, (name, section) in enumerate(drawn[:DRAWN])]


def tables(c: Certificate) -> list[Table]:
    """For each set of foreign rows AUROC and false-positive rate of every detector, or how many rows are needed."""
    return [_table(name, section) for name, section in c.foreign.items()]


def _table(name: str, section: Foreign) -> Table:
    caption = f"{name}: {section.rows:,} foreign rows beside {section.home:,} test rows"
    if section.rows_needed is not None:
        return Table(caption, ("",), (), (too_few(section) + ".",))
    rows = []
    for detector, by in section.detectors.items():
        auroc, fpr = by["auroc"], by["fpr_at_95"]
        cells = [_cell(auroc.teacher), _cell(auroc.student), _cell(auroc.difference, signed)]
        rows.append((Cell(DETECTORS[detector]), *cells, _cell(fpr.teacher), _cell(fpr.student), _cell(fpr.difference, signed)))
    three = ("teacher", "student", "student − teacher")
    head = ("", *(f"AUROC, {who}" for who in three), *(f"FPR at 95 % TPR, {who}" for who in three))
    notes = [note[:1].upper() + note[1:] + "." for note in section.notes]
    if section.left_out:
        notes.append(f"{section.left_out:,} rows that are among those at home, or were learned from, are left out.")
    figures = [figure for by in section.detectors.values() for q in by.values() for figure in (q.teacher, q.student)]
    ways = "; ".join(dict.fromkeys(figure.how.partition("; ")[0] for figure in figures if figure.how))
    made = {detector: _made(by["auroc"].student) or _made(by["auroc"].teacher) for detector, by in section.detectors.items()}
    notes += [f"{DETECTORS[detector][:1].upper() + DETECTORS[detector][1:]}: {text}." for detector, text in made.items() if text]
    return Table(caption, head, tuple(rows), (f"Intervals: {ways}.", *notes))


def _made(figure: Figure) -> str:
    """How the detector was made, which stands behind how the interval was."""
    return figure.how.partition("; ")[2]


def _cell(figure: Figure, write: Callable[[float], str] = digits) -> Cell:
    if figure.value is None:
        return Cell("–")
    if figure.low is None or figure.high is None:
        return Cell(write(figure.value).strip())
    return Cell(write(figure.value).strip(), f"[{write(figure.low).strip()}, {write(figure.high).strip()}]")


def _curve(mark: str, name: str, section: Foreign) -> Drawing:
    left, top, side = 34.0, 6.0, 156.0
    across, down = Axis(0, 1, left, left + side), Axis(0, 1, top + side, top)
    passing = {who: one(getattr(section.detectors["confidence"]["fpr_at_95"], who)) for who in section.curves}
    told = "; ".join(
        f"{who}: {percent(share)} of foreign rows pass where 95 % of test rows do" for who, share in passing.items() if share is not None
    )
    d = Drawing(mark, f"Test rows and {name} by confidence", told + ".", left + side + 8, top + side + 68)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        d.line(left, down(tick), left + side, down(tick), "grid")
        d.line(across(tick), top, across(tick), top + side, "grid")
        if tick in (0, 0.5, 1):
            d.text(left - 5, down(tick) + 4, f"{tick:g}", "tick", "end")
            d.text(across(tick), top + side + 15, f"{tick:g}", "tick", "middle")
    d.line(across(0), down(0), across(1), down(1), "zero diagonal")
    for who, curve in section.curves.items():
        d.path([(across(x), down(y)) for x, y in zip(curve["foreign"], curve["home"], strict=True)], f"curve bold c-{who}")
    for k, (who, share) in enumerate(passing.items()):
        if share is not None:
            d.mark(across(share), down(0.95), SHAPES[who], f"point c-{who}", 4, f"{who}: {percent(share)} of foreign rows pass")
        d.mark(left + 6 + 76 * k, top + side + 56, SHAPES[who], f"point c-{who}", 4)
        d.text(left + 15 + 76 * k, top + side + 60, who, "name")
    d.text(left + side / 2, top + side + 32, "foreign rows that pass", "small", "middle")
    d.add("text", "small", "test rows that pass", transform=f"translate(8 {top + side / 2:g}) rotate(-90)", text_anchor="middle")
    return d
