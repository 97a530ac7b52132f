"""Prices: a known law is found again, one that errs is refused, and then each candidate's own export is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from attar.cost import Budget, budget, energy_mj, multiply_adds
from attar.errors import EvidenceError
from attar.progress import Event, Listener, silent
from attar.signal import Batch, Student
from attar.students import cnn, lightgbm, mlp
from attar.students.mlp import MLP
from attar.task import task_for
from attar.testing.small import small_images, small_table
from attar.verbs.export import export
from attar.verbs.search.drafts import Drafts, _but_weights  # pyright: ignore[reportPrivateUsage] what "alike" means
from attar.verbs.search.floor import floor_of, need_possible
from attar.verbs.search.law import Law, spread
from attar.verbs.search.pricing import Prices
from attar.verbs.search.shapes import Shapes, family_of

TABLE, IMAGES = small_table(300), small_images(200)
TASK = task_for(TABLE.schema)
GRID = [mlp(width=width, depth=depth) for depth in (1, 2, 3) for width in (4, 6, 9, 13, 19, 28, 41, 60, 88, 128)]


def law_of(student: Student, shapes: Shapes) -> float:
    """A made-up machine: 5 µs for a call, 0.5 µs for a layer, 50 ps for a multiply-add."""
    shape = shapes.of(student)
    assert shape is not None
    assert shape.macs is not None
    return 5e-3 + 5e-4 * shape.features[1] + 5e-8 * shape.macs


class Fabricated(Prices):
    """Prices on a made-up machine, whose answers err by a factor that `chance` draws."""

    chance = np.random.default_rng(0)
    error = 0.0
    asked: list[str]

    def _measure(self, family: str, students: Mapping[str, Student], listen: Listener = silent):  # type: ignore[override]
        from attar.verbs.search.pricing import _exactly, _Measured

        draft = self.drafts.make(GRID[0])
        found = {}
        for text, student in students.items():
            self.asked.append(text)
            ms = law_of(student, self.shapes) * math.exp(self.error * self.chance.normal())
            found[text] = _Measured(draft, ms / 1.2, ms, ms * 0.99, ms * 1.01, ms / 1e4)
            self.exact[text] = _exactly(found[text], 0.0)
        return found


def fabricated(error: float, said: list[Event] | None = None) -> Fabricated:
    class Here(Fabricated):
        pass

    Here.error, Here.asked, Here.chance = error, [], np.random.default_rng(0)
    found = Here.learn(GRID, TABLE, TASK, exports=20, listen=silent if said is None else said.append)
    assert isinstance(found, Here)
    return found


def test_a_known_law_is_found_again_and_its_exports_are_left_out_in_turn() -> None:
    prices = fabricated(0.02)
    (pricing,) = prices.pricings
    assert pricing.trusted
    assert pricing.exports == 12 == len(pricing.held_out)  # of so good a law no more are made
    assert 0 < pricing.error < 0.07
    assert pricing.error == pytest.approx(np.mean([abs(p / m - 1) for p, m in pricing.held_out]))
    others = [s for s in GRID if repr(s) not in prices.asked]
    assert len(others) == 18
    for student in others:
        price, true = prices.price(student), law_of(student, prices.shapes)
        assert not price.measured
        assert price.latency_ms == pytest.approx(true, rel=0.1)
        assert price.low_ms is not None
        assert price.high_ms is not None
        assert price.low_ms < price.latency_ms < price.high_ms  # type: ignore[operator]
    assert len(prices.asked) == 12  # a price asks nothing of the machine


def test_ninety_percent_of_one_more_export_lie_within_the_spread() -> None:
    chance, inside = np.random.default_rng(1), []
    for _ in range(150):
        x = np.stack([np.ones(16), chance.uniform(1, 50, 16)], 1)
        y = (x @ [5.0, 0.3]) * np.exp(0.08 * chance.normal(size=16))
        law = Law.fit(x[:15], y[:15])
        inside.append(abs(math.log(y[15] / law(x[15]))) <= law.spread)
    assert 0.85 < np.mean(inside) < 1.0


def test_a_law_that_errs_by_more_than_a_tenth_is_refused_and_each_candidate_measured_once() -> None:
    said: list[Event] = []
    prices = fabricated(0.5, said)
    (pricing,) = prices.pricings
    assert pricing.error > 0.10
    assert pricing.exports == 20  # as many as may be made
    assert not pricing.trusted
    assert any("above 0.1: each candidate's own export will be measured" in event.text for event in said)
    student = next(s for s in GRID if repr(s) not in prices.asked)
    first = prices.price(student)
    assert first.measured
    assert prices.asked[-1] == repr(student)
    assert prices.price(student) == first
    assert len(prices.asked) == 21


def test_students_that_differ_in_what_costs_nothing_are_priced_alike() -> None:
    class Here(Fabricated):
        asked: list[str] = []  # noqa: RUF012 of this test alone
        error = 0.02

    dropouts = [mlp(width=16, depth=1, dropout=k / 100) for k in range(30)]
    prices = Here.learn(dropouts, TABLE, TASK, exports=20)
    (pricing,) = prices.pricings
    assert pricing.trusted and pricing.exports == 12 == len(set(Here.asked))
    true = law_of(dropouts[0], prices.shapes)
    assert all(prices.predicted(student).latency_ms == pytest.approx(true, rel=0.05) for student in dropouts)


def test_few_students_are_measured_and_none_is_guessed() -> None:
    class Here(Fabricated):
        asked = []  # noqa: RUF012 of this test alone

    prices = Here.learn(GRID[:5], TABLE, TASK, exports=20)
    assert prices.pricings == ()
    assert all(prices.price(student).measured for student in GRID[:5])
    assert sorted(Here.asked) == sorted(repr(s) for s in GRID[:5])


def test_prices_grow_with_the_student_and_are_numbers() -> None:
    prices = fabricated(0.05)
    for depth in (1, 2, 3, 5):
        found = [prices.price(mlp(width=width, depth=depth)) for width in (2, 10, 50, 200, 1000)]
        for name in ("latency_ms", "p50_ms", "high_ms", "size_bytes", "parameters", "macs", "energy_mj"):
            values = [getattr(price, name) for price in found]
            assert np.isfinite(values).all(), name
            assert min(values) > 0
            assert values == sorted(values), name


def test_no_price_of_a_feature_is_negative() -> None:
    x = np.stack([np.ones(9), np.arange(9.0), np.arange(9.0) ** 2], 1)
    law = Law.fit(x, 10 - np.arange(9.0))
    assert (law.prices >= 0).all()
    assert law([1, 1e6, 1e12]) >= law([1, 0, 0]) > 0


def test_a_thousand_prices_take_milliseconds() -> None:
    prices = fabricated(0.02)
    students = [mlp(width=width, depth=depth) for width in range(4, 254) for depth in range(1, 5)]
    start = time.process_time()
    for student in students:
        prices.price(student)
    assert time.process_time() - start < 1


def test_chosen_exports_are_different_and_reach_the_ends() -> None:
    x = np.arange(100.0)[:, None]
    chosen = spread(x, 10)
    assert len(set(chosen)) == 10
    assert {0, 99} <= set(chosen)
    assert spread(np.ones((5, 2)), 3) == [0, 1, 2]  # all alike: as many as are asked for, each once


@pytest.mark.parametrize(
    ("student", "data"), [(mlp(width=7, depth=2, embed=3), TABLE), (mlp(width=5, depth=1), IMAGES), (cnn(width=3, depth=3), IMAGES)]
)
def test_a_shape_counts_what_is_built(student: Student, data) -> None:
    task = task_for(data.schema)
    shape = Shapes(data.schema, task).of(student)
    assert shape is not None
    model = student(data.schema, 0)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.macs == multiply_adds(model, data.valid.batch(torch.arange(1)))


def test_multiply_adds_are_those_of_the_formula() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(5 * 8 * 8, 7))
    assert multiply_adds(model, Batch(torch.zeros(1, 3, 8, 8))) == 9 * 3 * 5 * 64 + 5 * 64 * 7
    assert model.training


@pytest.mark.parametrize(("make", "data"), [(mlp, TABLE), (cnn, IMAGES)])
def test_a_draft_made_of_anothers_graph_is_the_file_that_tracing_gives(make, data) -> None:
    drafts = Drafts(data, task_for(data.schema))
    made = [drafts.make(make(width=width, depth=2), "family", 2) for width in (3, 6, 9)]
    assert [draft.traced for draft in made] == [True, True, False]  # the second is what the first is held against
    alone = Drafts(data, task_for(data.schema)).make(make(width=9, depth=2))
    assert alone.traced
    assert made[2].size_bytes == alone.size_bytes
    import onnx

    a, b = (onnx.load_model_from_string(draft.content) for draft in (made[2], alone))
    assert _but_weights(a) == _but_weights(b)


def test_a_family_whose_graphs_differ_in_more_than_sizes_is_traced_each() -> None:
    drafts = Drafts(TABLE, TASK)
    made = [drafts.make(mlp(width=4, depth=depth), "mlp", "all alike, it is said") for depth in (1, 2, 3)]
    assert all(draft.traced for draft in made)


def test_a_draft_weighs_what_an_export_weighs(tmp_path) -> None:
    student = mlp(width=9, depth=2)
    exported = export(student(TABLE.schema, 3), TABLE, TASK, at=tmp_path / "student")
    draft = Drafts(TABLE, TASK).make(student)
    assert abs(draft.size_bytes - exported.files["student.onnx"].bytes) <= 16  # the temperature is spelt with other digits


def test_real_students_are_priced(tmp_path) -> None:
    students = [mlp(width=width, depth=1) for width in range(4, 200, 4)]
    prices = Prices.learn(students, TABLE, TASK, bounds=budget(memory_mb=50, latency_ms=5), exports=8)
    (pricing,) = prices.pricings
    assert pricing.exports == 8
    assert np.isfinite(pricing.error)
    price = prices.price(mlp(width=33, depth=1))
    assert price.parameters == sum(p.numel() for p in mlp(width=33, depth=1)(TABLE.schema, 0).parameters())
    floor = floor_of(students[0], TABLE, Budget())
    assert floor.latency_ms.p50.value < price.latency_ms < 5  # type: ignore[operator] a budget of latency has it priced
    drafted = prices.drafts.make(mlp(width=33, depth=1), "mlp", 1)
    assert price.size_bytes == pytest.approx(drafted.size_bytes, rel=0.01)
    exported = export(mlp(width=33, depth=1)(TABLE.schema, 0), TABLE, TASK, at=tmp_path / "student")
    real = prices.measured(exported.folder, macs=price.macs)
    assert real.measured
    assert real.memory_mb is None or real.peak_mb is None or real.peak_mb > real.memory_mb
    assert "ONNX Runtime" in prices.where
    assert real.energy_mj == pytest.approx(price.energy_mj, rel=0.01)


def test_a_budget_below_the_identity_function_is_refused_before_anything_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drafts, "make", None)
    for bounds, said in (
        (budget(latency_ms=1e-6), r"latency_ms=1e-06: the exported identity function alone takes 0\.0"),
        (budget(size_mb=1e-5), r"size_mb=1e-05: the exported identity function alone is 0\.00"),
        (budget(rows_per_second=1e15), r"rows_per_second=1e\+15: the exported identity function alone answers"),
    ):
        with pytest.raises(EvidenceError, match=said) as error:
            need_possible(bounds, GRID[0], TABLE)
        assert next(iter(said.split("="))) in str(error.value.hint)
    need_possible(budget(latency_ms=100, size_mb=1), GRID[0], TABLE)


def test_trees_and_int8_have_drafts() -> None:
    drafts = Drafts(TABLE, TASK, precision="int8")
    small = drafts.make(mlp(width=64, depth=2), "mlp", 2)
    assert small.precision == "int8"
    assert small.size_bytes < Drafts(TABLE, TASK).make(mlp(width=64, depth=2)).size_bytes
    trees = drafts.make(lightgbm(trees=3, leaves=4, min_rows=1))
    assert trees.precision == "float"  # what surrounds trees is not worth 8 bits
    assert trees.parameters == 3 * (3 + 4)


def test_energy_is_of_arithmetic_and_of_bytes() -> None:
    assert energy_mj(10**6, 0) == pytest.approx(4.6e-3)  # 4.6 pJ each
    assert energy_mj(0, 8 * 10**6) == pytest.approx(0.1)  # 100 pJ for 64 bits
    assert energy_mj(10**6, 0, "int8") < energy_mj(10**6, 0) / 10


def test_without_students_there_is_nothing_to_price() -> None:
    with pytest.raises(EvidenceError, match="no student to price"):
        Prices.learn([], TABLE, TASK, bounds=Budget())


def test_families_are_called_by_their_words() -> None:
    assert [family_of(s) for s in (mlp(), cnn(), lightgbm())] == ["mlp", "cnn", "lightgbm"]
    assert family_of(MLP()) == "mlp"
