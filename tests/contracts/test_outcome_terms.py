"""Every word for a comparison of outcomes beyond plain divergences keeps the contract of a term."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from attar import objective
from attar.objective import (
    alpha_beta,
    as_objective,
    bounded,
    dist,
    dkd,
    gaussian,
    jsd,
    kl,
    mlkd,
    nkd,
    reverse_kl,
    standardised,
    total_variation,
    ttm,
    virtual_teacher,
    wttm,
)
from attar.signal import IGNORE, Batch, Schema, Signal
from attar.task import classification, multilabel, regression
from attar.testing import Example, check_term, example, golden
from attar.testing.terms import check_gradcheck, check_gradient, check_keeps, check_mask, check_reads

WORDS = {name: getattr(objective, name) for name in objective.__all__ if name[0].islower()}
FILES = ("targets", "correlations", "transforms", "numbers")


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(z / temperature) for z in logits]
    return [p / sum(powers) for p in powers]


def naive_kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def without(values: list[float], y: int) -> list[float]:
    return [v for i, v in enumerate(values) if i != y]


def naive_dkd(alpha: float, beta: float, temperature: float, by_teacher: bool = False):
    """From the logits of the other outcomes alone, where ours divides probabilities."""

    def loop(teacher: list[float], student: list[float], label: int) -> float:
        y = max(range(len(teacher)), key=teacher.__getitem__) if by_teacher else label
        p, q = softmax(teacher, temperature)[y], softmax(student, temperature)[y]
        target = naive_kl([p, 1 - p], [q, 1 - q])
        rest = naive_kl(softmax(without(teacher, y), temperature), softmax(without(student, y), temperature))
        return temperature**2 * (alpha * target + beta * rest)

    return loop


def naive_nkd(gamma: float, temperature: float):
    def loop(teacher: list[float], student: list[float], y: int) -> float:
        first = -softmax(teacher)[y] * math.log(softmax(student)[y])
        p, q = softmax(without(teacher, y), temperature), softmax(without(student, y), temperature)
        return first - gamma * temperature**2 * sum(a * math.log(b) for a, b in zip(p, q, strict=True))

    return loop


def naive_virtual(accuracy: float, temperature: float):
    def loop(teacher: list[float], student: list[float], y: int) -> float:
        u = [accuracy if i == y else (1 - accuracy) / (len(student) - 1) for i in range(len(student))]
        hot = [x ** (1 / temperature) for x in u]
        return temperature**2 * naive_kl([h / sum(hot) for h in hot], softmax(student, temperature))

    return loop


def standard(logits: list[float]) -> list[float]:
    mean = sum(logits) / len(logits)
    return [(z - mean) / math.sqrt(sum((v - mean) ** 2 for v in logits) / (len(logits) - 1)) for z in logits]


def tempered(formula, temperature: float, order: int = 2, change=lambda z: z):
    def loop(teacher: list[float], student: list[float], label: int) -> float:
        return temperature**order * formula(softmax(change(teacher), temperature), softmax(change(student), temperature))

    return loop


def naive_jsd(p: list[float], q: list[float]) -> float:
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return 2 * (naive_kl(p, m) + naive_kl(q, m))


def naive_alpha_beta(p: list[float], q: list[float], a: float = 0.2, b: float = 0.7) -> float:
    terms = (x**a * y**b - a / (a + b) * x ** (a + b) - b / (a + b) * y ** (a + b) for x, y in zip(p, q, strict=True))
    return -sum(terms) / (a * b)


def naive_total_variation(p: list[float], q: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2


def standardised_dkd(teacher: list[float], student: list[float], label: int) -> float:
    return naive_dkd(1, 2, 4)(standard(teacher), standard(student), label)


def naive_ttm(gamma: float, weighted: bool):
    def loop(teacher: list[float], student: list[float], label: int) -> float:
        powers = [p**gamma for p in softmax(teacher)]
        return naive_kl([p / sum(powers) for p in powers], softmax(student)) * (sum(powers) if weighted else 1)

    return loop


def naive_row_correlation(temperature: float, weight: float):
    def loop(teacher: list[float], student: list[float], label: int) -> float:
        given = softmax(teacher, temperature)
        p, q = standard(given), standard(softmax(student, temperature))
        varies = sum((v - 1 / len(given)) ** 2 for v in given)
        fading = varies / (varies + 1e-8 / temperature**2)
        return weight * fading * (1 - sum(a * b for a, b in zip(p, q, strict=True)) / (len(p) - 1))

    return loop


# (word, loop in plain Python, mean on the golden rows where a reference was executed)
CASES = [
    (lambda: dkd(beta=8), naive_dkd(1, 8, 4), 9.524446),
    (lambda: dkd(alpha=1, beta=0), naive_dkd(1, 0, 4), 0.908152),
    (lambda: dkd(alpha=0, beta=1), naive_dkd(0, 1, 4), 1.077037),
    (lambda: dkd(), naive_dkd(1, 2, 4), None),
    (lambda: dkd(alpha=0.5, temperature=1, target="teacher"), naive_dkd(0.5, 2, 1, by_teacher=True), None),
    (lambda: nkd(), naive_nkd(1.5, 1), 3.962377),
    (lambda: nkd(gamma=0.7, temperature=3), naive_nkd(0.7, 3), None),
    (lambda: virtual_teacher(), naive_virtual(0.99, 20), None),
    (lambda: virtual_teacher(accuracy=0.8, temperature=1), naive_virtual(0.8, 1), None),
    (lambda: standardised(kl(temperature=2)), tempered(naive_kl, 2, change=standard), 0.791200),
    (lambda: standardised(reverse_kl(temperature=3)), tempered(lambda p, q: naive_kl(q, p), 3, change=standard), None),
    (lambda: standardised(jsd()), tempered(naive_jsd, 2, change=standard), None),
    (lambda: standardised(alpha_beta()), tempered(naive_alpha_beta, 2, change=standard), None),
    (lambda: standardised(total_variation()), tempered(naive_total_variation, 2, order=1, change=standard), None),
    (lambda: standardised(dkd()), standardised_dkd, None),
    (lambda: ttm(), naive_ttm(0.1, weighted=False), None),
    (lambda: ttm(gamma=0.5), naive_ttm(0.5, weighted=False), None),
    (lambda: wttm(), naive_ttm(0.2, weighted=True), None),
    (lambda: dist(), None, 2.627388),
    (lambda: dist(gamma=0), naive_row_correlation(1, 1), 1.188160),
    (lambda: dist(beta=0), None, 1.439228),
    (lambda: dist(beta=2, gamma=0, temperature=4), naive_row_correlation(4, 2), None),
    (lambda: dist(temperature=4), None, None),
    (lambda: mlkd(rows=0), None, 0.015432),
    (lambda: mlkd(), None, 0.015432 + 0.000571),
    (lambda: mlkd(classes=0, temperature=1), None, None),
]


@pytest.mark.parametrize(("make", "loop", "value"), CASES, ids=lambda c: repr(c()) if getattr(c, "__name__", "") == "<lambda>" else "")
def test_a_word_keeps_the_contract(make, loop, value):
    check_term(make, vocabulary=WORDS, loop=loop, value=value)


NUMBERS = example(regression().bind(Schema("tensor")), seed=2)  # of which the student is the better one in most rows
SPREADS = Example(
    Signal(NUMBERS.student.output, {"s": torch.linspace(-1, 1, 8, dtype=torch.float64)}),
    Signal(NUMBERS.teacher.output, {"t": torch.linspace(0.5, -0.7, 8, dtype=torch.float64)}),
    NUMBERS.batch,
    NUMBERS.task,
)


def naive_bounded(margin: float):
    def loop(teacher: list[float], student: list[float], y: float) -> float:
        ours, theirs = (student[0] - y) ** 2, (teacher[0] - y) ** 2
        return ours if ours + margin > theirs else 0.0

    return loop


REGRESSION = [
    (lambda: bounded(), naive_bounded(0.0), NUMBERS),
    (lambda: bounded(margin=0.3), naive_bounded(0.3), NUMBERS),
]


@pytest.mark.parametrize(("make", "loop", "on"), REGRESSION, ids=["bounded()", "bounded(margin=0.3)"])
def test_a_word_for_numbers_keeps_the_contract(make, loop, on):
    check_term(make, vocabulary=WORDS, loop=loop, on=on)


UNSURE = [(lambda: gaussian(student="s", teacher="t"), SPREADS)]


@pytest.mark.parametrize(("make", "on"), UNSURE, ids=["gaussian()"])
def test_a_word_for_spreads_keeps_the_contract(make, on):
    """All of it but the part of half precision: e^60 as a standard deviation is no number there, where 60 as a logit is."""
    for holds in (check_keeps, check_gradient, check_mask, check_gradcheck):
        holds(make, on)
    check_reads(make, WORDS)


def test_every_word_of_these_files_is_tried():
    made = {make().word for make, *_ in [*CASES, *REGRESSION, *UNSURE]}
    assert made == {name for name, word in WORDS.items() if word.__module__.rsplit(".", 1)[-1] in FILES}


TWO = [example(outcomes=2), example(multilabel().bind(Schema("tensor", classes=("a", "b", "c"))))]


@pytest.mark.parametrize("on", TWO, ids=["two outcomes", "multi-label"])
@pytest.mark.parametrize("make", [virtual_teacher, ttm, wttm])
def test_a_word_keeps_the_contract_with_two_outcomes(make, on):
    check_keeps(make, on)
    check_gradient(make, on)
    check_mask(make, on)
    check_gradcheck(make, on)


COHORT = [
    (lambda t: dkd(temperature=t), "terms.0._temperature.value"),
    (lambda t: nkd(temperature=t), "terms.0._temperature.value"),
    (lambda t: virtual_teacher(temperature=t), "terms.0._temperature.value"),
    (lambda t: dist(temperature=t), "terms.0._temperature.value"),
    (lambda t: standardised(kl(temperature=t)), "terms.0.term._temperature.value"),
    (lambda t: standardised(dkd(temperature=t)), "terms.0.term._temperature.value"),
]


@pytest.mark.parametrize(("make", "knob"), COHORT, ids=lambda c: repr(c(2.0)) if callable(c) else "")
def test_a_word_runs_as_a_cohort_with_masks_weights_and_unknown_labels(make, knob):
    on = example()
    assert on.batch.labels is not None
    taught = on.batch.labels.clone()
    taught[5] = IGNORE
    batch = replace(on.batch, labels=taught, mask=torch.arange(8) != 2, weight=torch.linspace(0.5, 2, 8))
    z = torch.stack([on.student.output, 2 * on.student.output, on.student.output.flip(0)])
    temperatures = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    goal = as_objective(make(temperatures[0])).build(on.student, on.teacher, on.task)

    def loss(output: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(goal, {knob: temperature}, (Signal(output), on.teacher, batch)).total

    together, pulls = torch.func.vmap(loss)(z, temperatures), torch.func.vmap(torch.func.grad(loss))(z, temperatures)
    for i in range(3):
        ours = z[i].clone().requires_grad_()
        alone = as_objective(make(float(temperatures[i]))).build(on.student, on.teacher, on.task)(Signal(ours), on.teacher, batch).total
        alone.backward()
        assert ours.grad is not None
        assert torch.isclose(together[i], alone)
        assert torch.allclose(pulls[i], ours.grad)


def test_one_logit_for_yes_or_no_is_distilled_as_a_bernoulli():
    """The softmax of one logit is 1, whatever it is: a loss on it is 0, and teaches nothing. Both sides are widened to [0, z] first."""
    rows = golden()
    ours, theirs = (s.output[:, :1] for s in (rows.student, rows.teacher))
    assert float(torch.softmax(ours, -1).min()) == 1.0
    task = classification().bind(Schema("tensor", classes=("no", "yes")))
    loss = as_objective(kl(temperature=2)).build(Signal(ours), Signal(theirs), task)(Signal(ours), Signal(theirs), Batch(torch.zeros(3, 1)))
    p, q = ([1 / (1 + math.exp(-z / 2)) for z in side[:, 0].tolist()] for side in (theirs, ours))
    naive = [4 * naive_kl([a, 1 - a], [b, 1 - b]) for a, b in zip(p, q, strict=True)]
    assert float(loss.total) == pytest.approx(sum(naive) / 3)
    assert float(loss.total) > 0


def test_the_gradient_of_bernoulli_distillation_is_the_difference_of_probabilities():
    """T (σ(z_s/T) − σ(z_t/T)) / (B L), of the one logit of each label."""
    rows, task = golden(), multilabel().bind(Schema("tensor", classes=("a", "b", "c", "d")))
    output = rows.student.output.clone().requires_grad_()
    goal = as_objective(kl(temperature=2)).build(Signal(output), rows.teacher, task)
    goal(Signal(output), rows.teacher, Batch(torch.zeros(3, 1))).total.backward()
    assert output.grad is not None
    assert torch.allclose(output.grad, 2 * (torch.sigmoid(output.detach() / 2) - torch.sigmoid(rows.teacher.output / 2)) / 12)
