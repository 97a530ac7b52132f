"""The page's block of further evidence: unlabelled rows put to use, conformal sets, DeLong beside the bootstrap."""

from __future__ import annotations

import math

from attar.certificate import Certificate, Figure, digits, metric_name, signed
from attar.report.tables import NOTHING, Cell, Table

__all__ = ["accuracy", "auroc", "conformal"]


def accuracy(c: Certificate) -> Table | None:
    """How often the student is right: by labels alone, and with the teacher standing in where there is no label."""
    if c.evidence is None or c.evidence.powered is None:
        return None
    found = c.evidence.powered
    rows = [(Cell("labels alone", "Wilson interval"), Cell(f"{found.labelled:,}"), *_both(found.plain))]
    notes = [] if not found.refused else [f"With the unlabelled rows {found.refused}."]
    if not found.refused:
        rows.append(
            (Cell("and rows without a label", "prediction-powered"), Cell(f"{found.labelled + found.unlabelled:,}"), *_both(found.accuracy))
        )
        notes.append(
            f"On {found.unlabelled:,} rows the teacher’s decision stands in for the label, and its errors on the labelled rows "
            "are taken out again; these are to be a random sample of all."
        )
        if _width(found.accuracy) >= _width(found.plain):
            notes.append("That is no narrower than what the labels alone say: the teacher errs too often to add to them.")
    return Table("How often the student is right", ("", "test rows", "accuracy", "95 % interval"), tuple(rows), tuple(notes))


def conformal(c: Certificate) -> Table | None:
    """Coverage and size of conformal sets, teacher beside student."""
    if c.evidence is None or not c.evidence.sets:
        return None
    rows, notes = [], []
    for form, sets in c.evidence.sets.items():
        if sets.refused:
            notes.append(f"For {form} {sets.refused}.")
            continue
        for who in ("teacher", "student"):
            ratio = sets.ratio if who == "student" else Figure(None)
            rows.append(
                (Cell(f"{form}, {who}"), _cell(sets.promised), _cell(sets.coverage.get(who)), _cell(sets.size[who]), _cell(ratio, "×"))
            )
    if rows:
        notes.insert(
            0,
            "A set holds every outcome that the calibration rows do not rule out. Promised: on average over calibration splits; "
            "small: where it lies for 95 % of them, with a threshold for each class in its smallest one. A model that is right more often "
            "than that leaves some sets empty.",
        )
    head = ("", "promised", "holds the right one", "outcomes in a set", "÷ teacher")
    return Table("Conformal sets", head, tuple(rows), tuple(notes))


def auroc(c: Certificate) -> Table | None:
    """AUROC by DeLong's formula, to be held against the bootstrap's."""
    if c.evidence is None or not c.evidence.delong:
        return None
    found, p = c.evidence.delong, c.evidence.delong_p
    name = metric_name("auroc")
    home = c.quality.get("auroc")
    rows = [
        (
            Cell("DeLong", "" if p is None else f"p = {p:.2g}"),
            _cell(found["teacher"]),
            _cell(found["student"]),
            _difference(found["difference"]),
        )
    ]
    if home is not None:
        rows.append((Cell("bootstrap"), _cell(home.teacher), _cell(home.student), _difference(home.difference)))
    return Table(f"{name} by two ways to an interval", ("", "teacher", "student", "student − teacher"), tuple(rows))


def _width(figure: Figure) -> float:
    return math.inf if figure.low is None or figure.high is None else figure.high - figure.low


def _both(figure: Figure) -> tuple[Cell, Cell]:
    cell = _cell(figure)
    return Cell(cell.text), Cell(cell.under or NOTHING)


def _difference(figure: Figure) -> Cell:
    if figure.value is None:
        return Cell(NOTHING)
    ends = [signed(end).strip() for end in (figure.low, figure.high) if end is not None]
    return Cell(signed(figure.value).strip(), f"[{', '.join(ends)}]" if len(ends) == 2 else "")


def _cell(figure: Figure | None, unit: str = "") -> Cell:
    if figure is None or figure.value is None:
        return Cell(NOTHING)
    ends = [digits(end) for end in (figure.low, figure.high) if end is not None]
    return Cell(digits(figure.value) + unit, f"[{', '.join(ends)}]" if len(ends) == 2 else "")
