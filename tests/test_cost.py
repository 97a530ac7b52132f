"""Cost: what is measured is what was called; budgets say what they hold and what they do not."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import attar.cost
from attar.cost import (
    Budget,
    Candidate,
    Compared,
    Cost,
    Figure,
    Latency,
    budget,
    compare,
    machine,
    measure,
    peak_memory_mb,
    working_memory_mb,
)
from attar.errors import EvidenceError
from attar.signal import NOTHING, Batch, Signal

COST = Cost(
    latency_ms=Latency(Figure(0.01, 0.009, 0.011), Figure(0.015, 0.014, 0.016), 1000),
    latency_many_ms=Latency(Figure(1.0, 0.9, 1.1), Figure(1.5, 1.4, 1.6), 100),
    rows=256,
    rows_per_second=Figure(256_000, 230_000, 280_000),
    size_bytes=50_000,
    parameters=10_000,
    memory_mb=None,
    threads=1,
    machine="this one",
)


class Doubling:
    """A source that counts what it is asked to prepare."""

    fingerprint = "doubling"

    def __init__(self) -> None:
        self.prepared: list[int] = []

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert isinstance(batch.inputs, torch.Tensor)
        return Signal(batch.inputs * 2)

    def prepare(self, batch: Batch):
        self.prepared.append(len(batch))
        inputs = batch.inputs
        assert isinstance(inputs, torch.Tensor)
        return lambda: inputs * 2


def test_a_cost_is_of_one_row_and_of_many() -> None:
    source = Doubling()
    threads, collecting = torch.get_num_threads(), gc.isenabled()
    cost = measure(source, Batch(torch.ones(3, 3)), Batch(torch.ones(256, 3)), size_bytes=12, parameters=3, seconds=0.2)
    assert source.prepared == [1, 1, 1, 256]  # those of the memory are prepared in the child
    assert (cost.rows, cost.size_bytes, cost.parameters, cost.threads) == (256, 12, 3, 1)
    assert 0 < cost.latency_ms.p50.low <= cost.latency_ms.p50.value <= cost.latency_ms.p50.high
    assert cost.latency_ms.p50.value <= cost.latency_ms.p95.value
    assert cost.rows_per_second.value == pytest.approx(256_000 / cost.latency_many_ms.p50.value)
    assert cost.rows_per_second.low <= cost.rows_per_second.value <= cost.rows_per_second.high
    assert (torch.get_num_threads(), gc.isenabled()) == (threads, collecting)


def test_threads_and_collector_are_put_back_when_a_call_fails() -> None:
    def fails() -> None:
        raise RuntimeError("broken")

    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        compare({"a": Candidate([fails], fails, 256)}, seconds=0.1)
    assert gc.isenabled()
    assert torch.get_num_threads() == threads


def test_candidates_are_called_in_turn_and_their_ratio_is_paired() -> None:
    order: list[str] = []

    def call(name: str, spins: int):
        def run() -> None:
            if not order or order[-1] != name:
                order.append(name)
            sum(range(spins))

        return run

    short, long = call("short", 500), call("long", 5000)
    found = compare({"short": Candidate([short], short, 1), "long": Candidate([long], long, 1)}, seconds=0.2)
    assert len(order) > 24  # at least twelve rounds of both
    ratio = found.ratio("long", "short", share=0.5)
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.value == pytest.approx(np.median(found.seconds_one["long"]) / np.median(found.seconds_one["short"]))
    assert len(found.seconds_one["short"]) == len(found.seconds_one["long"])


def test_calls_too_slow_for_twelve_rounds_are_measured_in_five() -> None:
    def slow() -> None:
        time.sleep(0.03)

    found = compare({"slow": Candidate([lambda: None], slow, 256)}, seconds=0.06)
    assert len(found.seconds_one["slow"]) >= 12
    assert len(found.seconds_many["slow"]) == 5
    assert (found.seconds_many["slow"] >= 0.03).all()


def test_single_rows_are_asked_in_turn_so_that_no_row_is_learnt_by_heart() -> None:
    asked: list[int] = []
    compare({"a": Candidate([lambda i=i: asked.append(i) for i in range(5)], lambda: None, 1)}, seconds=0.1)
    assert set(asked) == set(range(5))
    steps = np.diff(asked) % 5
    assert np.mean(steps == 1) > 0.9  # but for the one uncounted call of a round


def test_without_rows_nothing_is_measured() -> None:
    with pytest.raises(EvidenceError, match="at least one row"):
        Candidate.of(Doubling(), Batch(torch.ones(0, 3)), Batch(torch.ones(256, 3)))
    with pytest.raises(EvidenceError, match="no candidates"):
        compare({})


def test_memory_is_what_the_call_touches() -> None:
    if (nothing := working_memory_mb(lambda: lambda: None)) is None:
        pytest.skip("this machine does not tell resident memory")
    megabytes = 40
    found = working_memory_mb(lambda: lambda: np.ones(megabytes * 125_000))
    assert found is not None
    assert nothing < 8
    assert megabytes <= found + 1
    assert found < megabytes + 8


def test_memory_that_was_freed_before_does_not_hide_what_a_call_needs() -> None:
    if working_memory_mb(lambda: lambda: None) is None:
        pytest.skip("this machine does not tell resident memory")
    pieces = [np.ones(10_000) for _ in range(400)]  # 32 MB in pieces that stay in the heap when freed
    del pieces
    found = working_memory_mb(lambda: lambda: [np.ones(10_000) for _ in range(400)])
    assert found is not None
    assert found > 25


def test_a_call_that_fails_or_hangs_in_the_child_has_no_memory_figure() -> None:
    def hangs() -> None:
        while True:
            pass

    assert working_memory_mb(lambda: lambda: 1 / 0) is None
    assert working_memory_mb(lambda: hangs, limit_s=0.3) is None


def test_a_budget_says_what_is_kept_and_what_is_not() -> None:
    found = budget(latency_ms=0.02, size_mb=0.04, parameters=10_000, memory_mb=5).check(COST)
    assert [(limit.name, limit.value, limit.ok) for limit in found] == [
        ("latency_ms", 0.015, True),  # the 95th percentile
        ("size_mb", 0.05, False),
        ("parameters", 10_000, True),
        ("memory_mb", None, False),  # not measured is not kept
    ]
    assert Budget().check(COST) == []
    assert budget(memory_mb=5.0).check(replace(COST, memory_mb=5.0))[0].ok


def test_a_budget_reads_back_from_its_text() -> None:
    assert repr(budget(latency_ms=0.02, size_mb=0.1)) == "budget(latency_ms=0.02, size_mb=0.1)"
    with pytest.raises(EvidenceError, match="latency_ms=0 admits nothing"):
        budget(latency_ms=0)


def test_the_machine_is_named() -> None:
    assert "Python" in machine()
    assert "\n" not in machine()


def test_a_budget_may_be_about_other_calls_and_holds_only_what_was_measured_of_these() -> None:
    asked = budget(latency_ms=0.02, rows_per_second=100_000, batch=8, many=1024, threads=2)
    assert repr(asked) == "budget(latency_ms=0.02, rows_per_second=100000, batch=8, many=1024, threads=2)"
    assert not asked.usual
    assert [limit.value for limit in asked.check(COST)] == [None, None]
    found = asked.check(replace(COST, batch=8, rows=1024, threads=2))
    assert [(limit.name, limit.sign, limit.ok) for limit in found] == [("latency_ms", "≤", True), ("rows_per_second", "≥", True)]
    assert not budget(rows_per_second=300_000).check(COST)[0].ok
    with pytest.raises(EvidenceError, match="batch=0"):
        budget(batch=0)
    with pytest.raises(EvidenceError, match="latency_ms=inf"):
        budget(latency_ms=float("inf"))


def test_a_call_may_hold_several_rows() -> None:
    source = Doubling()
    cost = measure(source, Batch(torch.ones(5, 3)), Batch(torch.ones(64, 3)), seconds=0.1, batch=2, threads=1)
    assert source.prepared == [2, 2, 2, 64]
    assert (cost.batch, cost.rows) == (2, 64)


def test_what_slows_the_machine_for_a_while_is_in_no_latency_beside_a_reference() -> None:
    moods = np.repeat(np.random.default_rng(0).choice([1.0, 3.0], 40), 50).reshape(40, 50)
    one = {"reference": 10e-6 * moods, "asked": 20e-6 * moods}
    found = Compared({}, one, one).latency("asked", beside="reference")
    level = float(np.median(np.median(one["reference"], axis=1)))
    assert found.p95.value == pytest.approx(1000 * 2 * level)
    assert found.p50.low == pytest.approx(found.p50.high)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lose the processor for so many seconds: nothing is computed meanwhile, and the system says that it was taken."""
    lost = 0

    def away(seconds: float) -> None:
        nonlocal lost
        lost += 1
        time.sleep(seconds)

    monkeypatch.setattr(attar.cost, "_switches", lambda: (lost, 0))
    return away


