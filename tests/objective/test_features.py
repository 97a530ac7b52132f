"""Features: what a hint, a map of attention and a regrasped answer measure, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attar.errors import ObjectiveError, TapError
from attar.objective import Distiller, Term, as_objective, attention_transfer, cka, gate, hint, labels, regrasp
from attar.signal import Batch, Schema, Signal
from attar.task import classification, embedding
from attar.testing import Example, tapped

CLASSES = classification().bind(Schema("tensor", classes=("a", "b", "c", "d")))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measured(term: Term, on: Example) -> Tensor:
    term.build(on.student, on.teacher, on.task)
    return term.measure(on.student, on.teacher, on.batch)


def test_a_hint_is_the_loop_over_positions_and_channels():
    on = tapped({"f": (3, 2, 2)}, {"g": (3, 2, 2)})
    for row, value in enumerate(measured(hint("f", "g"), on).tolist()):
        ours, theirs = on.student.taps["f"][row].flatten().tolist(), on.teacher.taps["g"][row].flatten().tolist()
        assert math.isclose(value, sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)) / 12, rel_tol=1e-9)


def test_a_hint_of_tokens_is_the_mean_over_real_ones():
    on = tapped({"h": (4, 3)}, {"h": (4, 3)}, lengths=[4, 1, 2, 3, 4, 4, 2, 1])
    for row, (value, length) in enumerate(zip(measured(hint("h", "h"), on).tolist(), [4, 1, 2, 3, 4, 4, 2, 1], strict=True)):
        gap = on.student.taps["h"][row, :length] - on.teacher.taps["h"][row, :length]
        assert math.isclose(value, float(gap.square().mean()), rel_tol=1e-9)


def test_a_row_counts_alike_however_many_tokens_it_has():
    on = tapped({"h": (4, 3)}, {"h": (4, 3)}, lengths=[4, 1], rows=2)
    total = as_objective(hint("h", "h")).build(on.student, on.teacher, on.task)(on.student, on.teacher, on.batch).total
    assert torch.isclose(total, measured(hint("h", "h"), on).mean())


def test_layers_add_up():
    on = tapped({"a": (3,), "b": (5,)}, {"c": (3,), "d": (5,)})
    both = measured(hint(["a", "b"], ["c", "d"]), on)
    assert torch.allclose(both, measured(hint("a", "c"), on) + measured(hint("b", "d"), on))
    crossed = tapped({"a": (3, 2, 2), "b": (5, 4, 4)}, {"c": (2, 2, 2), "d": (3, 8, 8)})
    maps = measured(attention_transfer(["a", "b"], ["c", "d"]), crossed)
    assert torch.allclose(maps, measured(attention_transfer("a", "c"), crossed) + measured(attention_transfer("b", "d"), crossed))


def test_the_golden_value_of_attention_transfer():
    a, b = torch.sin(torch.arange(96.0).reshape(2, 3, 4, 4) / 10), torch.cos(torch.arange(96.0).reshape(2, 3, 4, 4) / 7)
    z, batch = torch.zeros(2, 4), Batch(torch.zeros(2, 1))
    goal = as_objective(attention_transfer("f", "f")).build(Signal(z, {"f": a}), Signal(z, {"f": b}), CLASSES)
    total = goal(Signal(z, {"f": a}), Signal(z, {"f": b}), batch).total
    assert math.isclose(float(total), 0.003369, rel_tol=1e-4, abs_tol=5e-7)


def test_projectors_are_made_by_build_learn_with_the_objective_and_are_no_part_of_the_student():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 5), nn.Linear(5, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(torch.relu(self.body(inputs)))

    student, batch = Net(), Batch(torch.randn(6, 3), labels=torch.tensor([0, 1, 2, 3, 0, 1]))
    teacher = Signal(torch.randn(6, 4), {"deep": torch.randn(6, 9)})
    distiller = Distiller(student, hint("body", "deep") + labels()).build(batch, teacher)
    distiller(batch, teacher).total.backward()
    learnt = dict(distiller.objective.named_parameters())
    assert {tuple(p.shape) for p in learnt.values()} == {(9, 5), (9,)}
    assert all(p.grad is not None and p.grad.any() for p in learnt.values())
    assert set(student.state_dict()) == {"body.weight", "body.bias", "head.weight", "head.bias"}


def test_teacher_and_student_may_answer_other_outcomes_where_taps_alone_are_compared():
    on = tapped({"f": (3,)}, {"g": (5,)})
    assert measured(hint("f", "g"), replace(on, teacher=replace(on.teacher, output=random(8, 7)))).shape == (8,)


def test_a_regrasped_answer_is_compared_outcome_by_outcome():
    on = tapped({"regrasped": (4,)}, {})
    expected = (on.student.taps["regrasped"] - on.teacher.output).square().mean(-1)
    assert torch.equal(measured(regrasp(), on), expected)
    two = classification().bind(Schema("tensor", classes=("no", "yes")))
    one_logit = tapped({"regrasped": (1,)}, {}, task=two)  # of two outcomes a head may have one logit
    both = torch.cat((torch.zeros(8, 1), one_logit.student.taps["regrasped"]), 1)
    assert torch.equal(measured(regrasp(), one_logit), (both - one_logit.teacher.output).square().mean(-1))


def test_a_gate_weighs_the_rows_of_a_hint_and_cannot_weigh_those_of_cka():
    on = tapped({"f": (3,)}, {"g": (3,)})
    goal = (gate("labelled") * hint("f", "g")).build(on.student, on.teacher, on.task)
    some = replace(on.batch, labels=torch.tensor([0, -100, 1, -100, 2, 3, -100, 1]))
    rows = measured(hint("f", "g"), on)
    assert torch.isclose(goal(on.student, on.teacher, some).total, rows[some.labels != -100].sum() / 8)
    with pytest.raises(ObjectiveError, match="one number for the whole batch"):
        (gate("labelled") * cka("f", "g")).build(on.student, on.teacher, on.task)(on.student, on.teacher, some)


# --- rows that are texts


TWO = embedding().bind(Schema("text", texts=("one", "two"), embeds=True))


def test_taps_of_texts_that_are_each_read_by_itself_find_their_rows():
    """Three rows of two texts, of which one is missing: five texts are read, and the tap has five rows."""
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    output, held, theirs = random(3, 2, 4), random(5, 3), random(5, 3, seed=1)
    student, teacher, batch = Signal(output, {"f": held}), Signal(output, {"g": theirs}), Batch(torch.zeros(3, 1), mask=mask)
    goal = as_objective(hint("f", "g")).build(student, teacher, TWO)
    texts = (held - theirs).square().mean(-1)
    (term,) = goal.terms
    assert isinstance(term, Term)
    placed = term.measure(student, teacher, batch)
    assert torch.equal(placed[mask], texts)
    assert float(placed[1, 1]) == 0
    assert torch.isclose(goal(student, teacher, batch).total, texts.mean())
    weighed = goal(student, teacher, replace(batch, weight=torch.tensor([1.0, 0.0, 3.0]))).total
    assert torch.isclose(weighed, (texts[:2].sum() + 3 * texts[3:].sum()) / 8)


def test_taps_of_all_texts_of_all_rows_are_rows_of_texts():
    output, held, theirs = random(3, 2, 4), random(6, 3), random(6, 3, seed=1)
    student, teacher = Signal(output, {"f": held}), Signal(output, {"g": theirs})
    term = hint("f", "g")
    term.build(student, teacher, TWO)
    placed = term.measure(student, teacher, Batch(torch.zeros(3, 1)))
    assert torch.equal(placed.flatten(), (held - theirs).square().mean(-1))


def test_a_tap_with_rows_of_its_own_is_refused():
    on = tapped({"f": (3,)}, {"g": (3,)}, rows=7)
    term = hint("f", "g")
    term.build(on.student, on.teacher, on.task)
    with pytest.raises(ObjectiveError, match="have 7 rows, the batch has 8"):
        term.measure(on.student, on.teacher, Batch(torch.zeros(8, 1)))


# --- what is refused


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ObjectiveError, match="compares 2 taps of the student with 1 of the teacher"):
        hint(["a", "b"], "c")
    with pytest.raises(ObjectiveError, match="compares 0 taps"):
        attention_transfer([], [])


def test_batches_of_different_size_are_refused():
    on = tapped({"f": (3,)}, {"g": (3,)})
    with pytest.raises(ObjectiveError, match='"f" of the student and "g" of the teacher have 8 and 6 rows'):
        hint("f", "g").build(on.student, replace(on.teacher, taps={"g": on.teacher.taps["g"][:6]}), on.task)


def test_sequences_of_different_length_are_refused_with_both_lengths():
    on = tapped({"h": (4, 3)}, {"h": (6, 3)})
    with pytest.raises(ObjectiveError, match=r"\(8, 4, 3\) of the student and \(8, 6, 3\) of the teacher"):
        hint("h", "h").build(on.student, on.teacher, on.task)
    with pytest.raises(ObjectiveError, match="have 4 and 6 tokens"):
        attention_transfer("h", "h").build(on.student, on.teacher, on.task)


def test_tokens_of_two_tokenizers_are_refused_though_they_are_as_many():
    on = tapped({"h": (4, 3)}, {"h": (4, 3)}, lengths=[4, 3], rows=2)
    other = replace(on.teacher, masks={"h": torch.tensor([[True] * 4, [True] * 2 + [False] * 2])})
    with pytest.raises(ObjectiveError, match="row 1 has 3 and 2 real tokens"):
        hint("h", "h").build(on.student, other, on.task)
    assert measured(hint("h", "h", align="pool"), replace(on, teacher=other)).shape == (2,)


def test_a_later_batch_of_another_length_is_refused_too():
    on, later = tapped({"h": (4, 3)}, {"h": (4, 3)}), tapped({"h": (5, 3)}, {"h": (4, 3)})
    term = hint("h", "h")
    term.build(on.student, on.teacher, on.task)
    with pytest.raises(ObjectiveError, match="have 5 and 4 tokens"):
        term.measure(later.student, later.teacher, later.batch)


def test_a_tap_that_the_answers_lack_is_named():
    on = tapped({"f": (3,)}, {"stage3": (3,)})
    with pytest.raises(ObjectiveError, match="the teacher answers without the tap 'stage2'.*\n.*stage3"):
        hint("f", "stage2").build(on.student, on.teacher, on.task)


def test_a_tap_that_the_student_lacks_is_named_before_anything_is_trained():
    with pytest.raises(TapError, match="no module at 'stge'"):
        Distiller(nn.Linear(3, 4), hint("stge", "g")).build(Batch(torch.zeros(4, 3)), Signal(torch.zeros(4, 4), {"g": torch.zeros(4, 2)}))


def test_maps_are_not_compared_with_vectors_for_their_brightness():
    on = tapped({"f": (3, 2, 2)}, {"g": (3,)})
    with pytest.raises(ObjectiveError, match="compares maps"):
        attention_transfer("f", "g").build(on.student, on.teacher, on.task)


@pytest.mark.parametrize("how", [{"power": 0.5}, {"power": math.nan}, {"form": "other"}])
def test_arguments_that_mean_nothing_are_refused(how):
    with pytest.raises(ObjectiveError, match="attention_transfer"):
        attention_transfer("f", "g", **how)


def test_a_head_of_another_teacher_is_refused():
    on = tapped({"regrasped": (4,)}, {})
    with pytest.raises(ObjectiveError, match="graft"):
        regrasp().build(on.student, replace(on.teacher, output=random(7, 4)), on.task)
