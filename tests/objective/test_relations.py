"""Relations between the rows of a batch: their golden values, who takes part, and which triplets are looked at."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError
from attar.objective import Objective, Term, as_objective, cka, rkd_angle, rkd_distance, similarity_preserving
from attar.objective.methods import rkd
from attar.signal import Batch, Schema, Signal
from attar.task import classification, embedding
from attar.testing import tapped

CLASSES = classification().bind(Schema("tensor", classes=("a", "b", "c", "d")))
FS = torch.tensor([[1, 0, 2, -1], [0.5, 1, -1, 0], [2, 1, 0, 1]])  # the rows on which the reference implementations were executed
FT = torch.tensor([[0, 1, 1, 1], [1, -1, 0.5, 0], [1, 2, 0, -1]])


def value(goal: Term | Objective, ours: Tensor, theirs: Tensor, batch: Batch | None = None) -> Tensor:
    z = torch.zeros(len(ours), 4, dtype=ours.dtype)
    student, teacher = Signal(z, {"embedding": ours}), Signal(z, {"embedding": theirs})
    labelled = Batch(torch.zeros(len(ours), 1), labels=torch.zeros(len(ours), dtype=torch.int64))
    return as_objective(goal).build(student, teacher, CLASSES)(student, teacher, batch or labelled).total


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("goal", "reference"),
    [
        (similarity_preserving(), 0.150548),
        (rkd_distance(), 0.031557),
        (rkd_angle(), 0.020157),
        (25 * rkd_distance() + 50 * rkd_angle(), 1.796788),
        (rkd(), 1.796788 + math.log(4)),  # the labels' share, of logits that say nothing about four classes
    ],
    ids=repr,
)
def test_the_golden_values_of_executed_references(goal, reference):
    assert math.isclose(float(value(goal, FS, FT)), reference, rel_tol=1e-4)


def test_cka_is_one_minus_the_unbiased_alignment():
    ours, theirs = random(8, 3), random(8, 5, seed=1)
    assert torch.isclose(value(cka(), ours, theirs), 1 - functional.cka(theirs, ours))
    assert float(value(cka(), ours, 3 * ours + 1)) == pytest.approx(0, abs=1e-9)


def test_cka_of_features_that_are_all_alike_is_one_and_has_a_finite_gradient():
    ours = torch.ones(6, 3, requires_grad=True)
    total = value(cka(), ours, random(6, 3).float())
    total.backward()
    assert float(total.detach()) == 1
    assert ours.grad is not None
    assert torch.isfinite(ours.grad).all()


@pytest.mark.parametrize("word", [similarity_preserving, rkd_distance, rkd_angle])
def test_weights_of_rows_weigh_anchors(word):
    ours, theirs, weight = random(6, 3), random(6, 5, seed=1), torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0], dtype=torch.float64)
    on = tapped({"embedding": (3,)}, {"embedding": (5,)}, rows=6)
    student, teacher = replace(on.student, taps={"embedding": ours}), replace(on.teacher, taps={"embedding": theirs})
    term = word()
    term.build(student, teacher, on.task)
    rows = term.measure(student, teacher, on.batch)
    weighed = value(word(), ours, theirs, Batch(torch.zeros(6, 1), weight=weight))
    assert torch.isclose(weighed, (rows * weight).sum() / weight.sum())


def test_of_texts_each_one_is_a_row():
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    task, output = embedding().bind(Schema("text", texts=("one", "two"), embeds=True)), random(3, 2, 4)
    held, theirs = random(5, 3), random(5, 6, seed=1)
    student, teacher = Signal(output, {"embedding": held}), Signal(output, {"embedding": theirs})
    goal = as_objective(rkd_distance()).build(student, teacher, task)
    total = goal(student, teacher, Batch(torch.zeros(3, 1), mask=mask)).total
    assert torch.isclose(total, functional.rkd_distance(theirs, held).mean())


# --- triplets


def test_batches_above_the_bound_look_at_drawn_triplets_and_below_it_at_all():
    ours, theirs = random(12, 3), random(12, 5, seed=1)
    full = value(rkd_angle(triplets=0), ours, theirs)
    assert torch.equal(value(rkd_angle(triplets=12**3), ours, theirs), full)
    assert not torch.isclose(value(rkd_angle(triplets=12**3 - 1), ours, theirs), full)


def test_drawn_triplets_are_unbiased():
    ours, theirs = random(12, 3), random(12, 5, seed=1)
    full = float(value(rkd_angle(triplets=0), ours, theirs))
    drawn = torch.tensor([float(value(rkd_angle(triplets=600, seed=s), ours, theirs)) for s in range(100)])
    assert abs(float(drawn.mean()) - full) < 4 * float(drawn.std()) / 10
    assert 0 < float(drawn.std()) < 0.2 * full


def test_the_same_rows_look_at_the_same_triplets_and_chance_is_left_alone():
    ours, theirs = random(12, 3), random(12, 5, seed=1)
    batches = [Batch(torch.zeros(12, 1), ids=torch.arange(12) + shift) for shift in (0, 0, 100)]
    state = torch.get_rng_state()
    one, again, others = (value(rkd_angle(triplets=300), ours, theirs, batch) for batch in batches)
    assert torch.equal(one, again)
    assert not torch.equal(one, others)
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_that_do_not_count_are_in_no_drawn_triplet():
    ours, theirs = random(12, 3), random(12, 5, seed=1)
    mask = torch.arange(12) < 9
    junk = ours.masked_fill(~mask[:, None], torch.nan)
    totals = [value(rkd_angle(triplets=300), f, theirs, Batch(torch.zeros(12, 1), mask=mask)) for f in (ours, junk)]
    assert torch.equal(*totals)


def test_a_large_batch_costs_no_more_than_the_bound():
    """512 rows in full are 134 million triplets, half a gigabyte for each side."""
    ours = random(512, 4).float().requires_grad_()
    value(rkd_angle(triplets=4096), ours, random(512, 6, seed=1).float()).backward()
    assert ours.grad is not None
    assert torch.isfinite(ours.grad).all()


# --- what is refused


@pytest.mark.parametrize(("word", "least"), [(similarity_preserving, 2), (rkd_distance, 3), (rkd_angle, 3), (cka, 4)])
def test_a_first_batch_with_too_few_rows_is_refused(word, least):
    on = tapped({"embedding": (3,)}, {"embedding": (3,)}, rows=least - 1)
    with pytest.raises(ObjectiveError, match=f"at least {least} rows, a batch has {least - 1}"):
        word().build(on.student, on.teacher, on.task)


def test_a_negative_number_of_triplets_is_refused():
    with pytest.raises(ObjectiveError, match="triplets=-1"):
        rkd_angle(triplets=-1)


def test_batches_of_different_size_are_refused():
    on, few = tapped({"embedding": (3,)}, {"embedding": (3,)}), tapped({"embedding": (3,)}, {"embedding": (3,)}, rows=6)
    with pytest.raises(ObjectiveError, match="have 8 and 6 rows"):
        rkd_distance().build(on.student, few.teacher, on.task)
