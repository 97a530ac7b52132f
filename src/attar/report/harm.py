"""Harm on the page: a picture of differences by class and by group with intervals, their tables, and the rows that students lose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from attar.certificate import Certificate, Figure, digits, signed
from attar.certificate.harm import FDR, Family
from attar.certificate.harm import Cell as Part
from attar.report.drawing import Axis, Drawing, shorten
from attar.report.tables import NOTHING, Cell, Table
from attar.report.words import percent

__all__ = ["LISTED", "PARTS", "listed", "pictures", "tables"]

WIDTH, LABELS, ROW = 380.0, 132.0, 24.0  # pixels, as the other pictures of differences
PARTS = 24  # drawn and listed at most, those with the greatest loss
LISTED = 10  # rows that differ, by id
TITLES = {"class": "by class", "group": "by group", "recall": "of positive rows, by group"}


def pictures(c: Certificate) -> list[tuple[str, Drawing]]:
    """A heading and a picture for each family of cells, groups before classes."""
    found = []
    for key in ("group", "recall", "class"):
        family = None if c.harm is None else c.harm.families.get(key)
        if family is not None and (drawing := _forest(key, family)) is not None:
            found.append((_title(key, family), drawing))
    return found


def tables(c: Certificate) -> dict[str, Table | None]:
    """By name, in order: the families, how far groups lie apart, and which rows are lost; None where one would be empty."""
    families = {} if c.harm is None else c.harm.families
    names = {"group": "groups", "recall": "recall", "class": "classes"}
    found = {name: _family(key, families[key]) if key in families else None for key, name in names.items()}
    return {**found, "parity": _parity(c), "lost": _lost(c)}


def _judged(family: Family) -> bool:
    return any(part.answer != "no labels" for part in family.cells)


def _title(key: str, family: Family) -> str:
    figure = (
        {"recall": "recall", "absolute error": "mean absolute error"}.get(family.figure, family.figure) if _judged(family) else "agreement"
    )
    return f"{figure[:1].upper()}{figure[1:]} {TITLES[key]}"


def _forest(key: str, family: Family) -> Drawing | None:
    """One line for each cell: the difference to the teacher, turned so that right is better, or the agreement where nothing is labelled."""
    judged = _judged(family)
    known = [(part, part.difference if judged else part.agreement or Figure(None)) for part in family.cells]
    parts = [part for part, figure in known if figure.value is not None or (judged and part.rows)]
    rows = [(part, _ends(part.difference, family.better) if judged else _ends(part.agreement, 1)) for part in parts[:PARTS]]
    if not rows:
        return None
    values = [x for part, ends in rows if part.answer != "too few rows" for x in ends if x is not None] + ([0.0] if judged else [])
    axis = Axis.around(values, LABELS, WIDTH - 8, pad=0.07)
    unit = judged and family.figure != "absolute error"
    write = (_points if unit else signed) if judged else percent
    told = "; ".join(f"{part.title}: {write(ends[0])}{_said(part)}" if ends[0] is not None else part.title for part, ends in rows)
    bottom = 20 + ROW * len(rows)
    d = Drawing(f"harm-{key}", f"{_title(key, family)}: the student against the teacher", told + ".", WIDTH, bottom + 40)
    for tick in axis.ticks(4):
        label = "0" if tick == 0 and judged else _tick(tick, unit) if judged else percent(tick)
        d.line(axis(tick), 20, axis(tick), bottom, "grid")
        d.text(axis(tick), bottom + 15, label, "tick", "middle")
    if judged:
        d.line(axis(0), 20, axis(0), bottom, "zero")
        if axis(0) - axis.start > 62:
            d.text(axis(0) - 8, 12, "← worse", "small", "end")
        if axis.end - axis(0) > 62:
            d.text(axis(0) + 8, 12, "better →", "small")
    for k, (part, (value, low, high)) in enumerate(rows):
        middle = 20 + ROW * (k + 0.5)
        sure = part.answer in ("worse", "better")
        look = "c-student" if sure or not judged else "c-unsure"
        d.text(0, middle + 4, shorten(part.title, LABELS - 6), "name strong" if sure else "name", hover=part.title)
        if part.answer == "too few rows":
            d.text(LABELS, middle + 4, f"{part.rows:,} rows are too few, {part.rows_needed} needed", "small halo")
            continue
        if low is not None and high is not None:
            d.line(axis(low), middle, axis(high), middle, f"whisker {look}")
            for end in (low, high):
                d.line(axis(end), middle - 4, axis(end), middle + 4, f"cap {look}")
        if value is not None:
            note = f"{part.title}: {write(value)}, {part.rows:,} rows{_said(part)}"
            d.mark(axis(value), middle, "diamond" if sure else "disc", f"point {look}", 4.5, note)
    words = "difference, points" if unit else "difference, in the label’s unit" if judged else "decisions alike"
    d.text((axis.start + axis.end) / 2, bottom + 32, words, "small", "middle")
    return d


def _ends(figure: Figure | None, better: int) -> tuple[float | None, float | None, float | None]:
    if figure is None or figure.value is None:
        return None, None, None
    if figure.low is None or figure.high is None:
        return better * figure.value, None, None
    low, high = sorted((better * figure.low, better * figure.high))
    return better * figure.value, low, high


def _said(part: Part) -> str:
    return {"worse": ", significantly worse", "better": ", significantly better", "too few rows": ", too few rows"}.get(part.answer, "")


def _tick(value: float, points: bool) -> str:
    text = f"{abs(value) * (100 if points else 1):.6g}"
    return ("+" if value > 0 else "−") + text


def _points(share: float) -> str:
    """A difference of shares in points of per cent."""
    text = f"{abs(share) * 100:.1f}"
    return text if text == "0.0" else ("+" if share > 0 else "−") + text


def _cell(figure: Figure | None, write: Callable[[float], str]) -> Cell:
    if figure is None or figure.value is None or not math.isfinite(figure.value):
        return Cell(NOTHING)
    if figure.low is None or figure.high is None:
        return Cell(write(figure.value).strip())
    return Cell(write(figure.value).strip(), f"[{write(figure.low).strip()}, {write(figure.high).strip()}]")


def _family(key: str, family: Family) -> Table | None:
    parts = family.cells[:PARTS]
    if not parts:
        return None
    judged, shares = _judged(family), family.figure != "absolute error"
    name = "right" if key != "recall" else "finds"
    head = ["", "rows", *(["agreement"] if shares else [])]
    if judged:
        head += [f"teacher {name}", f"student {name}", "difference, points"] if shares else ["teacher", "student", "difference"]
        head.append(f"at FDR {FDR:.0%}")
    rows = []
    for part in parts:
        rows_of = part.rows if judged else (part.agreement.n if part.agreement else 0)
        line = [Cell(part.title), Cell(f"{rows_of:,}"), *([_cell(part.agreement, percent)] if shares else [])]
        if judged:
            line += [_cell(Figure(f.value) if shares else f, percent if shares else digits) for f in (part.teacher, part.student)]
            line += [_cell(part.difference, _points if shares else signed), _answer(part)]
        rows.append(tuple(line))
    caption = _title(key, family)
    if len(parts) < len(family.cells):
        what = "the greatest loss" if judged else "the least agreement"
        caption += f": the {len(parts)} of {len(family.cells):,} with {what}"
    return Table(caption, tuple(head), tuple(rows), _notes(family))


def _answer(part: Part) -> Cell:
    if part.answer == "too few rows":
        return Cell("too few rows", f"{part.rows_needed:,} needed")
    return Cell(part.answer, "" if part.adjusted is None else f"adjusted p {part.adjusted:.2g}")


def _notes(family: Family) -> tuple[str, ...]:
    parts = [f for part in family.cells for f in (part.agreement, part.difference) if f is not None and f.value is not None and f.how]
    found = [f"Intervals, each by itself: {'; '.join(dict.fromkeys(f.how for f in parts))}."] if parts else []
    if family.tested:
        test = "paired t" if family.figure == "absolute error" else "McNemar"
        found.append(
            f"Worse and better: {test} tests of all {family.tested} together, false discovery rate {FDR:.0%} (Benjamini–Hochberg)."
        )
    if family.regret.value is not None and family.tested > 1:
        write = digits if family.figure == "absolute error" else lambda x: f"{x * 100:.1f}".replace("-", "−")
        unit = "" if family.figure == "absolute error" else " points"
        low, high = (write(x) if x is not None else NOTHING for x in (family.regret.low, family.regret.high))
        found.append(f"Largest loss: {write(family.regret.value)}{unit} [{low}, {high}], at {family.worst}; {family.regret.how}.")
    return tuple(found)


def _parity(c: Certificate) -> Table | None:
    found = c.harm.parity if c.harm is not None else {}
    rows = [
        (Cell(f"{column}, {name}"), _cell(p.teacher, digits), _cell(p.student, digits), _cell(p.change, signed))
        for column, by in found.items()
        for name, p in by.items()
    ]
    if not rows:
        return None
    notes = [
        "Demographic parity: the largest difference between two groups in the share of positive decisions. "
        "Equalised odds: the larger of those in recall and in the false-positive rate.",
        *dict.fromkeys(f"Interval: {p.teacher.how}." for by in found.values() for p in by.values()),
    ]
    for column, by in found.items():
        for name, p in by.items():
            if p.left_out:
                notes.append(f"Of {column}, {name}, left out for too few rows: {', '.join(p.left_out)}.")
    return Table("How far groups lie apart; less is better", ("", "teacher", "student", "change"), tuple(rows), tuple(notes))


def _lost(c: Certificate) -> Table | None:
    pies = c.harm.pies if c.harm is not None else None
    if pies is None:
        return None
    who = f"The mode of {pies.seeds} students" if pies.seeds > 1 else "The student"
    figures = (
        ("differs from the teacher", pies.differ, percent),
        ("is wrong where the teacher is right", pies.lost, percent),
        ("is right where the teacher is wrong", pies.gained, percent),
        ("found by 1 − confidence, AUROC: all that differ", pies.differ_found, digits),
        ("found by 1 − confidence, AUROC: lost rows", pies.lost_found, digits),
    )
    rows = [(Cell(what), _cell(f, write), Cell(f"{f.n:,}")) for what, f, write in figures if f.value is not None]
    notes = [f"{pies.listed:,} decisions that differ are listed by the id of their row in {pies.file}."] if pies.file else []
    ways = dict.fromkeys(f.how for _, f, _ in figures if f.value is not None and f.how)
    return Table(who, ("", "figure", "rows"), tuple(rows), (*([f"Intervals: {'; '.join(ways)}."] if ways else []), *notes))


def listed(c: Certificate) -> Table | None:
    """The first of the rows that differ, by id."""
    pies = c.harm.pies if c.harm is not None else None
    if pies is None or not pies.examples:
        return None
    many = any(e.of for e in pies.examples)
    seeds = pies.seeds > 1
    head = ["row id", *(["label of the row"] if many else []), "label", "teacher", "most students" if seeds else "student", "it is"]
    rows = []
    for e in pies.examples[:LISTED]:
        students = Cell(e.students, f"{percent(e.alike)} of seeds" if seeds else "")
        line: Sequence[Cell] = [
            Cell(str(e.id)),
            *([Cell(e.of)] if many else []),
            Cell(e.label or NOTHING),
            Cell(e.teacher),
            students,
            Cell(e.what),
        ]
        rows.append(tuple(line))
    caption = f"The first {len(rows)} of {pies.listed:,} that differ" if len(rows) < pies.listed else "Rows that differ"
    return Table(caption, tuple(head), tuple(rows), ("Lost: the teacher is right. First those of which most students are sure.",))