def test_calls_during_which_another_program_ran_are_made_again(away: Callable[[float], None]) -> None:
    calls = 0

    def sometimes_away() -> None:
        nonlocal calls
        calls += 1
        if calls % 7 == 0:
            away(0.002)
        sum(range(20_000))

    candidate = Candidate([sometimes_away], lambda: None, 1)
    plain = compare({"": candidate}, seconds=0.2).costs[""].latency_ms.p95.value
    mended = compare({"": candidate}, seconds=0.2, undisturbed=True).costs[""].latency_ms.p95.value
    assert plain > 1.5
    assert mended < plain / 2


def test_of_a_call_that_never_comes_through_the_computing_counts(away: Callable[[float], None]) -> None:
    candidate = Candidate([lambda: away(0.005)], lambda: None, 1)
    assert compare({"": candidate}, seconds=0.1, undisturbed=True).costs[""].latency_ms.p50.value < 2.5


def test_what_a_call_waits_for_is_part_of_what_it_takes_and_no_reason_to_make_it_again() -> None:
    calls = 0

    def waits() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.002)

    found = compare({"": Candidate([waits], lambda: None, 1)}, seconds=0.1, undisturbed=True).costs[""].latency_ms
    assert found.p50.value >= 2
    assert calls < 4 * found.calls + 200  # beside warming


