"""A module is asked as it stands, and is left as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attar.errors import TapError, TeacherError
from attar.signal import Batch
from attar.sources import module
from attar.sources.answers import take
from attar.testing.small import SmallCNN, SmallMLP, small_images, small_table

TABLE, IMAGES = small_table(200), small_images(60)


def test_training_flags_are_left_as_they_were() -> None:
    net = SmallCNN(IMAGES.schema).train()
    net.body[1].eval()  # a frozen BatchNorm in a net that trains
    flags = [m.training for m in net.modules()]
    buffers = [b.clone() for b in net.buffers()]
    source, batch = module(net), IMAGES.test.batch(torch.arange(8))
    source(batch)
    source.prepare(batch)()
    assert [m.training for m in net.modules()] == flags
    assert all(torch.equal(a, b) for a, b in zip(buffers, net.buffers(), strict=True))


def test_training_flags_return_even_when_the_net_fails() -> None:
    net = SmallCNN(IMAGES.schema).train()
    with pytest.raises(RuntimeError, match="size"):
        module(net)(Batch(torch.zeros(2, 1, 8, 8, 8, dtype=torch.uint8)))
    assert net.body.training


def test_the_fingerprint_follows_weights_buffers_and_code() -> None:
    net = SmallCNN(IMAGES.schema)
    source = module(net)
    seen = {source.fingerprint}
    dict(net.named_buffers())["body.1.running_mean"].add_(1)
    seen.add(source.fingerprint)
    dict(net.named_parameters())["body.0.weight"].data.add_(1)
    seen.add(source.fingerprint)
    net.body[3] = nn.MaxPool2d(2, ceil_mode=True)
    seen.add(source.fingerprint)
    seen.add(module(net, reads=lambda b: b.inputs).fingerprint)
    seen.add(module(net, reads=lambda b: b.to("cpu").inputs).fingerprint)
    assert len(seen) == 6
    assert module(SmallCNN(IMAGES.schema)).fingerprint == module(SmallCNN(IMAGES.schema)).fingerprint


def test_a_plain_net_reads_the_numbers_of_a_table() -> None:
    batch = Batch({"numbers": torch.ones(4, 3, dtype=torch.float64)})
    net = nn.Linear(3, 2)
    assert torch.allclose(module(net, reads="numbers")(batch).output, net(torch.ones(4, 3)))
    with pytest.raises(TeacherError, match=r"\['categories', 'numbers'\]"):
        module(net, reads="numbers")(TABLE.test.batch(torch.arange(4)))


def test_a_plain_net_reads_pixels_as_shares_of_one() -> None:
    batch = IMAGES.test.batch(torch.arange(4))
    assert isinstance(batch.inputs, Tensor)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert torch.allclose(module(net, reads="pixels")(batch).output, net(batch.inputs / 255))
    with pytest.raises(TeacherError, match="uint8"):
        module(net, reads="pixels")(Batch(torch.ones(4, 64)))


def test_one_logit_of_two_classes_becomes_two() -> None:
    net = SmallMLP(TABLE.schema, outcomes=(1,))
    batch = TABLE.test.batch(torch.arange(4))
    output = module(net)(batch).output
    assert torch.equal(output[:, 0], torch.zeros(4))
    assert torch.equal(output[:, 1:], net(batch.inputs))


def test_many_labels_become_two_outcomes_each() -> None:
    data = small_table(80, kind="multilabel")
    batch = data.test.batch(torch.arange(4))
    output = module(SmallMLP(data.schema))(batch).output
    assert output.shape == (4, 3, 2)
    assert torch.equal(output[..., 0], torch.zeros(4, 3))


def test_a_wrong_number_of_outcomes_shows_both_sides() -> None:
    net = SmallMLP(TABLE.schema, outcomes=(5,))
    with pytest.raises(TeacherError, match=r"(?s)SmallMLP answers \(5,\).*2 classes of 'outcome': no, yes"):
        module(net)(TABLE.test.batch(torch.arange(4)))
    with pytest.raises(TeacherError, match="1 answers to 4 rows"):
        module(net, reads=lambda batch: take(batch, torch.tensor([0])).inputs)(TABLE.test.batch(torch.arange(4)))


def test_classes_in_another_order_are_put_right() -> None:
    net, batch = SmallMLP(TABLE.schema), TABLE.test.batch(torch.arange(4))
    assert torch.equal(module(net, classes=["yes", "no"])(batch).output, module(net)(batch).output.flip(-1))
    with pytest.raises(TeacherError, match=r"\['yes', 'nope'\], the data have \['no', 'yes'\]"):
        module(net, classes=["yes", "nope"])(batch)


def test_an_unknown_tap_names_its_neighbours() -> None:
    with pytest.raises(TapError, match="hidden"):
        module(SmallMLP(TABLE.schema))(TABLE.test.batch(torch.arange(4)), frozenset({"hiden"}))


def test_half_precision_is_answered_in_single() -> None:
    net = SmallCNN(IMAGES.schema)
    batch = IMAGES.test.batch(torch.arange(4))

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: Tensor) -> Tensor:
            return self.net(inputs).bfloat16()

    assert module(Half())(batch).output.dtype == torch.float32
    assert module(net)(replace(batch, schema=None)).output.shape == (4, 3)
