"""An ensemble answers the log of the mean probability."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from attar.errors import TapError, TeacherError
from attar.signal import IGNORE, Batch, Schema, Schooled
from attar.sources import ensemble, module
from attar.sources.ensemble import confidence
from attar.testing.small import SmallMLP, small_table
from attar.testing.store import Plain, plain_data

DATA = small_table(80)
A, B = module(SmallMLP(DATA.schema, 1)), module(SmallMLP(DATA.schema, 2))
BATCH = DATA.test.batch(torch.arange(9))


def test_probabilities_are_averaged_with_weights() -> None:
    p, q = A(BATCH).output.softmax(-1), B(BATCH).output.softmax(-1)
    assert torch.allclose(ensemble(A, B)(BATCH).output.exp(), (p + q) / 2, atol=1e-6)
    assert torch.allclose(ensemble(A, B, weights=[3, 1])(BATCH).output.exp(), (3 * p + q) / 4, atol=1e-6)
    assert torch.allclose(ensemble(A, B, weights=[1, 0])(BATCH).output.exp(), p, atol=1e-6)


def test_an_outcome_that_one_member_excludes_is_not_excluded_by_all() -> None:
    data = plain_data(40, classes=2)
    batch = data.test.batch(torch.arange(4))

    class Sure(Plain):
        def __call__(self, batch, taps=frozenset()):
            signal = super().__call__(batch, taps)
            signal.output[:] = torch.tensor([0.0, -math.inf])
            return signal

    both = ensemble(Sure(), Sure())(batch).output
    assert torch.equal(both, torch.tensor([[0.0, -math.inf]]).expand(4, 2))
    other = Plain()(batch).output.softmax(-1)
    assert torch.allclose(ensemble(Sure(), Plain())(batch).output.exp()[:, 1], other[:, 1] / 2, atol=1e-6)


def test_numbers_of_a_regression_are_averaged() -> None:
    data = small_table(80, kind="regression")
    batch = data.test.batch(torch.arange(9))
    a, b = (module(SmallMLP(data.schema, s)) for s in (1, 2))
    assert torch.allclose(ensemble(a, b)(batch).output, (a(batch).output + b(batch).output) / 2, atol=1e-6)


def test_one_and_two_logits_of_two_classes_are_averaged_alike() -> None:
    one = module(SmallMLP(DATA.schema, 1, outcomes=(1,)))
    z = one(BATCH).output
    assert torch.allclose(ensemble(one, B)(BATCH).output.exp(), (z.softmax(-1) + B(BATCH).output.softmax(-1)) / 2, atol=1e-6)


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(TeacherError, match="nobody"):
        ensemble()
    with pytest.raises(TeacherError, match="2 sources with 1 weights"):
        ensemble(A, B, weights=[1])
    with pytest.raises(TeacherError, match="not negative"):
        ensemble(A, B, weights=[1, -1])
    with pytest.raises(TapError, match="ensemble has no taps"):
        ensemble(A, B)(BATCH, frozenset({"head"}))


def test_its_training_rows_are_known_if_all_members_know_theirs() -> None:
    class Knowing(Plain):
        def __init__(self, *ids: int) -> None:
            super().__init__()
            self.training_ids = torch.tensor(ids)

    both, one = ensemble(Knowing(3, 5), Knowing(4, 5)), ensemble(Knowing(3), Plain())
    assert isinstance(both, Schooled)
    assert both.training_ids is not None
    assert both.training_ids.tolist() == [3, 4, 5]
    assert one.training_ids is None


def test_who_is_nearer_to_the_label_weighs_more() -> None:
    c = module(SmallMLP(DATA.schema, 3))
    assert BATCH.labels is not None
    rows = [[float(-s(BATCH).output[i].log_softmax(-1)[y]) for s in (A, B, c)] for i, y in enumerate(BATCH.labels.tolist())]
    answer = ensemble(A, B, c, weights="confidence")(BATCH).output.exp()
    for i, errors in enumerate(rows):
        whole = sum(math.exp(e) for e in errors)
        shares = [(1 - math.exp(e) / whole) / 2 for e in errors]
        assert sum(shares) == pytest.approx(1)
        expected = sum(w * s(BATCH).output[i].softmax(-1) for w, s in zip(shares, (A, B, c), strict=True))
        assert torch.allclose(answer[i], torch.as_tensor(expected), atol=1e-6)


def test_confidence_is_of_training_rows_alone_once_it_is_told_of_them() -> None:
    both = ensemble(A, B, weights="confidence")
    plain = ensemble(A, B)
    told = both.told(DATA.train)
    train = DATA.train.batch(torch.arange(9))
    assert torch.allclose(told(BATCH).output, plain(BATCH).output, atol=1e-6)
    assert torch.equal(told(train).output, both(train).output)
    assert not torch.allclose(told(train).output, plain(train).output, atol=1e-4)
    hidden = replace(train, labels=torch.full((9,), IGNORE))
    assert torch.allclose(both(hidden).output, plain(hidden).output, atol=1e-6)
    assert len({both.fingerprint, told.fingerprint, plain.fingerprint}) == 3


def test_vectors_have_no_mean() -> None:
    class Vectors(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs[:, None]

    batch = Batch(torch.ones(2, 3), schema=Schema("text", texts=("text",), embeds=True))
    with pytest.raises(TeacherError, match="a space of its own"):
        ensemble(module(Vectors()), module(Vectors()))(batch)


def test_members_that_exclude_the_label_are_alike() -> None:
    outputs = [torch.tensor([[0.0, -math.inf]]), torch.tensor([[1.0, -math.inf]]), torch.tensor([[0.0, 0.0]])]
    shares = confidence(outputs, torch.tensor([1]))
    assert torch.allclose(shares[:, 0], torch.tensor([0.25, 0.25, 0.5]), atol=1e-5)


def test_confidence_needs_a_rival_and_classes() -> None:
    with pytest.raises(TeacherError, match="nobody to be more confident than"):
        ensemble(A, weights="confidence")
    numbers = small_table(80, kind="regression")
    a, b = (module(SmallMLP(numbers.schema, s)) for s in (1, 2))
    with pytest.raises(TeacherError, match="regression"):
        ensemble(a, b, weights="confidence")(numbers.test.batch(torch.arange(3)))
    assert repr(ensemble(A, B, weights="confidence")).endswith('weights="confidence")')
