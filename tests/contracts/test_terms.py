"""Every word for a term keeps the contract of a term; the contract notices terms that do not."""

from __future__ import annotations

import importlib.util
import inspect
import math
import typing
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from attar import objective
from attar.errors import ObjectiveError
from attar.objective import Property, Term, alpha_beta, jsd, kl, labels, mse, reverse_kl, skew_kl, total_variation
from attar.objective.terms import Divergence
from attar.signal import Batch, Schema, Signal
from attar.task import multilabel, regression
from attar.testing import Example, check_term, example
from attar.testing.terms import check_gradcheck, check_gradient, check_keeps, check_loop, check_mask

WORDS = {name: getattr(objective, name) for name in objective.__all__ if name[0].islower()}


def softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in logits]
    return [p / sum(powers) for p in powers]


def naive_kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def mixed(share: float, p: list[float], q: list[float]) -> list[float]:
    return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]


def tempered(formula, temperature: float, order: int = 2):
    def loop(teacher: list[float], student: list[float], label: int) -> float:
        return temperature**order * formula(softmax(teacher, temperature), softmax(student, temperature))

    return loop


def naive_jsd(beta: float):
    def loop(p: list[float], q: list[float]) -> float:
        m = mixed(beta, p, q)
        return (beta * naive_kl(p, m) + (1 - beta) * naive_kl(q, m)) / (beta * (1 - beta))

    return loop


def naive_alpha_beta(a: float, b: float):
    def loop(p: list[float], q: list[float]) -> float:
        terms = (x**a * y**b - a / (a + b) * x ** (a + b) - b / (a + b) * y ** (a + b) for x, y in zip(p, q, strict=True))
        return -sum(terms) / (a * b)

    return loop


def naive_mse(teacher: list[float], student: list[float], label: int) -> float:
    n = len(teacher)
    gap = [(s - sum(student) / n) - (t - sum(teacher) / n) for t, s in zip(teacher, student, strict=True)]
    return sum(g * g for g in gap) / n


def naive_labels(smoothing: float):
    def loop(teacher: list[float], student: list[float], label: int) -> float:
        q = softmax(student, 1.0)
        target = [smoothing / len(q) + (1 - smoothing) * (i == label) for i in range(len(q))]
        return -sum(t * math.log(x) for t, x in zip(target, q, strict=True))

    return loop


# (word, loop in plain Python, mean on the golden rows where a reference was executed)
CASES = [
    (lambda: kl(temperature=4), tempered(naive_kl, 4), 1.588339),
    (lambda: kl(temperature=1), tempered(naive_kl, 1), 1.173122),
    (lambda: reverse_kl(temperature=1), tempered(lambda p, q: naive_kl(q, p), 1), 1.489661),
    (lambda: reverse_kl(), tempered(lambda p, q: naive_kl(q, p), 2), None),
    (lambda: jsd(beta=0.1, temperature=1), tempered(naive_jsd(0.1), 1), 0.098727 / (0.1 * 0.9)),
    (lambda: jsd(beta=0.5, temperature=1), tempered(naive_jsd(0.5), 1), 0.256609 / 0.25),
    (lambda: jsd(beta=0.9, temperature=1), tempered(naive_jsd(0.9), 1), 0.110509 / (0.1 * 0.9)),
    (lambda: jsd(beta=0.0, temperature=1), tempered(naive_kl, 1), 1.173122),
    (lambda: jsd(beta=1.0, temperature=3), tempered(lambda p, q: naive_kl(q, p), 3), None),
    (lambda: skew_kl(temperature=1), tempered(lambda p, q: naive_kl(p, mixed(0.1, p, q)), 1), 0.843824),
    (lambda: skew_kl(reverse=True, temperature=1), tempered(lambda p, q: naive_kl(q, mixed(0.1, q, p)), 1), 0.882125),
    (lambda: alpha_beta(0.2, 0.7, temperature=1), tempered(naive_alpha_beta(0.2, 0.7), 1), 1.476061),
    (lambda: alpha_beta(0.5, 0.5, temperature=1), tempered(naive_alpha_beta(0.5, 0.5), 1), 1.148713),
    (lambda: alpha_beta(1.0, 0.0, temperature=1), tempered(naive_kl, 1), 1.173122),
    (lambda: alpha_beta(0.0, 1.0, temperature=1), tempered(lambda p, q: naive_kl(q, p), 1), 1.489661),
    (lambda: alpha_beta(0.9, 0.2), tempered(naive_alpha_beta(0.9, 0.2), 2), None),
    (
        lambda: total_variation(temperature=1),
        tempered(lambda p, q: sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2, 1, order=1),
        0.596823,
    ),
    (lambda: total_variation(), tempered(lambda p, q: sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2, 2, order=1), None),
    (lambda: mse(), naive_mse, None),
    (lambda: labels(), naive_labels(0.0), None),
    (lambda: labels(smoothing=0.1), naive_labels(0.1), None),
]


