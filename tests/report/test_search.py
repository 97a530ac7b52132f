"""The page and the leaderboard of a search: whole in themselves, everything escaped, every missing part said, nothing that calculates."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from attar.certificate import Figure
from attar.report.search import summary, tables, write_leaderboard, write_search_page
from attar.report.search.page import commands
from attar.report.words import interval
from attar.searched import Priced, Searched, SizeCurve, Trial, front
from attar.testing.searches import small_search

NOT_SAID = r"\b(nan|NaN|None|inf|Infinity|undefined|Figure)\b"
VOID = {"meta", "link", "br", "line", "circle", "rect", "path", "polygon", "hr"}


class Page(HTMLParser):
    """A page as a reader meets it: its tags, its texts, and the tags that nobody closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.words = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)


def all_failed() -> Searched:
    s = small_search(9)
    failed = tuple(replace(t, state="failed", score=None, rungs=(), why="the loss became NaN in epoch 3") for t in s.trials)
    return replace(s, trials=failed, finalists=(), winner=None, curve=None, importances={}, recommendation=("Every trial failed.",))


def no_winner() -> Searched:
    words = ("No student keeps the budget: latency_ms binds; what comes within the margin takes 0.05 ms.",)
    return replace(small_search(60), winner=None, finalists=(), recommendation=words)


def unpriced() -> Searched:
    """As a search with nothing but scores: no price, no rows, no curve, no budget."""
    s = small_search(20)
    bare = tuple(replace(t, price=Priced(None), within=True) for t in s.trials)
    return replace(s, trials=bare, bounds={}, curve=None, pricing=(), finalists=(), winner=None, seconds={}, rows={}, study="", machine="")


CASES = {
    "rich": small_search(120),
    "empty": small_search(0),
    "few": small_search(3),
    "no winner": no_winner(),
    "all failed": all_failed(),
    "regression": small_search(60, better=-1),
    "unpriced": unpriced(),
}


