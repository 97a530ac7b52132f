"""The page's block of further evidence: what is there is shown, what is refused says why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from attar.certificate import Certificate, Evidence, Figure, Powered, Sets
from attar.certificate.evidence import lines
from attar.certificate.plain import plain, whole
from attar.report import evidence
from attar.report.tables import Table

SETS = Sets(
    500,
    Figure(0.9, 0.872, 0.925),
    {"teacher": Figure(0.91, 0.9, 0.92), "student": Figure(0.895, 0.88, 0.91)},
    {"teacher": Figure(0.95, 0.94, 0.96), "student": Figure(1.24, 1.2, 1.28)},
    Figure(1.305, 1.27, 1.34, "×"),
)
FULL = Evidence(
    Powered(Figure(0.886, 0.866, 0.907), Figure(0.89, 0.839, 0.926), 200, 5000, 24),
    {
        "all classes": SETS,
        "each class": Sets(3, Figure(0.9), refused="refused: 1 of 3 classes has fewer than 9 labelled calibration rows: 'b' 3"),
    },
    {"teacher": Figure(0.81, 0.79, 0.83), "student": Figure(0.8, 0.78, 0.82), "difference": Figure(-0.01, -0.02, 0.001)},
    0.08,
)
REFUSED = Evidence(
    Powered(Figure(None), Figure(0.9, 0.6, 0.98), 10, 400, 1, "refused: student and teacher disagree on 1 of 10 labelled rows")
)


def of(section: Evidence | None) -> Certificate:
    return cast(Certificate, SimpleNamespace(evidence=section, quality={}))


def words(table: Table | None) -> str:
    assert table is not None
    cells = [f"{cell.text} {cell.under}" for row in table.rows for cell in row]
    return " ".join([table.caption, *table.head, *cells, *table.notes])


def test_tables_hold_every_figure_with_its_interval() -> None:
    c = of(FULL)
    accuracy, conformal, auroc = words(evidence.accuracy(c)), words(evidence.conformal(c)), words(evidence.auroc(c))
    for text in ("0.8900", "[0.8390, 0.9260]", "0.8860", "[0.8660, 0.9070]", "5,200"):
        assert text in accuracy
    for text in ("[0.8720, 0.9250]", "1.2400", "[1.2000, 1.2800]", "1.3050×", "For each class refused: 1 of 3 classes has fewer"):
        assert text in conformal
    for text in ("p = 0.08", "−0.0100", "[−0.0200, +0.0010]"):
        assert text in auroc


def test_a_teacher_that_adds_nothing_to_the_labels_is_said_to_add_nothing() -> None:
    wide = Evidence(Powered(Figure(0.886, 0.82, 0.95), Figure(0.89, 0.839, 0.926), 200, 5000, 24))
    assert "errs too often to add to them" in words(evidence.accuracy(of(wide)))
    assert "errs too often" not in words(evidence.accuracy(of(FULL)))


def test_what_is_refused_is_said_and_has_no_row() -> None:
    table = evidence.accuracy(of(REFUSED))
    assert table is not None and len(table.rows) == 1
    assert "disagree on 1 of 10 labelled rows" in words(table)
    assert evidence.conformal(of(REFUSED)) is None and evidence.auroc(of(REFUSED)) is None


def test_without_the_section_there_is_no_table() -> None:
    assert [evidence.accuracy(of(None)), evidence.conformal(of(None)), evidence.auroc(of(None))] == [None] * 3


@pytest.mark.parametrize("section", [FULL, REFUSED, Evidence()])
def test_the_section_survives_json_and_fits_a_terminal(section: Evidence) -> None:
    value: dict[str, Any] = plain(section)
    assert whole(Evidence, value) == section
    told = lines(section)
    assert max(map(len, told)) <= 80
    refusals = [part.refused for part in (section.powered, *section.sets.values()) if part is not None and part.refused]
    assert " ".join(told).count("refused:") == len(refusals)