@pytest.mark.parametrize(("make", "loop", "value"), CASES, ids=lambda c: repr(c()) if getattr(c, "__name__", "") == "<lambda>" else "")
def test_a_word_keeps_the_contract(make, loop, value):
    check_term(make, vocabulary=WORDS, loop=loop, value=value)


def test_every_word_of_this_file_is_tried():
    made = {make().word for make, _, _ in CASES}
    assert made == {name for name, word in WORDS.items() if word.__module__ == "attar.objective.terms"}


def tried() -> set[str]:
    """The words that some file beside this one hands to the contract: the first of each case makes a term."""
    found: set[str] = set()
    for path in sorted(Path(__file__).parent.glob("test_*terms.py")):
        spec = importlib.util.spec_from_file_location(f"cases_of_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        cases = [case for name, held in vars(module).items() if name.isupper() and isinstance(held, list) for case in held]
        makers = [case[0] for case in cases if isinstance(case, tuple) and inspect.isfunction(case[0])]
        made = [make() for make in makers if not inspect.signature(make).parameters]
        found |= {term.word for term in made if isinstance(term, Term)}
    return found


def test_every_word_for_a_term_is_handed_to_the_contract():
    returns = {name: typing.get_type_hints(word).get("return") for name, word in WORDS.items() if inspect.isfunction(word)}
    terms = {name for name, made in returns.items() if isinstance(made, type) and issubclass(made, Term)}
    assert len(terms) > 30
    assert terms == tried()


BINARY = example(outcomes=2)
SEVERAL = example(multilabel().bind(Schema("tensor", classes=("a", "b", "c"))))


@pytest.mark.parametrize("on", [BINARY, SEVERAL], ids=["two outcomes", "multi-label"])
@pytest.mark.parametrize("make", [kl, reverse_kl, jsd, skew_kl, alpha_beta, total_variation, labels])
def test_a_word_keeps_the_contract_with_other_outcomes(make, on):
    check_keeps(make, on)
    check_gradient(make, on)
    check_mask(make, on)
    check_gradcheck(make, on)


def test_bernoulli_distillation_of_two_outcomes_has_its_golden_value():
    """The golden logits, each taken as a label of its own: mean over labels of T² KL of Bernoullis at T = 2."""
    from attar.testing import golden

    rows, task = golden(), multilabel().bind(Schema("tensor", classes=("a", "b", "c", "d")))
    loss = (1.0 * kl(temperature=2)).build(rows.student, rows.teacher, task)(rows.student, rows.teacher, Batch(torch.zeros(3, 1)))
    assert float(loss.total) == pytest.approx(0.406026, rel=1e-4)


def test_mse_of_a_regression_is_the_squared_error():
    on = example(regression().bind(Schema("tensor")))
    check_loop(mse, lambda t, s, y: (t[0] - s[0]) ** 2, on)
    check_gradcheck(mse, on)
    check_mask(mse, on)


@pytest.mark.parametrize("make", [kl, reverse_kl, jsd, skew_kl, alpha_beta, total_variation])
def test_a_divergence_refuses_a_regression(make):
    on = example(regression().bind(Schema("tensor")))
    with pytest.raises(ObjectiveError, match="at least 2 outcomes") as caught:
        make().build(on.student, on.teacher, on.task)
    assert "mse()" in str(caught.value)


class Toy(Term):
    """A term whose behaviour and promises a test chooses."""

    promised: ClassVar[frozenset[Property]] = frozenset()

    def __repr__(self) -> str:
        return "toy()"


class Similarity(Toy):
    """Squared difference of the rows' cosine similarities, a whole-batch relation of tapped features (Tung & Mori 2019)."""

    keeps = frozenset({"zero", "positive", "rows", "rotation", "scale"})
    student_taps = frozenset({"f"})
    teacher_taps = frozenset({"g"})

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None
        ours, theirs = (torch.nn.functional.normalize(f, dim=-1) for f in (student.taps["f"], teacher.taps["g"]))
        return (ours @ ours.T - theirs @ theirs.T).square().mean()


def test_a_term_of_features_can_be_checked():
    g = torch.Generator().manual_seed(0)
    base = example()
    f, t = (torch.randn(8, n, generator=g, dtype=torch.float64) for n in (3, 5))
    on = Example(Signal(base.student.output, {"f": f}), Signal(base.teacher.output, {"g": t}), base.batch, base.task)
    check_keeps(Similarity, on)
    check_gradient(Similarity, on)
    check_gradcheck(Similarity, on)


def toy(name: str, promises: set[Property], measure) -> type[Toy]:
    return type(name, (Toy,), {"keeps": frozenset(promises), "measure": measure})


def test_the_contract_notices_a_promise_that_is_not_kept():
    raw = toy("Raw", {"zero", "positive", "rows", "accumulation", "shift"}, lambda self, s, t, b: (s.output - t.output).square().mean(-1))
    with pytest.raises(AssertionError, match="does not keep 'shift'"):
        check_keeps(raw)


def test_the_contract_notices_a_property_that_is_not_declared():
    raw = toy("Raw", {"zero", "rows", "accumulation"}, lambda self, s, t, b: (s.output - t.output).square().mean(-1))
    with pytest.raises(AssertionError, match="keeps 'positive'"):
        check_keeps(raw)


def test_the_contract_notices_a_loss_reduced_by_another_rule():
    total = toy("Total", {"zero", "positive", "rows", "accumulation"}, lambda self, s, t, b: (s.output - t.output).square().sum())
    with pytest.raises(AssertionError, match="does not keep 'accumulation'"):
        check_keeps(total)


def test_the_contract_notices_a_missing_temperature_factor():
    """The regression test of references that leave T² out: the loop has it, the term does not."""
    from attar import functional

    with pytest.raises(AssertionError, match="the loop says"):
        check_loop(lambda: Divergence("kl", functional.kl, temperature=4, order=0), tempered(naive_kl, 4))


def test_the_contract_notices_a_gradient_cut_by_detaching_the_student():
    cut = toy("Cut", set(), lambda self, s, t, b: (s.output.detach() - t.output).square().mean(-1) + 0 * s.output.sum(-1))
    with pytest.raises(AssertionError, match="a gradient of 0"):
        check_gradient(cut)


def test_the_contract_notices_a_loss_that_sees_masked_positions():
    leaky = toy("Leaky", set(), lambda self, s, t, b: s.output.square().mean(-1) + (s.output.square().mean(-1) == 0).sum())
    counting = toy("Counting", set(), lambda self, s, t, b: (s.output + 1).square().sum())  # () for the batch, masked rows and all
    for make in (leaky, counting):
        with pytest.raises(AssertionError, match="masked position"):
            check_mask(make)
