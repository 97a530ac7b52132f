"""An adjusted teacher answers as if every class were equally common."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attar.errors import TeacherError
from attar.signal import IGNORE, Stored
from attar.sources import adjusted, corrected, module
from attar.testing.small import SmallCNN, SmallMLP, small_images, small_table
from attar.verbs.annotate import annotate

DATA = small_images(200)
NET = module(SmallCNN(DATA.schema))
BATCH = DATA.test.batch(torch.arange(20))


def test_the_log_of_each_class_s_share_is_taken_off() -> None:
    assert DATA.train.labels is not None
    shares = [float((DATA.train.labels == c).float().mean()) for c in range(3)]
    for tau in (0.0, 1.0, 1.5):
        expected = NET(BATCH).output - tau * torch.tensor(shares).log()
        assert torch.allclose(adjusted(NET, tau).told(DATA.train)(BATCH).output, expected, atol=1e-6)


def test_a_teacher_that_knows_nothing_but_the_shares_becomes_uniform() -> None:
    class Prior(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            assert DATA.train.labels is not None
            return DATA.train.labels.bincount(minlength=3).float().log().expand(len(inputs), 3)

    answer = adjusted(module(Prior())).told(DATA.train)(BATCH).output
    assert torch.allclose(answer.softmax(-1), torch.full((20, 3), 1 / 3), atol=1e-6)


def test_unknown_labels_are_not_counted_and_a_class_without_a_row_counts_one() -> None:
    assert DATA.train.labels is not None
    labels = torch.where(DATA.train.labels == 2, IGNORE, DATA.train.labels)
    counts = labels[labels != IGNORE].bincount(minlength=3).clamp(min=1).float()
    source = adjusted(NET).told(replace(DATA.train, labels=labels))
    assert torch.allclose(source(BATCH).output, NET(BATCH).output - (counts / counts.sum()).log(), atol=1e-6)


def test_rows_that_are_equal_count_as_often_as_they_come() -> None:
    assert DATA.train.labels is not None
    twice = torch.cat([torch.arange(len(DATA.train)), (DATA.train.labels == 0).nonzero().squeeze(1)])
    rows = replace(DATA.train, ids=DATA.train.ids[twice], labels=DATA.train.labels[twice])
    counts = DATA.train.labels[twice].bincount(minlength=3).float()
    expected = NET(BATCH).output - (counts / counts.sum()).log()
    assert torch.allclose(adjusted(NET).told(rows)(BATCH).output, expected, atol=1e-6)


def test_many_labels_are_adjusted_one_by_one() -> None:
    data = small_table(120, kind="multilabel")
    net, batch = module(SmallMLP(data.schema, outcomes=(3, 2))), data.test.batch(torch.arange(5))
    assert data.train.labels is not None
    share = data.train.labels.float().mean(0)  # (L,)
    expected = net(batch).output - torch.stack((1 - share, share), -1).log()
    assert torch.allclose(adjusted(net).told(data.train)(batch).output, expected, atol=1e-6)


def test_stored_answers_are_adjusted_as_live_ones_are() -> None:
    source = adjusted(annotate(NET, DATA, precision="float32")).told(DATA.train)
    assert isinstance(source, Stored)
    assert BATCH.ids is not None
    live = adjusted(NET).told(DATA.train)(BATCH).output
    assert torch.allclose(source.signal(source.locate(BATCH.ids)).output, live, atol=1e-6)
    assert torch.allclose(annotate(adjusted(NET), DATA, precision="float32")(BATCH).output, live, atol=1e-6)


def test_it_may_wrap_a_corrected_teacher() -> None:
    both = adjusted(corrected(NET)).told(DATA.train)
    rows = DATA.train.batch(torch.arange(20))
    alone = corrected(NET).told(DATA.train)(rows).output
    assert torch.allclose((both(rows).output - alone).std(0), torch.zeros(3), atol=1e-5)


def test_what_cannot_be_adjusted_is_refused() -> None:
    with pytest.raises(TeacherError, match="nobody has told it"):
        adjusted(NET)(BATCH)
    with pytest.raises(TeacherError, match="favour the common"):
        adjusted(NET, tau=-1.0)
    with pytest.raises(TeacherError, match="have no labels"):
        adjusted(NET).told(replace(DATA.train, labels=None))
    numbers = small_table(80, kind="regression")
    with pytest.raises(TeacherError, match="regression"):
        adjusted(module(SmallMLP(numbers.schema))).told(numbers.train)
    with pytest.raises(TeacherError, match=r"answers \(3,\) a row, the training rows have \(2,\)"):
        adjusted(NET).told(small_table(80).train)(BATCH)
