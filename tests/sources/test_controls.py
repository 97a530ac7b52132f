"""Controls keep what they promise of a teacher and lose the rest, stored and live alike."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.functional import kl
from attar.signal import IGNORE, Schooled, Stored
from attar.sources import cached, hard, module, shuffled, smooth
from attar.testing.small import SmallCNN, SmallMLP, fitted, small_images, small_table
from attar.testing.store import Plain, plain_data
from attar.verbs.annotate import annotate

TABLE, IMAGES = small_table(400), small_images(200)
BINARY = module(fitted(SmallMLP(TABLE.schema), TABLE, steps=10))
MANY = module(fitted(SmallCNN(IMAGES.schema), IMAGES, steps=5))


def all_of(split) -> Tensor:
    return torch.arange(len(split))


def test_hard_answers_the_decision_with_the_promised_probability() -> None:
    batch = IMAGES.test.batch(all_of(IMAGES.test))
    p = hard(MANY, epsilon=0.1)(batch).output.exp()
    decision = MANY(batch).output.argmax(-1, keepdim=True)
    assert torch.allclose(p.gather(-1, decision), torch.tensor(0.9))
    assert torch.allclose(p.sum(-1), torch.ones(len(batch)))
    assert torch.allclose(p.scatter(-1, decision, 0.05), torch.tensor(0.05))


def test_hard_at_its_default_is_a_one_hot_target_at_usual_temperatures() -> None:
    batch = TABLE.test.batch(all_of(TABLE.test))
    assert (hard(BINARY)(batch).output / 4).softmax(-1).max(-1).values.min() > 0.96


def test_hard_refuses_a_regression_and_an_epsilon_out_of_range() -> None:
    numbers = small_table(40, kind="regression")
    with pytest.raises(TeacherError, match="decides nothing"):
        hard(module(SmallMLP(numbers.schema)))(numbers.test.batch(all_of(numbers.test)))
    with pytest.raises(TeacherError, match="epsilon=0"):
        hard(BINARY, epsilon=0.0)


def test_shuffling_keeps_the_likeliest_outcome_and_the_certainty_of_each_row() -> None:
    batch = IMAGES.train.batch(all_of(IMAGES.train))
    plain, mixed = MANY(batch).output, shuffled(MANY)(batch).output
    assert torch.equal(plain.argmax(-1), mixed.argmax(-1))
    assert torch.equal(plain.sort(-1).values, mixed.sort(-1).values)
    moved = (plain != mixed).any(-1).float().mean()
    assert 0.3 < moved < 0.7  # of two wrong outcomes half of the rows exchange them


def test_shuffling_deals_all_orders_equally_often() -> None:
    data = plain_data(rows=6000, classes=4)
    batch = data.train.batch(all_of(data.train))
    output = torch.tensor([9.0, 1.0, 2.0, 3.0]).repeat(len(batch), 1)
    mixed = shuffled(Plain(1.0))(replace(batch, inputs=output)).output[:, 1:]
    orders, counts = mixed.unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert ((counts - len(batch) / 6) ** 2 / (len(batch) / 6)).sum() < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


def test_shuffling_depends_on_seed_and_id_alone() -> None:
    batch = IMAGES.train.batch(all_of(IMAGES.train))
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    again = shuffled(MANY)(IMAGES.train.batch(order)).output
    assert torch.allclose(again, shuffled(MANY)(batch).output[order], atol=1e-5)
    assert not torch.allclose(shuffled(MANY, seed=1)(batch).output, shuffled(MANY)(batch).output, atol=1e-3)


def test_two_outcomes_exchange_answers_among_rows_of_one_label() -> None:
    train = TABLE.train
    batch = train.batch(all_of(train))
    assert batch.labels is not None
    plain, mixed = BINARY(batch).output, shuffled(BINARY).over(train)(batch).output
    assert (plain != mixed).any(-1).float().mean() > 0.95
    for label in (0, 1):
        here = batch.labels == label
        assert torch.allclose(plain[here].sort(0).values, mixed[here].sort(0).values, atol=1e-5)


def test_rows_without_a_label_exchange_within_the_teachers_decision() -> None:
    assert TABLE.train.labels is not None
    train = replace(TABLE.train, labels=torch.full_like(TABLE.train.labels, IGNORE))
    batch = train.batch(all_of(train))
    plain, mixed = BINARY(batch).output, shuffled(BINARY).over(train)(batch).output
    assert torch.equal(plain.argmax(-1), mixed.argmax(-1))
    assert not torch.allclose(plain, mixed)


def test_rows_with_and_without_a_label_do_not_exchange_with_each_other() -> None:
    assert TABLE.train.labels is not None
    labels = TABLE.train.labels.clone()
    labels[::2] = IGNORE
    train = replace(TABLE.train, labels=labels)
    batch = train.batch(all_of(train))
    plain, mixed = BINARY(batch).output, shuffled(BINARY).over(train)(batch).output
    for here in (labels == 0, labels == 1, labels == IGNORE):
        assert torch.allclose(plain[here].sort(0).values, mixed[here].sort(0).values, atol=1e-5)


def test_two_outcomes_without_rows_to_exchange_with_are_refused_with_the_way_out() -> None:
    batch = TABLE.train.batch(all_of(TABLE.train))
    with pytest.raises(TeacherError, match=r"over\(data.train\)"):
        shuffled(BINARY)(batch)
    with pytest.raises(TeacherError, match="was not told of 100"):
        shuffled(BINARY).over(TABLE.train)(TABLE.test.batch(all_of(TABLE.test)))


def test_smooth_is_label_smoothing() -> None:
    batch = TABLE.train.batch(all_of(TABLE.train))
    assert batch.labels is not None
    q = torch.randn(len(batch), 2, generator=torch.Generator().manual_seed(0))
    target = smooth(BINARY, 0.2)(batch).output
    entropy = -(target.exp() * target).sum(-1)
    want = torch.nn.functional.cross_entropy(q, batch.labels, label_smoothing=0.2, reduction="none")
    assert torch.allclose(kl(target, q.log_softmax(-1)) + entropy, want, atol=1e-5)


def test_smooth_knows_nothing_of_a_row_without_a_label() -> None:
    batch = TABLE.train.batch(torch.arange(3))
    unknown = replace(batch, labels=torch.full((3,), IGNORE))
    assert torch.allclose(smooth(BINARY)(unknown).output, torch.full((3, 2), math.log(0.5)))
    with pytest.raises(TeacherError, match="without labels"):
        smooth(BINARY)(replace(batch, labels=None))


@pytest.mark.parametrize("word", [hard, shuffled])
def test_over_a_store_a_control_is_stored_and_says_the_same(word, tmp_path: Path) -> None:
    for name, data, teacher in (("two", TABLE, BINARY), ("three", IMAGES, MANY)):
        store = annotate(teacher, data, at=tmp_path / name, precision="float32")
        control, live = word(store).over(data.train), word(teacher).over(data.train)
        assert not isinstance(live, Stored)
        assert not isinstance(word(teacher), Stored)
        index = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:32]
        batch = data.train.batch(index)
        assert batch.ids is not None
        assert torch.allclose(control(batch).output, live(batch).output, atol=1e-5)
        assert isinstance(control, Stored)
        rows = control.locate(batch.ids, batch.views)
        assert torch.allclose(control.signal(rows).output, live(batch).output, atol=1e-5)


def test_smooth_over_rows_answers_by_id() -> None:
    control = smooth(BINARY).over(TABLE.train)
    batch = TABLE.train.batch(torch.tensor([5, 3, 5]))
    assert batch.ids is not None
    answers = control.signal(control.locate(batch.ids, torch.tensor([1, 2, 3]))).output
    assert torch.equal(answers, smooth(BINARY)(batch).output)
    assert torch.equal(control(replace(batch, labels=None)).output, answers)


def test_views_of_augmented_rows_are_the_partners_views(tmp_path: Path) -> None:
    data = plain_data(rows=200, classes=2, views=2)
    store = annotate(Plain(), data, at=tmp_path, precision="float32")
    control = shuffled(store).over(data.train)
    assert isinstance(control, Stored)
    ids = data.train.ids
    first, second = (control.signal(control.locate(ids, torch.full_like(ids, v))).output for v in (1, 2))
    assert torch.allclose(second - first, torch.tensor(2.0))  # a view adds its number, the teacher doubles it


def test_handles_that_locate_has_not_given_are_refused() -> None:
    control = shuffled(cached(MANY))
    assert isinstance(control, Stored)
    with pytest.raises(TeacherError, match="locate"):
        control.signal(torch.tensor([0]))


def test_a_control_knows_what_its_teacher_was_trained_on() -> None:
    class Knowing(Plain):
        training_ids = torch.tensor([1, 2])

    for control in (hard(Knowing()), shuffled(Knowing()), smooth(Knowing())):
        assert isinstance(control, Schooled)
        assert control.training_ids is not None
        assert control.training_ids.tolist() == [1, 2]
    assert hard(Plain()).training_ids is None


def test_many_labels_and_numbers_have_no_such_controls() -> None:
    labels = small_table(80, kind="multilabel")
    with pytest.raises(TeacherError, match="many labels"):
        shuffled(BINARY).over(labels.train)
    numbers = small_table(80, kind="regression")
    with pytest.raises(TeacherError, match="regression"):
        smooth(BINARY).over(numbers.train)
