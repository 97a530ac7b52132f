"""Balances: a term pulls as hard, beside another, as was asked."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from attar import notation, objective
from attar.errors import ObjectiveError
from attar.objective import Distiller, Objective, Term, balance, blend, gate, kl, labels, mse, ramp
from attar.objective.balancing import Scale
from attar.signal import IGNORE, Batch, Signal

WORDS = {name: getattr(objective, name) for name in objective.__all__ if name[0].islower()}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ROWS = Batch(drawn(64, 5, seed=0), labels=torch.arange(64) % 4)
ANSWERS = Signal(2 * drawn(64, 4, seed=1))


class Times(Term):
    """The logit distance, so many times: a term of another unit."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None
        return self.factor * (student.output - teacher.output).square().mean(-1)

    def __repr__(self) -> str:
        return f"times({self.factor})"


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4))


def built(goal: Objective, seed: int = 0) -> Distiller:
    return Distiller(net(seed), goal).build(ROWS, ANSWERS).train()


def pulls(distiller: Distiller) -> list[float]:
    """Norm of each weighted term's gradient by all weights of the student, with the weights as they stand."""
    found = []
    for weight, term in zip(distiller.objective.weights, distiller.objective.terms, strict=True):
        assert isinstance(term, Term)
        value = weight.at(1.0) * term.measure(Signal(distiller.student(ROWS.inputs)), ANSWERS, ROWS).mean()
        grads = torch.autograd.grad(value, list(distiller.student.parameters()))
        found.append(float(torch.cat([g.flatten() for g in grads]).norm()))
    return found


