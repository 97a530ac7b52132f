"""Taps: activations by module path, with nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attar.errors import StudentError, TapError
from attar.signal import Batch
from attar.tap import observe

ROWS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
BATCH = Batch(ROWS)


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
    with pytest.raises(TapError, match=r"'memory' \(GRU\) answers with a tuple of 2") as caught:
        observe(Net(), BATCH, frozenset({"memory"}))
    assert "'memory[0]'" in caught.value.hint


def test_a_model_that_answers_with_a_tuple_is_refused():
    with pytest.raises(StudentError, match="GRU answers with a tuple of 2") as caught:
        observe(nn.GRU(3, 3), BATCH)
    assert "forward returns logits" in caught.value.hint


def test_a_module_known_by_two_paths_is_found_by_either():
    net = Net()
    net.again = net.head
    assert torch.equal(observe(net, BATCH, frozenset({"again"})).taps["again"], net(BATCH.inputs))


def test_an_item_of_a_tuple_is_read_by_its_number():
    net = Net()
    signal = observe(net, BATCH, frozenset({"memory[0]", "memory[1]", "memory:in", "memory:in[0]", "blocks.1"}))
    assert signal.taps["memory[0]"].shape == (4, 1, 5)
    assert torch.equal(signal.taps["memory[0]"][:, 0], signal.taps["memory[1]"][0])
    assert torch.equal(signal.taps["memory:in"][:, 0], signal.taps["blocks.1"])
    assert torch.equal(signal.taps["memory:in[0]"], signal.taps["memory:in"])


@pytest.mark.parametrize(("tap", "said"), [("memory[2]", r"a tuple of 2, and no \[2\]"), ("head[0]", "a Tensor, which has no items")])
def test_an_item_that_is_not_there_is_refused(tap: str, said: str):
    with pytest.raises(TapError, match=said):
        observe(Net(), BATCH, frozenset({tap}))


def test_a_run_of_several_is_read_by_its_number():
    net = Net()
    signal = observe(net, BATCH, frozenset({"first#0", "first#1", "first:in#1", "head#0"}))
    assert torch.equal(signal.taps["first#0"], net.first(BATCH.inputs))
    assert torch.equal(signal.taps["first#1"], net.first(net.first(BATCH.inputs)))
    assert torch.equal(signal.taps["first:in#1"], signal.taps["first#0"])
    assert torch.equal(signal.taps["head#0"], signal.output)


def test_a_run_that_does_not_happen_is_refused():
    with pytest.raises(TapError, match="'first' is run 2 times for one answer, there is no #2"):
        observe(Net(), BATCH, frozenset({"first#2"}))


def test_a_module_with_two_names_is_run_as_often_as_both_say():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    net.append(net[0])
    with pytest.raises(TapError, match="'2' is run 2 times"):
        observe(net, BATCH, frozenset({"2"}))
    assert torch.equal(observe(net, BATCH, frozenset({"2#1"})).taps["2#1"], net(BATCH.inputs))


class Keyword(nn.Module):
    """A layer that is called by keyword, and one that answers with a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.pair = Scaled(), Pair()

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.pair(inputs)
        return self.layer(x=found["one"], by=found["two"])


class Scaled(nn.Module):
    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return x * by


class Pair(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"one": x, "two": x + 1}


def test_arguments_by_keyword_and_mappings_have_their_order():
    signal = observe(Keyword(), BATCH, frozenset({"layer:in", "layer:in[1]", "pair[0]", "pair[1]"}))
    assert torch.equal(signal.taps["layer:in"], ROWS)
    assert torch.equal(signal.taps["layer:in[1]"], ROWS + 1)
    assert torch.equal(signal.taps["pair[0]"], ROWS)
    assert torch.equal(signal.taps["pair[1]"], ROWS + 1)
    with pytest.raises(TapError, match=r"a dict of 2 \(one, two\)") as caught:
        observe(Keyword(), BATCH, frozenset({"pair"}))
    assert "'pair[0]'" in caught.value.hint


def test_what_is_changed_in_place_afterwards_is_refused_and_not_read_wrong():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    with pytest.raises(TapError, match="'0' is changed in place") as caught:
        observe(net, BATCH, frozenset({"0"}))
    assert "inplace=False" in caught.value.hint
    assert torch.equal(observe(net, BATCH, frozenset({"1"})).taps["1"], net[0](BATCH.inputs).relu())


def test_inference_mode_is_tapped_too():
    with torch.inference_mode():
        signal = observe(Net(), BATCH, frozenset({"head"}))
    assert torch.equal(signal.taps["head"], signal.output)


class Reader(nn.Module):
    """Tokens, two of the four padded in row 0; knows it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 5), nn.Linear(5, 2)
        self.score = nn.MultiheadAttention(5, 1, batch_first=True)
        self.asked = 0

    def positions(self, inputs: Tensor) -> Tensor:
        self.asked += 1
        return inputs > 0

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.embed(inputs).mean(1))


TOKENS = Batch(torch.tensor([[1, 2, 0, 0], [3, 4, 5, 6]]))


def test_a_model_that_knows_its_mask_tells_it_for_taps_over_tokens_alone():
    net = Reader()
    signal = observe(net, TOKENS, frozenset({"embed", "head", "head:in"}))
    assert set(signal.masks) == {"embed"}
    assert signal.masks["embed"].tolist() == [[True, True, False, False], [True, True, True, True]]
    assert net.asked == 1


def test_a_mask_is_not_asked_for_where_no_tap_has_tokens():
    net = Reader()
    assert not observe(net, TOKENS, frozenset({"head"})).masks
    assert net.asked == 0


class Places(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.positions(inputs)


def test_a_layer_that_is_called_positions_is_no_mask():
    signal = observe(Places(), Batch(torch.zeros(2, 4, 3)), frozenset({"positions"}))
    assert signal.taps["positions"].shape == (2, 4, 3)
    assert not signal.masks
