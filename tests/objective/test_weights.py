"""Weights: numbers, ramps, and tensors that a cohort replaces."""

from __future__ import annotations

import copy

import pytest
import torch

from attar.errors import ObjectiveError
from attar.objective import kl, labels, ramp
from attar.objective.weights import Dial, Number, as_weight


def test_a_ramp_is_straight_and_then_flat():
    weight = ramp(1, 3, until=0.5)
    assert [weight.at(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1.0, 2.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("until", [0.0, -1.0, 1.5])
def test_a_ramp_ends_within_the_training(until):
    with pytest.raises(ObjectiveError, match="not a share of training"):
        ramp(0, 1, until=until)


@pytest.mark.parametrize("weight", [as_weight(0.3), ramp(0.2, 0.7, until=0.4), as_weight(torch.tensor(0.3))])
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_the_rest_of_a_weight_makes_it_one(weight, progress):
    assert float(weight.at(progress) + weight.rest().at(progress)) == pytest.approx(1)
    assert float(weight.scaled(Number(2.0)).rest().at(progress)) == pytest.approx(1 - 2 * float(weight.at(progress)))


def test_the_rest_of_a_share_has_no_machine_digits():
    assert repr(as_weight(0.9).rest()) == "0.1"
    assert repr(as_weight(torch.tensor(0.9)).rest()) == "0.1"


def test_scaling_goes_through_every_kind_of_weight():
    assert 2 * ramp(0, 1) == ramp(0, 2)
    assert ramp(0, 1) * 2 == ramp(0, 2)
    assert -ramp(0, 1) == ramp(0, -1)
    assert float((as_weight(torch.tensor(0.5)) * 3).at(0)) == 1.5


@pytest.mark.parametrize("other", [ramp(0, 1), torch.tensor(2.0)])
def test_two_moving_weights_do_not_multiply(other):
    with pytest.raises(ObjectiveError, match="scaled by plain numbers only"):
        _ = ramp(0, 1) * other


@pytest.mark.parametrize("value", [torch.zeros(2), torch.tensor(1)])
def test_a_tensor_weight_is_one_floating_number(value):
    with pytest.raises(ObjectiveError, match="one floating number"):
        _ = value * kl()


def test_a_tensor_weight_keeps_its_digits_when_its_module_is_narrowed():
    goal = torch.tensor(0.9) * kl(temperature=torch.tensor(3.3)) + labels()
    narrow = copy.deepcopy(goal).bfloat16()
    assert {b.dtype for b in narrow.buffers()} == {torch.float32}
    assert repr(narrow) == repr(goal) == "0.9 * kl(temperature=3.3) + labels(smoothing=0.0)"


def test_buffers_of_weights_and_temperatures_are_in_no_checkpoint():
    goal = torch.tensor(0.9) * kl(temperature=torch.tensor(2.0))
    assert len(list(goal.buffers())) == 2
    assert goal.state_dict() == {}


def test_a_weight_does_not_follow_the_tensor_it_was_made_from():
    given = torch.tensor(0.5)
    weight = as_weight(given)
    given.fill_(7)
    assert isinstance(weight, Dial)
    assert float(weight.at(0)) == 0.5
