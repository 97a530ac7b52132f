"""Taps: activations by module path, with nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attar.errors import StudentError, TapError
from attar.signal import Batch
from attar.tap import observe

BATCH = Batch(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))


class Net(nn.Module):
    """Two layers, one of them used twice, one never, and one that answers with a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.blocks = nn.ModuleList([nn.Linear(3, 5), nn.ReLU()])
        self.memory = nn.GRU(5, 5, batch_first=True)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(5, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.first(self.first(inputs))
        for block in self.blocks:
            x = block(x)
        x, _ = self.memory(x[:, None])
        return self.head(x[:, 0])


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in model.modules())


def test_taps_are_the_outputs_of_the_named_modules_with_their_gradients():
    net = Net()
    signal = observe(net, BATCH, frozenset({"blocks.0", "head"}))
    assert set(signal.taps) == {"blocks.0", "head"}
    assert torch.equal(signal.taps["head"], signal.output)
    expected = net.blocks[0](net.first(net.first(BATCH.inputs)))
    assert torch.equal(signal.taps["blocks.0"], expected)
    signal.taps["blocks.0"].sum().backward()
    assert net.first.weight.grad is not None


def test_without_taps_the_answer_is_the_models_own_and_nothing_is_hooked():
    net = Net()
    seen = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(hooks(module)))
    signal = observe(net, BATCH)
    assert seen == [0]
    assert torch.equal(signal.output, net(BATCH.inputs))
    assert not signal.taps


def test_hooks_are_gone_afterwards():
    net = Net()
    observe(net, BATCH, frozenset({"head"}))
    assert hooks(net) == 0


def test_hooks_are_gone_when_the_model_fails():
    net = Net()
    with pytest.raises(RuntimeError, match="mat1"):
        observe(net, Batch(torch.zeros(4, 7)), frozenset({"head", "blocks.0"}))
    assert hooks(net) == 0


def test_an_unknown_path_names_those_near_it_and_hooks_nothing():
    net = Net()
    with pytest.raises(TapError, match="no module at 'blocks.O' in Net") as caught:
        observe(net, BATCH, frozenset({"blocks.O", "head"}))
    assert "'blocks.0'" in caught.value.hint
    assert hooks(net) == 0


def test_the_model_itself_is_not_a_tap():
    with pytest.raises(TapError, match="no module at ''"):
        observe(Net(), BATCH, frozenset({""}))


def test_a_module_run_twice_is_refused():
    net = Net()
    with pytest.raises(TapError, match="'first' is run 2 times for one answer") as caught:
        observe(net, BATCH, frozenset({"first"}))
    assert "'first#0' to 'first#1'" in caught.value.hint
    assert hooks(net) == 0


def test_a_module_never_run_is_refused():
    with pytest.raises(TapError, match="'unused' was not run by Net"):
        observe(Net(), BATCH, frozenset({"unused", "head"}))


def test_an_activation_that_is_a_tuple_is_refused():
    with pytest.raises(TapError, match=r"'memory' \(GRU\) answers with a tuple of 2"):
        observe(Net(), BATCH, frozenset({"memory"}))


def test_a_model_that_answers_with_a_tuple_is_refused():
    with pytest.raises(StudentError, match="GRU answers with a tuple of 2") as caught:
        observe(nn.GRU(3, 3), BATCH)
    assert "forward returns logits" in caught.value.hint


def test_a_module_known_by_two_paths_is_found_by_either():
    net = Net()
    net.again = net.head
    assert torch.equal(observe(net, BATCH, frozenset({"again"})).taps["again"], net(BATCH.inputs))