def written(s: Searched, out: Path) -> Page:
    return Page(write_search_page(s, out).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_search_has_a_page_that_is_whole(name: str, tmp_path: Path) -> None:
    page = written(CASES[name], tmp_path)
    assert not page.open
    assert not re.search(NOT_SAID, page.words.replace("became NaN", ""))
    ids = [facts["id"] for _, facts in page.tags if facts.get("id")]
    assert len(ids) == len(set(ids))
    links = [facts["href"] for tag, facts in page.tags if tag == "a"]
    assert links and all((link or "")[1:] in ids for link in links)
    assert not [facts for _, facts in page.tags if (facts.get("src") or facts.get("href") or "").startswith(("http", "//"))]


def test_without_a_budget_the_page_and_the_tables_speak_of_none(tmp_path: Path) -> None:
    free = {"bounds": {}, "notes": (), "recommendation": ("Trial 3 is recommended.",), "recipe": ""}
    s = small_search(60, **free)
    s = replace(
        s, trials=tuple(replace(t, within=True) for t in s.trials), competitors=tuple(replace(c, within=True) for c in s.competitors)
    )
    text = write_search_page(s, tmp_path).read_text(encoding="utf-8").replace(str(tmp_path), "").replace(tmp_path.name, "")
    assert "budget" not in text[text.index("<body") :].partition("<script")[0]
    assert not any("budget" in head for table in summary(s) for head in table.head)
    assert all(len(row) == len(table.head) for table in summary(s) for row in table.rows)
    assert any("within the budget" in table.head for table in summary(CASES["rich"]))


def test_a_search_that_was_stopped_says_that_it_has_not_come_to_its_end(tmp_path: Path) -> None:
    page = written(replace(CASES["rich"], winner=None, recommendation=()), tmp_path)
    assert "not come to its end: 120 trials so far" in page.words and "No student is recommended" not in page.words


def both_arms() -> Searched:
    """A search both of whose arms have a trial of each number, those on labels alone with another score and price."""
    s = small_search(60)
    s = replace(s, trials=tuple(t for t in s.trials if t.arm == "student"))
    own = [replace(t, arm="labels", score=None if t.score is None else t.score - 0.01, state="failed", why="lost") for t in s.trials]
    return replace(s, trials=(*s.trials, *own))


def test_trials_of_both_arms_that_have_one_number_are_told_apart(tmp_path: Path) -> None:
    s = both_arms()
    lines = list(csv.DictReader(io.StringIO(write_leaderboard(s, tmp_path).read_text(encoding="utf-8"))))
    assert len({(line["arm"], line["number"]) for line in lines}) == len(s.trials)
    assert {line["arm"] for line in lines if line["front"] == "True"} == {"student"}
    told = tables.failures(s)
    assert told is not None
    assert all("on labels alone" in row[0].under for row in told.rows if row[0].text == "lost")


def test_it_says_what_is_recommended_and_why_and_what_to_do_next(tmp_path: Path) -> None:
    s = CASES["rich"]
    page = written(s, tmp_path)
    won = s.finalists[0]
    assert page.words.index(won.student) < page.words.index("What does quality cost?")
    for said in (*s.recommendation, f"attar run RECIPE --from {tmp_path}", f"optuna-dashboard sqlite:///{tmp_path / 'study.db'}"):
        assert said in page.words
    assert s.curve is not None and s.curve.words in page.words
    for section in ("front", "choices", "sizes", "finalists", "competitors", "evidence", "trials", "limits"):
        assert ("section", {"id": section}) in page.tags


def test_the_mean_of_a_design_and_what_its_file_is_predicted_to_have_are_told_apart(tmp_path: Path) -> None:
    s = CASES["rich"]
    page = written(s, tmp_path)
    won = s.finalists[0]
    assert won.predicted is not None
    assert "mean over seeds; the teacher" in page.words and f"predicted on the test rows {interval(won.predicted)}" in page.words
    assert "AUROC, second half, mean" in page.words and "attar run --from will certify" in page.words
    assert sum(facts.get("class") == "reach c-student" for _, facts in page.tags) == len(s.finalists)
    before = replace(s, finalists=tuple(replace(f, predicted=None) for f in s.finalists))  # as an earlier search wrote it
    assert "will certify" not in written(before, tmp_path).words


def test_without_a_winner_nothing_is_to_be_built(tmp_path: Path) -> None:
    page = written(CASES["no winner"], tmp_path)
    assert "No student is recommended" in page.words and "latency_ms binds" in page.words
    assert "attar run RECIPE --from /" not in page.words
    assert written(CASES["all failed"], tmp_path).words.count("the loss became NaN in epoch 3") >= 9
    assert "Nothing was tried" in written(CASES["empty"], tmp_path).words


def test_every_trial_that_has_a_score_can_be_pointed_at(tmp_path: Path) -> None:
    s = CASES["rich"]
    page = written(s, tmp_path)
    marks = [facts["data-trial"] or "" for tag, facts in page.tags if tag in ("circle", "polygon") and "data-trial" in facts]
    scored = [f"{t.arm[0]}{t.number}" for t in s.trials if t.score is not None]
    assert sorted(marks) == sorted(2 * scored)
    rows = [facts["data-trial"] or "" for tag, facts in page.tags if tag == "tr" and "data-trial" in facts]
    assert sorted(rows) == sorted(f"{t.arm[0]}{t.number}" for t in s.trials)


def test_marks_lie_where_price_and_score_put_them(tmp_path: Path) -> None:
    s = CASES["rich"]
    text = write_search_page(s, tmp_path).read_text(encoding="utf-8")
    picture = text[text.index('aria-labelledby="front-latency-t') :].split("</svg>")[0]
    found = {int(n): float(x) for x, n in re.findall(r'<circle class="point[^>]* cx="([\d.]+)"[^>]* data-trial="s(\d+)"', picture)}
    at = {t.number: math.log(t.price.latency_ms or 1.0) for t in s.trials if t.number in found}
    first, last = min(at, key=at.__getitem__), max(at, key=at.__getitem__)
    scale = (found[last] - found[first]) / (at[last] - at[first])
    assert len(found) > 20 and scale > 0
    for number, x in found.items():
        assert x == pytest.approx(found[first] + scale * (at[number] - at[first]), abs=0.15)


@pytest.mark.parametrize("better", [1, -1])
def test_what_is_recommended_lies_in_the_frame_however_bad_it_is(better: Literal[1, -1], tmp_path: Path) -> None:
    s = small_search(120, better=better)
    worst = min((t for t in s.trials if t.state == "trained" and t.arm == "student"), key=lambda t: better * (t.score or 0.0))
    text = write_search_page(replace(s, winner=worst.number), tmp_path).read_text(encoding="utf-8")
    for kind in ("latency", "size"):
        picture = text[text.index(f'aria-labelledby="front-{kind}-t') :].split("</svg>")[0]
        (points,) = re.findall(rf'<polygon class="point ringed[^>]*points="([^"]+)" data-trial="s{worst.number}"', picture)
        (bottom,) = {float(y) for y in re.findall(r'<line class="grid" x1="[^"]+" y1="[^"]+" x2="[^"]+" y2="([\d.]+)"', picture)[-1:]}
        assert all(float(pair.split(",")[1]) < bottom + 8 for pair in points.split())


def test_the_only_script_is_the_one_that_is_named_by_its_digest(tmp_path: Path) -> None:
    text = write_search_page(CASES["rich"], tmp_path).read_text(encoding="utf-8")
    policy = re.search(r"default-src 'none';[^\"]*script-src 'sha256-([^']+)'", text)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert policy and len(scripts) == 1
    assert base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode() == policy[1]
    assert not re.search(r"\son\w+=", text)


def test_whatever_is_shown_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    s = CASES["rich"]
    trials = tuple(replace(t, student=evil, objective=evil, why=evil, point={evil: evil, **t.point}) for t in s.trials)
    finalists = tuple(replace(f, student=evil) for f in s.finalists)
    s = replace(
        s,
        trials=trials,
        finalists=finalists,
        competitors=tuple(replace(c, name=evil, why=evil) for c in s.competitors),
        pricing=tuple(replace(p, family=evil) for p in s.pricing),
        importances={evil: Figure(0.5, 0.4, 0.6)},
        recommendation=(evil,),
        notes=(evil,),
        machine=evil,
        recipe=evil,
        study=evil,
        bounds={evil: 1.0},
        rows={evil: 1},
        seconds={evil: 1.0},
    )
    page = written(s, tmp_path)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert evil in page.words


def test_a_thousand_trials_make_a_page_of_less_than_two_megabytes(tmp_path: Path) -> None:
    path = write_search_page(small_search(1000), tmp_path)
    assert path.stat().st_size < 2e6


def test_what_the_dashboard_opens_is_named_from_here(tmp_path: Path) -> None:
    def told(study: str) -> str:
        return next(
            command for what, command in commands(replace(CASES["rich"], study=study), Path("runs/search/credit")) if "look" in what
        )

    assert told("sqlite:///study.db") == "optuna-dashboard sqlite:///runs/search/credit/study.db"
    assert told("sqlite:////data/study.db") == "optuna-dashboard sqlite:////data/study.db"
    assert told("study.journal") == "optuna-dashboard runs/search/credit/study.journal"
    assert told("postgresql://me@host/attar") == "optuna-dashboard postgresql://me@host/attar"


# --- the leaderboard


def lines(s: Searched, out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(write_leaderboard(s, out).read_bytes().decode(), newline="")))


