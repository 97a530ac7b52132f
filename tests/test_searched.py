"""What a search records: it reads back as it was written, and its front holds whom nobody beats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attar.searched import Searched, Trial, board, front, temperature
from attar.testing.searches import small_search


@pytest.mark.parametrize("search", [small_search(), small_search(0), small_search(30, better=-1)])
def test_it_reads_as_it_was_written(search: Searched, tmp_path: Path) -> None:
    search.write(tmp_path / "search.json")
    assert Searched.read(tmp_path / "search.json") == search


def beats(a: Trial, b: Trial, better: int) -> bool:
    assert a.score is not None and b.score is not None and a.price.latency_ms and b.price.latency_ms
    assert a.price.size_bytes and b.price.size_bytes
    no_worse = (a.score - b.score) * better >= 0 and a.price.latency_ms <= b.price.latency_ms and a.price.size_bytes <= b.price.size_bytes
    better_somewhere = a.score != b.score or a.price.latency_ms < b.price.latency_ms or a.price.size_bytes < b.price.size_bytes
    return no_worse and better_somewhere


@pytest.mark.parametrize("better", [1, -1])
def test_the_front_is_that_of_a_double_loop(better: int) -> None:
    search = small_search(200, better=better)  # type: ignore[arg-type]
    mine = [t for t in search.trials if t.state == "trained" and t.arm == "student"]
    slow = {t.number for t in mine if not any(beats(other, t, better) for other in mine)}
    assert {t.number for t in front(search.trials, better)} == slow
    assert 1 < len(slow) < len(mine)


def test_of_equals_one_stays_and_who_has_no_price_does_not() -> None:
    first = next(t for t in small_search().trials if t.state == "trained" and t.arm == "student")
    twin, unknown = replace(first, number=99), replace(first, number=100, price=replace(first.price, size_bytes=None), score=2.0)
    assert [t.number for t in front([twin, first, unknown], 1)] == [first.number]


def test_the_board_shows_the_best_that_keep_the_budget() -> None:
    search = small_search(200)
    rows = board(search.trials, search.metric, search.better, most=3)
    scores = [float(row["AUROC"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and len(rows) == 3
    assert all(search.trials[int(row["trial"])].within for row in rows)
    assert {*rows[0]} == {"trial", "AUROC", "p95 ms", "kB", "temperature", "student"}


def test_a_temperature_that_was_not_searched_is_not_told() -> None:
    trial = small_search().trials[0]
    assert temperature(trial) == trial.point["objective.kl.temperature"]
    assert temperature(replace(trial, point={"student.width": 4})) is None
