"""Prices are measured once: kept in the folder, used again by the same machine, and learnt beside the first candidates."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import attar
from attar.errors import EvidenceError, RunError
from attar.progress import Event, silent
from attar.searched import Priced, Pricing
from attar.students import mlp
from attar.task import task_for
from attar.testing.small import small_table
from attar.verbs.distill.processes import shared
from attar.verbs.search import kept, pricing
from attar.verbs.search.affordable import need_some_within
from attar.verbs.search.learning import Learning
from attar.verbs.search.pricing import Prices

TABLE = small_table(300)
TASK = task_for(TABLE.schema)
STUDENTS = [mlp(width=width, depth=1) for width in range(4, 100, 4)]


def empty() -> Prices:
    return Prices.begun(TABLE, TASK)


def learnt(listen: Any = silent) -> Prices:
    return Prices.learn(STUDENTS, TABLE, TASK, exports=8, listen=listen)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "SECONDS", 0.02)


@pytest.fixture(scope="module")
def prices() -> Prices:
    return learnt()


def test_kept_prices_are_those_that_were_measured(prices: Prices, tmp_path: Path) -> None:
    of = {"machine": prices.where, "threads": "1"}
    kept.keep(prices, of, tmp_path / kept.FILE)
    content = kept.read(tmp_path / kept.FILE)
    assert content is not None
    again = kept.prices_from(content, empty())
    for student in (STUDENTS[0], mlp(width=33, depth=1), mlp(width=7, depth=1)):
        if again.trusted or repr(student) in again.exact:
            assert again.price(student) == prices.price(student)
        assert again.predicted(student) == prices.predicted(student)
    assert again.pricings == prices.pricings and again.export == prices.export
    assert kept.differing(content, of) == []
    assert kept.differing(content, {**of, "machine": "another"}) == [f"machine was {prices.where}, is another"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"of": 1}'])
def test_a_damaged_file_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / kept.FILE).write_text(text)
    assert kept.read(tmp_path / kept.FILE) is None
    assert kept.again({"of": {}}, empty, lambda text: STUDENTS[0], 2) is None


@pytest.mark.parametrize("part", ["pricings", "laws", "exact"])
def test_damage_of_another_shape_is_none_too(part: str, prices: Prices) -> None:
    content = {**json.loads(json.dumps(kept.content_of(prices))), part: [1]}
    assert kept.again(content, empty, lambda text: STUDENTS[0], 2) is None


def test_kept_prices_hold_as_long_as_their_reference_takes_what_it_took(prices: Prices, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(json.dumps(kept.content_of(prices)))
    by_text = {repr(student): student for student in STUDENTS}
    monkeypatch.setattr(Prices, "moved", lambda self, student: 1.2 if repr(student) == prices.reference else 0.0)
    found = kept.again(content, empty, by_text.__getitem__, 1.25)
    assert isinstance(found, Prices)
    assert found.level == prices.level
    monkeypatch.setattr(Prices, "moved", lambda self, student: 1.3)
    assert kept.again(content, empty, by_text.__getitem__, 1.25) == 1.3


def test_a_reference_that_is_measured_again_has_hardly_moved(prices: Prices) -> None:
    again = kept.prices_from(kept.content_of(prices), empty())
    reference = next(student for student in STUDENTS if repr(student) == again.reference)
    assert 0.2 < again.moved(reference) < 5
    measured = again.measure(mlp(width=37, depth=1))  # beside the reference, whose level is the kept one
    assert measured.latency_ms is not None
    assert again.reference == prices.reference and again.level == prices.level


def test_prices_of_another_process_keep_their_reference_when_more_is_measured(prices: Prices) -> None:
    by_text = {repr(student): student for student in STUDENTS}
    there = kept.prices_from(kept.content_of(prices), Prices.begun(TABLE, TASK, student=by_text.__getitem__))
    there.measure(mlp(width=41, depth=1))
    assert there.reference == prices.reference and there.level == prices.level


@pytest.mark.parametrize("level", [0.0, -1.0, float("nan"), float("inf")])
def test_a_reference_that_took_no_time_is_a_damaged_file(prices: Prices, level: float) -> None:
    content = {**kept.content_of(prices), "level": level}
    assert kept.again(content, empty, {repr(student): student for student in STUDENTS}.__getitem__, 1.25) is None


def fabricated(listen: Any) -> Prices:
    found = replace(
        empty(), pricings=(Pricing("mlp", 8, 0.03, True, 1.0),), reference=repr(STUDENTS[0]), level=0.5, mood=float(os.getpid())
    )
    listen(Event("price", text="mlp: learnt"))
    return found


def test_prices_are_learnt_in_a_process_of_their_own_and_said_here() -> None:
    said: list[Event] = []
    learning = Learning(fabricated, empty(), said.append).start()
    found = learning.get()
    assert found.mood != os.getpid()
    assert found.pricings[0].error == 0.03
    assert [event.text for event in said] == ["mlp: learnt"]
    assert learning.get() is found and learning.ready


def test_prices_that_several_workers_wait_for_are_learnt_once() -> None:
    said: list[Event] = []
    learning = Learning(fabricated, empty(), said.append).start()
    moods = shared([lambda say: learning.get().mood, lambda say: learning.get().mood], silent)
    assert learning.get().mood == moods[0] == moods[1] != os.getpid()
    assert [event.text for event in said] == ["mlp: learnt"]


def test_a_process_that_is_lost_is_made_up_for_here_and_its_errors_are_raised() -> None:
    here = os.getpid()

    def lost(listen: Any) -> Prices:
        if os.getpid() != here:
            os._exit(9)
        return fabricated(listen)

    assert Learning(lost, empty(), silent).start().get().mood == here

    def refused(listen: Any) -> Prices:
        raise EvidenceError("no student to price", hint="a space has at least one")

    with pytest.raises(EvidenceError, match="no student to price"):
        Learning(refused, empty(), silent).start().get()


def test_students_without_a_law_are_measured_a_few_at_most_to_see_whether_any_keeps_the_budget() -> None:
    asked: list[str] = []

    class Spaces:
        def priors(self, arm: str) -> list[int]:
            return [0]

        def drawn(self, chance: Any) -> int:
            return chance.randrange(10**6)

        def design(self, point: int) -> Any:
            return SimpleNamespace(text=f"s{point}", student=point)

    def price(student: int) -> Priced:
        asked.append(f"s{student}")
        return Priced(9.0)

    begun = SimpleNamespace(spaces=Spaces(), budget=attar.budget(latency_ms=1))
    prices = SimpleNamespace(pricings=(), trusted=frozenset(), measured_already=(), price=price)
    with pytest.raises(RunError, match="none of 25 students"):
        need_some_within(cast(Any, begun), cast(Any, prices), 0)
    assert len(asked) == 25 and asked[0] == "s0"