def test_it_has_a_line_for_each_trial_that_pandas_reads(tmp_path: Path) -> None:
    s = CASES["rich"]
    frame = pd.read_csv(write_leaderboard(s, tmp_path))
    assert len(frame) == len(s.trials)
    by = frame.set_index("number")
    for t in s.trials:
        row = by.loc[t.number]
        assert row["student"] == t.student and row["state"] == t.state
        assert row["latency_ms"] == pytest.approx(t.price.latency_ms) and row["parameters"] == t.price.parameters
        assert t.score is None or row["rungs"] == f"0.1: {t.rungs[0][1]:.5g}; 0.3: {t.rungs[1][1]:.5g}"
        assert row["at student.width"] == t.point["student.width"]
        assert (t.score is None and math.isnan(row["score"])) or row["score"] == pytest.approx(t.score)
    assert set(frame[frame["front"]]["number"]) == {t.number for t in front(s.trials, s.better)}


@pytest.mark.parametrize("name", ["rich", "regression"])
def test_the_best_that_keeps_the_budget_stands_first(name: str, tmp_path: Path) -> None:
    s = CASES[name]
    best = max((t for t in s.trials if t.state == "trained" and t.within), key=lambda t: s.better * (t.score or 0.0))
    assert int(lines(s, tmp_path)[0]["number"]) == best.number


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x")', "+1", "-2+3", "@SUM(A1)", "\tx", "\r=1"])
def test_no_text_is_a_formula(text: str, tmp_path: Path) -> None:
    t = replace(small_search(1).trials[0], why=text, point={text: text})
    (row,) = lines(replace(CASES["rich"], trials=(t,)), tmp_path)
    for value in (*row, *row.values()):
        assert not value.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert row["why"] == f"'{text}"


def test_numbers_stay_numbers_and_quotes_and_commas_texts(tmp_path: Path) -> None:
    t: Trial = replace(small_search(1).trials[0], score=-0.25, student='cnn("a, b")\n2')
    (row,) = lines(replace(CASES["rich"], trials=(t,)), tmp_path)
    assert row["score"] == "-0.25" and row["student"] == t.student


def test_a_search_without_trials_has_a_head_alone(tmp_path: Path) -> None:
    assert lines(CASES["empty"], tmp_path) == []


def test_a_curve_without_a_band_and_a_goal_out_of_reach_are_drawn(tmp_path: Path) -> None:
    curve = SizeCurve(((10, 0.3), (100, 0.2)), (), 0.1, 1.0, 0.5, 0.05, None, (), "No size meets the goal.")
    page = written(replace(CASES["rich"], curve=curve), tmp_path)
    assert "No size that was tried is surely enough" in page.words and "goal: 0.0500" in page.words


def test_a_shared_search_goes_on_where_it_is_shared() -> None:
    def told(study: str) -> str:
        return next(command for what, command in commands(replace(CASES["rich"], study=study), Path("out")) if "search on" in what)

    assert told("sqlite:///study.db") == "attar search RECIPE --out out --resume"
    assert told("postgresql://me@host/attar") == "attar search RECIPE --out out --join postgresql://me@host/attar --resume"
    assert told("/shared/study.journal") == "attar search RECIPE --out out --join /shared/study.journal --resume"