def trained(distiller: Distiller, steps: int, lr: float = 0.05) -> Distiller:
    optimizer = torch.optim.SGD(distiller.student.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        distiller(ROWS, ANSWERS).total.backward()
        optimizer.step()
    return distiller


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_losses_of_other_scales_get_the_ratio_that_was_asked_for(factor, ratio):
    distiller = built(balance(ratio=ratio, every=1) * Times(factor) + labels())
    distiller(ROWS, ANSWERS)
    own, reference = pulls(distiller)
    assert own / reference == pytest.approx(ratio, rel=1e-4)
    seen = []
    for _ in range(60):  # the running means follow a student in motion
        trained(distiller, 1, lr=0.01)
        seen.append(pulls(distiller))
    own, reference = torch.tensor(seen).mean(0).tolist()
    assert own / reference == pytest.approx(ratio, rel=0.05)


def test_multiplying_a_balanced_term_by_a_thousand_changes_nothing():
    one, other = (trained(built(balance(ratio=2) * Times(f) + labels()), 50) for f in (1.0, 1000.0))
    start = net().state_dict()
    for name, weights in one.student.state_dict().items():
        assert torch.allclose(weights, other.student.state_dict()[name], rtol=1e-3, atol=1e-5)
        assert not torch.allclose(weights, start[name], atol=1e-3)
    factors = [float(d.objective.weights[0].at(1.0)) for d in (one, other)]
    assert factors[0] / factors[1] == pytest.approx(1000, rel=1e-3)


def test_the_gradient_of_a_step_is_that_of_the_weighted_sum_and_measuring_leaves_none():
    distiller = built(balance(ratio=2, every=1) * Times(7.0) + 0.5 * labels())
    distiller(ROWS, ANSWERS)
    assert all(p.grad is None for p in distiller.parameters())
    frozen = copy.deepcopy(distiller).eval()
    distiller(ROWS, ANSWERS).total.backward()
    factor = float(frozen.objective.weights[0].at(1.0))
    plain = built(factor * Times(7.0) + 0.5 * labels())
    plain(ROWS, ANSWERS).total.backward()
    for a, b in zip(distiller.student.parameters(), plain.student.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_factors_multiply_the_ratio():
    assert 3 * balance(ratio=2) == balance(ratio=6)
    assert ramp(0, 1) * balance(ratio=2) == balance(ratio=ramp(0, 2))
    both = balance() * (kl() + mse()) + labels()
    assert len(both.balanced) == 2
    assert both.balanced[0][0] is not both.balanced[1][0]
    twice = 2 * (balance() * kl() + 0.5 * labels())
    assert repr(twice) == "balance(ratio=2.0, every=20) * kl(temperature=2.0) + labels(smoothing=0.0)"


def test_the_reference_is_the_first_term_without_a_balance_and_counts_unweighted():
    weighted = built(balance(every=1) * Times(10.0) + 0.1 * labels() + kl())
    weighted(ROWS, ANSWERS)
    own, reference, _ = pulls(weighted)
    assert own == pytest.approx(10 * reference, rel=1e-4)


def test_a_gate_and_a_balance_multiply():
    goal = balance(ratio=2, every=1) * gate("teacher_right") * Times(5.0) + labels()
    assert goal == gate("teacher_right") * balance(ratio=2, every=1) * Times(5.0) + labels()
    distiller = built(goal)
    total = distiller(ROWS, ANSWERS)
    factor = float(distiller.objective.weights[0].at(1.0))
    with torch.no_grad():
        z = distiller.student(ROWS.inputs)
        right = (ANSWERS.output.argmax(-1) == ROWS.labels).float()
        expected = factor * (right * 5 * (z - ANSWERS.output).square().mean(-1)).mean() + total.parts["labels"]
    assert torch.isclose(total.total, expected)


@pytest.mark.parametrize(
    "goal",
    [
        balance(ratio=3, every=7) * kl() + labels(),
        ramp(0, 1, until=0.5) * balance() * mse() + kl(),
        gate("labelled") * balance(ratio=0.5) * kl() + labels(),
    ],
    ids=repr,
)
def test_a_balance_reads_back_and_survives_copy_and_pickle(goal):
    for again in (notation.read(repr(goal), WORDS), copy.deepcopy(goal), pickle.loads(pickle.dumps(goal))):
        assert again == goal


def test_it_is_measured_in_the_first_step_and_then_every_so_many():
    distiller = built(balance(every=5) * Times(3.0) + labels())
    scale = distiller.objective.balanced[0][0]
    counts = []
    for _ in range(12):
        distiller(ROWS, ANSWERS)
        counts.append(int(scale.count))
    assert counts == [1] * 5 + [2] * 5 + [3] * 2


def test_nothing_is_measured_in_evaluation_mode_or_without_gradients():
    distiller = built(balance(every=1) * Times(3.0) + labels())
    distiller.eval()(ROWS, ANSWERS)
    with torch.no_grad():
        distiller.train()(ROWS, ANSWERS)
    scale = distiller.objective.balanced[0][0]
    assert scale.steps == 0
    assert float(distiller.objective.weights[0].at(1.0)) == 1.0  # pyright: ignore[reportArgumentType] a tensor of one number


def test_a_batch_in_which_the_reference_does_not_pull_is_not_measured():
    distiller = built(balance(every=1) * Times(3.0) + labels())
    blind = Batch(ROWS.inputs, labels=torch.full((64,), IGNORE))
    assert torch.isfinite(distiller(blind, ANSWERS).total)
    scale = distiller.objective.balanced[0][0]
    assert int(scale.count) == 0
    distiller(ROWS, ANSWERS)
    kept = scale.norms.clone()
    distiller(blind, ANSWERS)
    assert torch.equal(scale.norms, kept)


def test_the_means_reach_back_five_measurements():
    scale, by_hand = Scale(), 0.0
    for i in range(1, 31):
        scale.note(torch.tensor(1.0), torch.tensor(float(i)))
        by_hand += (i - by_hand) / min(i, 5)
    assert float(scale.norms[1]) == pytest.approx(by_hand, rel=1e-6)
    assert float(scale()) == pytest.approx(1 / by_hand, rel=1e-6)
    scale.note(torch.tensor(float("nan")), torch.tensor(1.0))
    assert float(scale.norms[1]) == pytest.approx(by_hand, rel=1e-6)


def test_what_was_measured_is_in_the_state_and_goes_on_from_there():
    whole = trained(built(balance(every=4) * Times(3.0) + labels()), 10)
    first = trained(built(balance(every=4) * Times(3.0) + labels()), 6)
    second = built(balance(every=4) * Times(3.0) + labels(), seed=5)
    second.load_state_dict(first.state_dict())
    trained(second, 4)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_narrowed_module_keeps_its_measurements_wide():
    goal = balance() * kl() + labels()
    assert {b.dtype for b in copy.deepcopy(goal).bfloat16().buffers()} == {torch.float32}


def test_an_objective_alone_is_told_whose_gradients():
    goal = (balance() * kl() + labels()).build(Signal(net()(ROWS.inputs)), ANSWERS, built(labels() + kl()).objective.task)
    model = net()
    with pytest.raises(ObjectiveError, match="nobody said whose"):
        goal(Signal(model(ROWS.inputs)), ANSWERS, ROWS)
    goal(Signal(model(ROWS.inputs)), ANSWERS, ROWS, trained=list(model.parameters()))
    assert goal.balanced[0][0].count == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda: balance(ratio=0), "no ratio of two lengths"),
        (lambda: balance(ratio=-1), "no ratio of two lengths"),
        (lambda: balance(ratio=gate("labelled")), "no ratio of two lengths"),
        (lambda: balance(every=0), "at least 1 step"),
        (lambda: balance() * balance(), "balanced once"),
        (lambda: blend(kl(), labels(), weight=balance()), "is no share"),
        (lambda: built(balance() * kl() + balance() * mse()), "no term to be balanced against"),
    ],
)
def test_what_cannot_be_balanced_is_refused(asked, said):
    with pytest.raises(ObjectiveError, match=said):
        asked()


def test_the_self_test_takes_a_balanced_term_for_balanced():
    from attar.objective.conventions import check
    from attar.sources import module

    goal = balance() * Times(1e-9) + labels() + kl()
    task = built(labels() + kl()).task
    assert task is not None
    found = check(goal, net(), module(net(1)), ROWS, task)
    assert found.ok
    assert next(c for c in found.checks if c.name == "balance").verdict == "ok"
