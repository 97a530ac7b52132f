"""A teacher that follows its student: the mean of the weights so far, then an exponential one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from attar import notation, sources
from attar.errors import TeacherError
from attar.signal import Source
from attar.sources import ema, module
from attar.sources.ema import Following
from attar.testing.small import SmallCNN, fitted, small_images
from attar.testing.sources import check_source

DATA = small_images(120)
BATCH = DATA.test.batch(torch.arange(12))


def walked(teacher: Following, student: nn.Linear, values: list[float]) -> float:
    for value in values:
        with torch.no_grad():
            student.weight.fill_(value)
        teacher.step()
    return teacher.net.weight.item()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue] a linear layer's


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.6, 0.999])
def test_the_weights_are_those_of_a_loop(decay: float, warmup: bool) -> None:
    student = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    by_hand = student.weight.item()
    values = [3.0, -1.0, 0.5, 2.0, 7.0, 1.0, 1.0]
    teacher = ema(decay, warmup).of(student)
    for n, value in enumerate(values, 1):
        d = min(n / (n + 1), decay) if warmup else decay
        by_hand = d * by_hand + (1 - d) * value
    assert walked(teacher, student, values) == pytest.approx(by_hand, rel=1e-12)


def test_with_warm_up_it_begins_as_the_plain_mean_and_ends_exponential() -> None:
    student = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        student.weight.fill_(6.0)
    assert walked(ema(0.9).of(student), student, [2.0, 4.0]) == pytest.approx(4.0)
    student = nn.Linear(1, 1, bias=False)
    assert walked(ema(0.5).of(student), student, [8.0] * 40) == pytest.approx(8.0)


def test_it_answers_with_its_own_weights_and_the_students_statistics_and_gives_no_gradient() -> None:
    student = SmallCNN(DATA.schema)
    teacher = ema(0.9).of(student)
    before = teacher(BATCH).output
    assert torch.equal(before, module(student)(BATCH).output)
    fitted(student.train(), DATA, steps=2)
    assert torch.equal(teacher(BATCH).output, before)
    teacher.step()
    for own, their in zip(teacher.net.buffers(), student.buffers(), strict=True):
        assert torch.equal(own, their)
    assert not torch.equal(teacher(BATCH).output, before)
    assert not any(p.requires_grad for p in teacher.net.parameters())
    assert all(p.requires_grad for p in student.parameters())
    assert student.training
    assert not teacher.net.training


def test_it_keeps_the_contract_of_sources() -> None:
    student = fitted(SmallCNN(DATA.schema).train(), DATA, steps=2)
    teacher = ema(0.9).of(student)

    def changed() -> list[Source]:
        other = ema(0.9).of(student)
        fitted(student, DATA, steps=1)
        other.step()
        return [other, ema(0.8).of(student)]

    check_source(teacher, BATCH, outcomes=3, taps=["body.0"], changed=changed)
    assert teacher.parameters == sum(p.numel() for p in student.parameters())


def test_its_state_goes_on_from_where_it_was() -> None:
    student = fitted(SmallCNN(DATA.schema).train(), DATA, steps=1)
    teacher = ema(0.99).of(student)
    teacher.step()
    state = copy.deepcopy(dict(teacher.state_dict()))
    again = ema(0.99).of(SmallCNN(DATA.schema, seed=3))
    again.load_state_dict(state)
    assert again.steps == 1
    assert torch.equal(again(BATCH).output, teacher(BATCH).output)


def test_a_description_answers_nobody_and_reads_back() -> None:
    with pytest.raises(TeacherError, match="follows a student in training"):
        ema()(BATCH)
    with pytest.raises(TeacherError, match="follows a student in training"):
        ema().prepare(BATCH)
    assert isinstance(ema(), Source)
    words = {name: getattr(sources, name) for name in sources.__all__ if name[0].islower()}
    assert notation.read(repr(ema(0.95, warmup=False)), words) == ema(0.95, warmup=False)
    assert ema(0.9).fingerprint != ema(0.8).fingerprint
    with pytest.raises(TeacherError, match="below 1"):
        ema(decay=1.0)
