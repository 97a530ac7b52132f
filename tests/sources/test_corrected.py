"""A corrected teacher leads to the label by the margin, on training rows, and nowhere else."""

from __future__ import annotations

import math

import pytest
import torch

from attar.data import Data
from attar.errors import TeacherError
from attar.objective import kl
from attar.signal import IGNORE, Batch, Signal, Source, Stored
from attar.sources import cached, corrected, ensemble, module
from attar.sources.corrected import mixed
from attar.testing.small import SmallCNN, SmallMLP, small_images, small_table
from attar.testing.terms import golden
from attar.verbs.annotate import annotate

DATA = small_images(120)
NET = module(SmallCNN(DATA.schema))
ROWS = torch.arange(20)
TRAIN, TEST = DATA.train.batch(ROWS), DATA.test.batch(ROWS)


def test_it_is_what_the_reference_makes_of_the_golden_rows() -> None:
    on = golden()
    assert on.batch.labels is not None
    answer = Signal(mixed(on.teacher.output, on.batch.labels, 0.2, False))
    term = kl(temperature=1)
    term.build(on.student, answer, on.task)
    assert float(term.measure(on.student, answer, on.batch).mean()) == pytest.approx(1.635487, rel=1e-4)


@pytest.mark.parametrize("wrong_only", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.7])
def test_it_is_the_mixture_that_a_loop_makes(margin: float, wrong_only: bool) -> None:
    z = 3 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(40) % 5
    answers = mixed(z, y, margin, wrong_only).exp()
    for row, label, answer in zip(z.softmax(-1).tolist(), y.tolist(), answers.tolist(), strict=True):
        best, own = max(row), row[label]
        right = 0.0 if wrong_only else min(1.0, margin / (1 - own))
        m = (best - own + margin) / (1 + best - own) if own < best else right
        expected = [max((1 - m) * p + m * (i == label), min(p, 1e-7)) for i, p in enumerate(row)]
        assert answer == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_afterwards_the_label_leads_by_the_margin_and_the_others_keep_their_order() -> None:
    z = torch.tensor([[4.0, 1, 0, 2], [0, 0.1, 0, 0]])
    p = mixed(z, torch.tensor([2, 3]), 0.2, False).exp()
    assert torch.allclose(p.sum(-1), torch.ones(2))
    assert torch.allclose(p[[0, 1], [2, 3]] - p[[0, 1], [0, 1]], torch.tensor([0.2, 0.2]))
    assert p[0].argsort().tolist() == [1, 3, 0, 2]


def test_a_sure_teacher_who_is_right_leaves_the_others_a_little() -> None:
    p = mixed(torch.tensor([[9.0, 0, 0], [80, 0, 0], [2, 0, -math.inf]]), torch.tensor([0, 0, 1]), 0.2, False)
    assert torch.isfinite(p[:2]).all()
    assert torch.allclose(p[0].exp(), torch.tensor([1.0, 1e-7, 1e-7]))
    assert p[2, 2] == -math.inf  # what the teacher excludes stays excluded


def test_a_wrong_teacher_of_two_outcomes_and_of_many_labels_is_corrected_too() -> None:
    z = torch.tensor([[[0.0, 2], [0, -1]], [[0, 0.5], [0, 3]]])  # (B, L, 2)
    y = torch.tensor([[0, 0], [IGNORE, 1]])
    p = mixed(z, y, 0.2, True).exp()
    assert torch.allclose(p[0, 0, 0] - p[0, 0, 1], torch.tensor(0.2))
    for at in ((0, 1), (1, 0), (1, 1)):
        assert torch.allclose(p[at], z[at].softmax(-1))


def test_rows_without_a_label_pass() -> None:
    hidden = Batch(TRAIN.inputs, ids=TRAIN.ids, schema=TRAIN.schema)
    assert torch.equal(corrected(NET)(hidden).output, NET(hidden).output)
    unknown = Batch(TRAIN.inputs, labels=torch.full((20,), IGNORE), schema=TRAIN.schema)
    assert torch.allclose(corrected(NET)(unknown).output, NET(unknown).output.log_softmax(-1))


def test_once_told_it_looks_at_labels_of_training_rows_alone() -> None:
    """An evaluation that compared with a teacher who had seen the labels would be worth nothing."""
    source = corrected(NET).told(DATA.train)
    assert torch.allclose(source(TEST).output, NET(TEST).output.log_softmax(-1))
    assert DATA.train.labels is not None
    assert (source(TRAIN).output.argmax(-1) == DATA.train.labels[ROWS]).all()
    assert not (NET(TRAIN).output.argmax(-1) == DATA.train.labels[ROWS]).all()
    bare = Batch(TRAIN.inputs, ids=TRAIN.ids, schema=TRAIN.schema)
    assert torch.equal(source(bare).output, corrected(NET)(TRAIN).output)


def test_stored_answers_are_corrected_as_live_ones_are() -> None:
    answers = annotate(NET, DATA, precision="float32")
    source = corrected(answers).told(DATA.train)
    assert isinstance(source, Stored)
    assert not isinstance(corrected(answers), Stored)  # without ids of labels a handle says nothing
    assert TRAIN.ids is not None
    live = corrected(NET).told(DATA.train)
    assert torch.allclose(source.signal(source.locate(TRAIN.ids)).output, live(TRAIN).output, atol=1e-6)
    assert TEST.ids is not None
    assert torch.allclose(source.signal(source.locate(TEST.ids)).output, live(TEST).output, atol=1e-6)


def test_annotating_tells_it_of_the_training_rows() -> None:
    answers = annotate(corrected(NET), DATA, precision="float32")
    live = corrected(NET).told(DATA.train)
    for batch in (TRAIN, TEST):
        assert torch.allclose(answers(batch).output, live(batch).output, atol=1e-6)
    assert answers.told(DATA.train) is answers  # told of the same rows again it keeps its answers
    assert answers.fingerprint == live.fingerprint != corrected(NET).fingerprint


def test_what_wraps_it_hands_the_rows_on() -> None:
    live = corrected(NET).told(DATA.train)
    assert torch.allclose(ensemble(corrected(NET)).told(DATA.train)(TEST).output, live(TEST).output, atol=1e-6)
    assert torch.allclose(cached(corrected(NET)).told(DATA.train)(TRAIN).output, live(TRAIN).output, atol=1e-6)


@pytest.mark.parametrize("margin", [-0.1, 1.1])
def test_a_margin_is_a_lead_in_probability(margin: float) -> None:
    with pytest.raises(TeacherError, match="between 0 and 1"):
        corrected(NET, margin=margin)


def test_a_regression_is_refused() -> None:
    numbers: Data = small_table(80, kind="regression")
    source: Source = module(SmallMLP(numbers.schema))
    with pytest.raises(TeacherError, match="regression"):
        corrected(source)(numbers.test.batch(torch.arange(4)))
    with pytest.raises(TeacherError, match="regression"):
        corrected(source).told(numbers.train)
