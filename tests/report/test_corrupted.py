"""Corruptions on the page: a picture for each kind, what is a ratio and of what, what is believed, and nothing where nothing was asked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attar.certificate import Certificate, Figure, Quality, Shifted, Verdict
from attar.certificate.corrupted import Corrupted, Corruption, Severity
from attar.certificate.label_free import LabelFree
from attar.report import corrupted as page
from attar.report import write_report


def figure(value: float, **facts: Any) -> Figure:
    return Figure(value, value - 0.02, value + 0.02, n=500, **facts)


def free(estimate: float, truth: float, moved: float) -> LabelFree:
    return LabelFree(figure(estimate), figure(truth), moved, 0.02, moved < 0.05)


def kind(worse: float, relative: Figure) -> Corruption:
    each = {
        str(n): Severity(figure(0.9 - worse * n), figure(0.85 - 2 * worse * n), figure(0.9 - worse * n), free(0.8, 0.78, worse * n))
        for n in (1, 3, 5)
    }
    return Corruption(each, figure(0.8), figure(0.7), figure(0.75), figure(1.4, unit="×"), relative)


def section(**changes: Any) -> Corrupted:
    values: dict[str, Any] = {
        "spec": "corruptions()", "rows": 500, "labelled": 480, "metric": "accuracy", "better": 1, "alike_by": "agreement",
        "clean": Severity(figure(0.9), figure(0.85), figure(0.95)),
        "kinds": {"noise": kind(0.05, figure(2.1)), "word_dropout": kind(0.005, Figure(None, how="the teacher loses nothing"))},
        "error": figure(1.4, unit="×"), "relative": figure(2.1, unit="×"), "left_out": {"jpeg": "it needs Pillow"},
        "told": Figure(0.0213, 0.0101, 0.0325, n=4), "assumed": Figure(0.0781, n=4), "believed": 4, "doubted": 2,
    }  # fmt: skip
    return Corrupted(**{**values, **changes})


def certificate(found: Corrupted | None, **changes: Any) -> Certificate:
    quality = Quality(1, figure(0.9), figure(0.85), Figure(-0.05, -0.07, -0.03, n=500))
    values: dict[str, Any] = {
        "identity": {
            "task": "classification()", "data": "d", "look": 1, "rows": {"test": 500, "labelled": 480},
            "teacher": {"text": "t", "fingerprint": "t"}, "student": {"text": "s", "fingerprint": "s"}, "versions": {"attar": "0"},
            "machine": "m",
        },
        "claim": {"metric": "accuracy", "margin": 0.005, "decision": "the likeliest outcome"},
        "non_inferior": Verdict("no", "INFERIOR to the teacher: accuracy 0.85"), "helped": Verdict("insufficient evidence", "INSUFFICIENT"),
        "against": {}, "quality": {"accuracy": quality}, "fidelity": {"agreement": figure(0.95)}, "calibration": {}, "cost": {},
        "requirements": (), "limits": (), "pictures": {}, "corrupted": found,
    }  # fmt: skip
    return Certificate(**{**values, **changes})


def test_each_kind_has_its_picture_on_one_scale_and_says_what_it_shows() -> None:
    c = certificate(section())
    found = page.drawings(c)
    assert [heading for heading, _ in found] == ["noise", "word dropout"]
    svgs = [drawing.svg() for _, drawing in found]
    scales = {tuple(re.findall(r'class="grid" x1="[\d.]+" y1="([\d.]+)"', svg)) for svg in svgs}
    assert len(scales) == 1
    assert "0: teacher 0.9000, student 0.8500, likeness 0.9500; 1: teacher 0.8500" in svgs[0]
    assert svgs[0].count("<circle") == svgs[0].count("<polygon") / 2 == 4  # clean and three severities, of three
    assert page.legend(c) is not None


def test_the_tables_say_what_is_a_ratio_what_is_left_out_and_what_is_not_believed(tmp_path: Path) -> None:
    c = certificate(section())
    errors, told = page.errors(c), page.told(c)
    assert errors is not None
    assert told is not None
    assert [row[0].text for row in errors.rows] == ["as they are", "noise", "word dropout", "mean over kinds"]
    assert [cell.text for cell in errors.rows[2]] == ["word dropout", "0.8000", "0.7000", "0.7500", "1.40", "–"]
    assert errors.rows[3][4].under == "[1.38, 1.42]"
    assert any(note == "Without jpeg: it needs Pillow." for note in errors.notes)
    assert any("nothing is tested here" in note for note in errors.notes)
    assert [(row[0].text, row[4].text) for row in told.rows] == [("noise, severity 5", "no"), ("word dropout, severity 5", "yes")]
    assert any("Of 6 pairs of a kind and a severity 4 are believed" in note and "0.0213 [0.0101, 0.0325]" in note for note in told.notes)
    text = write_report(c, tmp_path).read_text(encoding="utf-8")
    assert 'id="corrupted"' in text
    assert not re.search(r"\b(nan|None|inf)\b", re.sub(r"<style>.*?</style>|default-src 'none'", "", text, flags=re.DOTALL))
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_without_labels_likeness_alone_is_shown(tmp_path: Path) -> None:
    def blank(severity: Severity) -> Severity:
        return Severity(Figure(None), Figure(None), severity.likeness)

    kinds = {
        name: replace(
            k, teacher=Figure(None), student=Figure(None), error=Figure(None), relative=Figure(None),
            severities={n: blank(s) for n, s in k.severities.items()},
        )
        for name, k in section().kinds.items()
    }  # fmt: skip
    bare = section(
        labelled=0,
        kinds=kinds,
        clean=blank(section().clean),
        error=Figure(None),
        relative=Figure(None),
        told=Figure(None),
        assumed=Figure(None),
    )
    c = certificate(bare)
    errors = page.errors(c)
    assert errors is not None
    assert errors.head == ("", "agreement")
    assert {len(row) for row in errors.rows} == {2}
    assert page.told(c) is None
    assert "<circle" not in page.drawings(c)[0][1].svg()
    assert 'id="corrupted"' in write_report(c, tmp_path).read_text(encoding="utf-8")


def test_distances_are_not_drawn_on_the_scale_of_a_metric() -> None:
    numbers = section(metric="rmse", better=-1, alike_by="root_mean_square_distance")
    assert "likeness" not in page.drawings(certificate(numbers))[0][1].svg()
    errors = page.errors(certificate(numbers))
    assert errors is not None
    assert "distance from the teacher" in errors.head
    assert any("student’s RMSE over the teacher’s" in note for note in errors.notes)


@pytest.mark.parametrize("asked", [True, False])
def test_rows_elsewhere_are_told_with_or_without_corruptions(asked: bool, tmp_path: Path) -> None:
    away = Shifted("data", "d", 100, 100, 0, {}, {"agreement": figure(0.8)}, {}, free(0.7, 0.72, 0.01))
    told = page.told(certificate(section() if asked else None, shift={"books": away}))
    assert told is not None
    assert told.rows[0][0].text == "books"
    assert len(told.rows) == (3 if asked else 1)
    text = write_report(certificate(section() if asked else None, shift={"books": away}), tmp_path).read_text(encoding="utf-8")
    assert ("made worse on purpose" in text) is asked
    elsewhere = text[text.index('<section id="shift">') :]
    assert 'href="#table-told"' in elsewhere[: elsewhere.index("</section>")]


def test_nothing_is_shown_where_nothing_was_asked(tmp_path: Path) -> None:
    c = certificate(None)
    assert (page.drawings(c), page.legend(c), page.errors(c), page.told(c)) == ([], None, None, None)
    text = write_report(c, tmp_path).read_text(encoding="utf-8")
    assert 'id="corrupted"' not in text
    assert 'id="told"' not in text


def test_the_terminal_says_the_same_in_few_lines() -> None:
    lines = certificate(section()).lines()
    assert max(map(len, lines)) <= 80
    at = next(k for k, line in enumerate(lines) if line.startswith("corrupted, accuracy"))
    assert lines[at + 2].split() == ["noise", "0.8000", "0.7000", "0.7500", "1.40", "[1.38,", "1.42]"]
    assert any(line.startswith("  mean over kinds (mCE)") and line.endswith("1.40 [1.38, 1.42]") for line in lines)
    assert "  without jpeg: it needs Pillow" in lines
    assert "  off by 0.0213 [0.0101, 0.0325] on average;" in lines
    assert "  the accuracy at home is off by 0.0781 [one kind alone: no interval] there" in lines
    away = Shifted("data", "d", 100, 100, 0, {}, {"agreement": figure(0.8)}, {}, free(0.7, 0.5, 0.3))
    shifted = certificate(None, shift={"books": away}).lines()
    assert ["books", "0.7000", "[0.6800,", "0.7200]", "0.5000"] in [line.split() for line in shifted]
    assert "    not to be believed: the teacher's own answers have moved far" in shifted
