"""Taps under torch.compile: what a hook sees is not left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attar.objective import Distiller, Term, kl
from attar.objective.align import aligned
from attar.signal import Batch, Signal
from attar.tap import observe, resolve
from attar.task import Task

BATCH = Batch(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), labels=torch.arange(6) % 2)
TEACHER = Signal(
    torch.randn(6, 2, generator=torch.Generator().manual_seed(1)), {"inside": torch.randn(6, 4, generator=torch.Generator().manual_seed(2))}
)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Hint(Term):
    student_taps, teacher_taps = frozenset({"0"}), frozenset({"inside"})

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        assert teacher is not None
        self.align = aligned("auto", student.taps["0"], teacher.taps["inside"], repr(self))

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None
        one, other = self.align(student.taps["0"], teacher.taps["inside"])
        return (one - other).square().mean(-1)

    def __repr__(self) -> str:
        return "hint()"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))


def compiled(model: nn.Module, backend: Any) -> nn.Module:
    made = torch.compile(model, backend=backend)
    assert isinstance(made, nn.Module)
    return made


class Counting:
    """A compiler that changes nothing and counts how often a graph is run."""

    def __init__(self) -> None:
        self.graphs = self.runs = 0

    def __call__(self, graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return graph.forward(*args)

        return run


def test_a_compiled_model_is_tapped_though_it_was_compiled_before() -> None:
    model, plain = compiled(net(), "eager"), net()
    model(BATCH.inputs)  # the graph is there now, and knows of no hook
    signal, expected = observe(model, BATCH, frozenset({"0", "2:in"})), observe(plain, BATCH, frozenset({"0", "2:in"}))
    for tap in ("0", "2:in"):
        assert torch.equal(signal.taps[tap], expected.taps[tap])
    signal.taps["2:in"].square().sum().backward()
    expected.taps["2:in"].square().sum().backward()
    pull, expected_pull = model.get_parameter("_orig_mod.0.weight").grad, plain.get_parameter("0.weight").grad
    assert pull is not None
    assert expected_pull is not None
    assert torch.equal(pull, expected_pull)


def test_a_part_that_is_compiled_and_a_model_compiled_in_place_are_tapped() -> None:
    inner = net()
    outer = nn.Sequential(compiled(inner, "eager"), nn.ReLU())
    outer(BATCH.inputs)
    assert torch.equal(observe(outer, BATCH, frozenset({"0.0"})).taps["0.0"], inner[0](BATCH.inputs))
    model = net()
    model.compile(backend="eager")
    model(BATCH.inputs)
    assert torch.equal(observe(model, BATCH, frozenset({"0"})).taps["0"], model[0](BATCH.inputs))


def test_a_path_may_leave_out_or_name_what_compilation_puts_in_between() -> None:
    model = compiled(net(), "eager")
    for path in ("0", "_orig_mod.0"):
        assert resolve(model, path) == (path,)
        assert path in observe(model, BATCH, frozenset({path})).taps


def test_without_taps_a_compiled_model_runs_compiled_before_and_after() -> None:
    compiler = Counting()
    model = compiled(net(), compiler)
    observe(model, BATCH)
    assert (compiler.graphs, compiler.runs) == (1, 1)
    observe(model, BATCH, frozenset({"0"}))
    assert compiler.runs == 1
    observe(model, BATCH)
    assert (compiler.graphs, compiler.runs) == (1, 2)


# The compiler looks at .grad of whatever crosses from one graph to the next, and hides the warning only where warnings are not errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_distiller_has_the_loss_and_the_gradients_of_a_plain_one(backend: str) -> None:
    def built() -> Distiller:
        return Distiller(net(), Hint() + kl()).build(BATCH, TEACHER)

    plain, distiller = built(), built()
    faster = torch.compile(distiller, backend=backend)
    for _ in range(3):
        for module in (plain, distiller):
            module.zero_grad()
        expected, loss = plain(BATCH, TEACHER), faster(BATCH, TEACHER)
        expected.total.backward()
        loss.total.backward()
        assert torch.allclose(loss.total, expected.total)
        for (name, ours), (_, theirs) in zip(distiller.named_parameters(), plain.named_parameters(), strict=True):
            assert ours.grad is not None, name
            assert theirs.grad is not None
            assert torch.allclose(ours.grad, theirs.grad, atol=1e-7), name
        with torch.no_grad():
            for p in (*plain.parameters(), *distiller.parameters()):
                p.mul_(0.9)


def test_a_compiled_distiller_without_taps_is_one_graph() -> None:
    distiller = Distiller(net(), kl()).build(BATCH, TEACHER)
    faster = torch.compile(distiller, backend="eager", fullgraph=True)
    assert torch.allclose(faster(BATCH, TEACHER).total, distiller(BATCH, TEACHER).total)