def test_a_call_that_waits_and_never_comes_through_keeps_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def both() -> None:
        nonlocal taken
        taken += 1
        time.sleep(0.005)

    monkeypatch.setattr(attar.cost, "_switches", lambda: (taken, taken))
    assert compare({"": Candidate([both], lambda: None, 1)}, seconds=0.1, undisturbed=True).costs[""].latency_ms.p50.value >= 5


def test_the_system_counts_waits() -> None:
    pytest.importorskip("resource")
    before = attar.cost._switches()
    time.sleep(0.001)
    assert attar.cost._switches()[1] > before[1]


def test_the_peak_of_a_process_holds_the_model() -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    def peak(width: int) -> float | None:
        weights = numpy_helper.from_array(np.ones((width, width), np.float32), "w")
        given, made = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", width]) for n in ("x", "y"))
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [given], [made], [weights])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return peak_memory_mb(model.SerializeToString(), {"x": np.ones((2, width), np.float32)})

    small, large = peak(8), peak(3000)
    if small is None or large is None:
        pytest.skip("this machine does not tell resident memory")
    assert small > 20  # interpreter, NumPy and ONNX Runtime
    assert 36 < large - small < 36 * 5  # 9 million weights, some copies of them while the graph is opened
    assert peak_memory_mb(b"no graph", {}) is None
