"""Vectors, scores and cosines of texts: loops, golden values, widths that differ, texts that are missing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError
from attar.objective import (
    Term,
    as_objective,
    cosine,
    embedding_mse,
    labels,
    list_kl,
    margin_mse,
    mse,
    similarity_kl,
    similarity_mse,
)
from attar.signal import Batch, Schema, Signal
from attar.task import embedding
from attar.testing import Example, example, golden


def texts(count: int):
    return embedding().bind(Schema("text", texts=tuple(f"t{i}" for i in range(count)), embeds=True))


ROWS = example(texts(4), outcomes=5)
NARROW = replace(ROWS, student=Signal(ROWS.student.output[..., :3]))


def measured(term: Term, on: Example) -> Tensor:
    term.build(on.student, on.teacher, on.task)
    return term.measure(on.student, on.teacher, on.batch)


def total(term: Term, on: Example, batch: Batch | None = None) -> Tensor:
    return as_objective(term).build(on.student, on.teacher, on.task)(on.student, on.teacher, batch or on.batch).total


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a: list[float], b: list[float]) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def softmax(scores: list[float], temperature: float) -> list[float]:
    powers = [math.exp(s / temperature) for s in scores]
    return [p / sum(powers) for p in powers]


def naive_kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


# --- loops


def test_cosine_and_mse_are_the_loops_over_texts():
    for row in range(8):
        for text in range(4):
            ours, theirs = ROWS.student.output[row, text].tolist(), ROWS.teacher.output[row, text].tolist()
            assert math.isclose(float(measured(cosine(), ROWS)[row, text]), 1 - cos(ours, theirs), rel_tol=1e-9)
            squares = [(a - b) ** 2 for a, b in zip(ours, theirs, strict=True)]
            assert math.isclose(float(measured(embedding_mse(), ROWS)[row, text]), sum(squares) / 5, rel_tol=1e-9)


def test_where_widths_agree_embedding_mse_is_mse_of_an_embedding_task():
    assert torch.equal(measured(embedding_mse(), ROWS), measured(mse(), ROWS))


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_margins_and_lists_are_the_loops_over_documents(score):
    how = {"cosine": cos, "dot": dot}[score]
    for row in range(8):
        s, t = ([how(v[0], v[k]) for k in range(1, 4)] for v in (ROWS.student.output[row].tolist(), ROWS.teacher.output[row].tolist()))
        first = [((s[0] - s[k]) - (t[0] - t[k])) ** 2 for k in (1, 2)]
        every = [((s[j] - s[k]) - (t[j] - t[k])) ** 2 for j in range(3) for k in range(3)]
        assert math.isclose(float(measured(margin_mse(score=score), ROWS)[row]), sum(first) / 2, rel_tol=1e-8)
        assert math.isclose(float(measured(margin_mse(pairs="all", score=score), ROWS)[row]), sum(every) / 9, rel_tol=1e-8)
        expected = 0.5**2 * naive_kl(softmax(t, 0.5), softmax(s, 0.5))
        assert math.isclose(float(measured(list_kl(temperature=0.5, score=score), ROWS)[row]), expected, rel_tol=1e-6, abs_tol=1e-9)


def test_similarities_are_the_loops_over_all_texts_of_the_batch():
    ours, theirs = (s.output.flatten(0, 1).tolist() for s in (NARROW.student, NARROW.teacher))
    found = measured(similarity_mse(), NARROW).flatten(), measured(similarity_kl(temperature=0.2), NARROW).flatten()
    for i in range(32):
        squares = [(cos(ours[i], ours[j]) - cos(theirs[i], theirs[j])) ** 2 for j in range(32)]
        assert math.isclose(float(found[0][i]), sum(squares) / 32, rel_tol=1e-8)
        q, p = (softmax([cos(v[i], v[j]) for j in range(32) if j != i], 0.2) for v in (ours, theirs))
        assert math.isclose(float(found[1][i]), 0.04 * naive_kl(p, q), rel_tol=1e-6)


def test_the_golden_values_of_margins():
    """Golden logits as scores: a query (1, 0) and documents whose first coordinate is the score."""
    base = golden()

    def vectors(scores: Tensor) -> Tensor:
        documents = torch.stack((scores, torch.zeros_like(scores)), -1)
        return torch.cat((torch.tensor([[[1.0, 0.0]]]).expand(3, 1, 2), documents), 1)

    def of(count: int) -> Example:
        ours, theirs = (Signal(vectors(s.output[:, :count])) for s in (base.student, base.teacher))
        return Example(ours, theirs, Batch(torch.zeros(3, 1)), texts(count + 1))

    assert math.isclose(float(total(margin_mse(score="dot"), of(2))), 6.003334, rel_tol=1e-4)
    assert math.isclose(float(total(margin_mse(pairs="all", score="dot"), of(4))), 6.471250, rel_tol=1e-4)
    assert math.isclose(float(total(list_kl(score="dot"), of(4))), 1.173122, rel_tol=1e-4)  # KL at T = 1 of the same logits


# --- limits


def test_a_hot_list_is_half_of_all_margins_over_the_number_of_documents():
    """T² KL → 1/(2C) ‖c(s) − c(t)‖² as T → ∞, and the mean over all pairs is twice the variance: a quarter of it."""
    hot = measured(list_kl(temperature=1000), ROWS)
    assert torch.allclose(hot, measured(margin_mse(pairs="all"), ROWS) / 4, rtol=1e-2)


def test_unit_vectors_have_a_cosine_distance_of_half_their_squared_distance():
    unit = replace(
        ROWS, **{side: Signal(torch.nn.functional.normalize(getattr(ROWS, side).output, dim=-1)) for side in ("student", "teacher")}
    )
    assert torch.allclose(measured(cosine(), unit), 5 * measured(embedding_mse(), unit) / 2)


# --- widths that differ


@pytest.mark.parametrize("make", [cosine, embedding_mse])
def test_a_narrow_student_is_projected_to_the_teachers_width(make):
    goal = as_objective(make()).build(NARROW.student, NARROW.teacher, NARROW.task)
    assert {tuple(p.shape) for p in goal.parameters()} == {(5, 3), (5,)}
    assert math.isfinite(float(goal(NARROW.student, NARROW.teacher, NARROW.batch).total.detach()))


@pytest.mark.parametrize("make", [margin_mse, list_kl, similarity_kl, similarity_mse])
def test_scores_need_no_common_width(make):
    goal = as_objective(make()).build(NARROW.student, NARROW.teacher, NARROW.task)
    assert not list(goal.parameters())


@pytest.mark.parametrize("make", [cosine, embedding_mse])
def test_without_alignment_widths_must_agree(make):
    with pytest.raises(ObjectiveError, match="identity"):
        make(align="identity").build(NARROW.student, NARROW.teacher, NARROW.task)


# --- texts that are missing


MASK = torch.tensor([[True, True, True, True], [True, True, True, False], [True, True, False, False], [False, True, True, True]] * 2)


@pytest.mark.parametrize("make", [margin_mse, lambda: margin_mse(pairs="all"), list_kl])
def test_documents_that_are_missing_take_no_part(make):
    batch = replace(ROWS.batch, mask=MASK)
    cut = Example(Signal(ROWS.student.output[1:2, :3]), Signal(ROWS.teacher.output[1:2, :3]), Batch(torch.zeros(1, 1)), texts(3))
    whole = Example(Signal(ROWS.student.output[:1]), Signal(ROWS.teacher.output[:1]), Batch(torch.zeros(1, 1)), texts(4))
    half = replace(ROWS, student=Signal(ROWS.student.output[:4]), teacher=Signal(ROWS.teacher.output[:4]))
    found = total(make(), half, replace(batch, inputs=torch.zeros(4, 1), mask=MASK[:4]))
    assert torch.isclose(found, (total(make(), cut) + total(make(), whole)) / 2)  # of the other two rows nothing can be said


@pytest.mark.parametrize("make", [similarity_kl, similarity_mse, cosine, embedding_mse])
def test_texts_that_are_missing_are_nobodys_neighbours(make):
    batch = replace(ROWS.batch, mask=MASK)
    there = Example(
        Signal(ROWS.student.output[MASK][:, None]), Signal(ROWS.teacher.output[MASK][:, None]), Batch(torch.zeros(24, 1)), texts(1)
    )
    assert torch.isclose(total(make(), ROWS, batch), total(make(), there))


@pytest.mark.parametrize("make", [margin_mse, list_kl, similarity_kl, similarity_mse, cosine])
def test_rows_of_weight_zero_are_rows_that_are_not_there(make):
    weight = torch.tensor([1.0, 1, 0, 1, 1, 0, 1, 1])
    kept = weight > 0
    there = Example(Signal(ROWS.student.output[kept]), Signal(ROWS.teacher.output[kept]), Batch(torch.zeros(6, 1)), ROWS.task)
    junk = replace(ROWS, student=Signal(ROWS.student.output.masked_fill(~kept[:, None, None], torch.nan)))
    goal = as_objective(make()).build(ROWS.student, ROWS.teacher, ROWS.task)
    assert torch.isclose(goal(junk.student, junk.teacher, replace(ROWS.batch, weight=weight)).total, total(make(), there))


def test_a_batch_of_which_one_text_is_left_teaches_no_similarity():
    mask = torch.zeros(8, 4, dtype=torch.bool)
    mask[0, 0] = True
    for make in (similarity_kl, similarity_mse):
        assert float(total(make(), ROWS, replace(ROWS.batch, mask=mask))) == 0


@pytest.mark.parametrize("make", [similarity_kl, similarity_mse])
def test_a_batch_of_one_text_teaches_no_similarity_either(make):
    goal = as_objective(make()).build(Signal(ROWS.student.output[:, :1]), Signal(ROWS.teacher.output[:, :1]), texts(1))
    student = ROWS.student.output[:1, :1].clone().requires_grad_()
    loss = goal(Signal(student), Signal(ROWS.teacher.output[:1, :1]), Batch(torch.zeros(1, 1))).total
    loss.backward()
    assert float(loss.detach()) == 0 and student.grad is not None and not student.grad.any()


@pytest.mark.parametrize("complete", [False, True])
def test_a_score_of_a_text_that_is_missing_counts_for_nothing(complete):
    scores = torch.linspace(-1, 1, 8)
    both = MASK[:, :2].all(1)
    cut = Signal(ROWS.student.output[both])
    goal = as_objective(labels()).build(ROWS.student, None, ROWS.task)
    found = goal(ROWS.student, None, replace(ROWS.batch, labels=scores, mask=MASK, complete=complete)).total
    assert torch.isclose(found, goal(cut, None, Batch(torch.zeros(int(both.sum()), 1), labels=scores[both])).total)


# --- what is refused


@pytest.mark.parametrize("make", [margin_mse, list_kl])
@pytest.mark.parametrize("on", [example(texts(2), outcomes=5), example(texts(1), outcomes=5), example()], ids=["pairs", "texts", "logits"])
def test_a_query_needs_two_documents(make, on):
    with pytest.raises(ObjectiveError, match="at least two documents"):
        make().build(on.student, on.teacher, on.task)


@pytest.mark.parametrize("make", [cosine, embedding_mse, margin_mse, similarity_kl])
def test_other_texts_are_refused(make):
    with pytest.raises(ObjectiveError, match=r"answers \(8, 4, 5\), the teacher \(6, 4, 5\)"):
        make().build(ROWS.student, Signal(ROWS.teacher.output[:6]), ROWS.task)


def test_numbers_are_no_vectors():
    on = example(texts(4), outcomes=1)
    with pytest.raises(ObjectiveError, match=r"compares vectors.*\n.*mse"):
        cosine().build(on.student, on.teacher, on.task)


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(ObjectiveError, match="not finite"):
        similarity_mse().build(ROWS.student, Signal(ROWS.teacher.output.masked_fill(ROWS.teacher.output > 3, torch.inf)), ROWS.task)


@pytest.mark.parametrize("make", [lambda: list_kl(temperature=0), lambda: similarity_kl(temperature=-1)])
def test_temperatures_that_mean_nothing_are_refused(make):
    with pytest.raises(ObjectiveError, match="temperature"):
        make()


def test_margins_and_scores_by_another_name_are_refused():
    with pytest.raises(ObjectiveError, match="pairs='none'"):
        margin_mse(pairs="none")  # pyright: ignore[reportArgumentType] the point of the test
    with pytest.raises(ObjectiveError, match="score='manhattan'"):
        list_kl(score="manhattan")  # pyright: ignore[reportArgumentType] the point of the test


def test_similarity_mse_keeps_the_size_of_cosines_that_similarity_preserving_divides_out():
    close = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.2], [1.0, -0.2]]), dim=-1)
    assert float(functional.similarity_mse(close, torch.eye(3)).mean()) > 10 * float(functional.similarity_mse(close, close.flip(0)).mean())
