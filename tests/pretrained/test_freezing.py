"""Frozen layers answer as they would unfrozen, once for each text, and belong to nobody's state."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attar.errors import StudentError
from attar.pretrained.freezing import FrozenEncoder
from attar.reading import TextModel
from attar.signal import Batch, Schema, Texts
from attar.students import hf
from attar.tap import observe
from attar.testing.folders import small_folder

WORDS = [f"w{i}" for i in range(20)]
SCHEMA = Schema("text", texts=("text",), classes=("bad", "good"))
ROWS = {"text": Texts(["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w1", "w4", ""])}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(small_folder(tmp_path / "model", WORDS, layers=3))


def frozen(path: str, layers: int, seed: int = 0) -> tuple[TextModel, FrozenEncoder]:
    model = hf(path, max_length=20, freeze=layers)(SCHEMA, seed)
    assert isinstance(model.net, FrozenEncoder)
    return model, model.net


@pytest.mark.parametrize("config", ["bert", "distilbert", "electra", "roberta"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_frozen_layers_answer_as_the_whole_does(config: str, layers: int, tmp_path: Path) -> None:
    path = str(small_folder(tmp_path / "model", WORDS, layers=3, config=config))
    whole = hf(path, max_length=20)(SCHEMA, 0).eval()
    model, _ = frozen(path, layers)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ROWS), whole(ROWS), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(ROWS), whole(ROWS), rtol=1e-4, atol=1e-5)  # as remembered
        torch.testing.assert_close(model.answer(ROWS, keep=False), whole(ROWS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_embedding_of_a_frozen_encoder_is_that_of_the_whole(layers: int, path: str) -> None:
    tap = frozenset({"embedding"})
    whole, model = hf(path, max_length=20)(SCHEMA, 0).eval(), frozen(path, layers)[0].eval()
    with torch.no_grad():
        found, expected = (observe(net, Batch(ROWS), tap).taps["embedding"] for net in (model, whole))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [2, 3])
def test_each_text_goes_through_the_frozen_layers_once(layers: int, path: str) -> None:
    model, net = frozen(path, layers)
    asked: list[int] = []

    def note(module: nn.Module, args: object, kwargs: dict[str, Tensor]) -> None:
        asked.append(len(kwargs["input_ids"]))

    net.lower.body.register_forward_pre_hook(note, with_kwargs=True)
    model(ROWS)
    model(ROWS)
    other, _ = frozen(path, layers, seed=1)
    other(ROWS)  # another model of the same folder shares what was computed
    assert asked == [1] * 4  # "w4" comes twice
    model.answer(ROWS, keep=False)
    assert asked == [*[1] * 4, 5]  # a cost is measured on all rows, anew


def test_what_is_remembered_is_the_same_to_the_last_bit_whoever_was_asked_beside_it(tmp_path: Path) -> None:
    _, net = frozen(str(small_folder(tmp_path / "model", WORDS, layers=3, width=128, heads=4)), 2)
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 20, (40,), generator=draw)
    mask = (torch.arange(20) < lengths[:, None]).long()
    ids = torch.randint(4, 20, (40, 20), generator=draw) * mask

    def remembered(steps: int) -> dict[bytes, Tensor]:
        net.lower.memo.clear()
        for some in torch.arange(40).split(steps):
            net.lower(ids[some], mask[some], None, keep=True)
        return dict(net.lower.memo)

    first, again = remembered(40), remembered(1)  # as by a training that was killed, and goes on with nothing remembered
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_what_is_remembered_is_of_full_precision_in_a_training_of_half_of_it(path: str) -> None:
    _, net = frozen(path, 2)
    ids, mask = torch.tensor([[2, 5, 9, 3]]), torch.ones(1, 4, dtype=torch.long)
    net.lower.memo.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net.lower(ids, mask, None, keep=True)
    torch.testing.assert_close(net.lower(ids, mask, None, keep=True), net.lower(ids, mask, None, keep=False), rtol=1e-5, atol=1e-5)


def test_only_what_is_not_frozen_learns(path: str) -> None:
    model, net = frozen(path, 2)
    before = [p.clone() for p in net.lower.parameters()]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    nn.functional.cross_entropy(model(ROWS), torch.tensor([0, 1, 0, 1, 0])).backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(before, net.lower.parameters(), strict=True))


def test_frozen_layers_do_not_drop_out(path: str) -> None:
    model, net = frozen(path, 3)
    model.train()
    assert not any(part.training for part in net.lower.modules())
    assert torch.equal(model(ROWS), model(ROWS))


def test_a_state_holds_what_was_learnt_and_a_mark_of_the_rest(path: str) -> None:
    model, _ = frozen(path, 3)
    assert sorted(model.state_dict()) == ["net.head.linear.bias", "net.head.linear.weight", "net.lower.mark"]
    other, _ = frozen(path, 3, seed=1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(ROWS), model(ROWS))
    with pytest.raises(RuntimeError, match="net.head.linear.bias"):
        other.load_state_dict({name: value for name, value in model.state_dict().items() if "bias" not in name})


def test_a_state_of_another_folder_is_refused(path: str, tmp_path: Path) -> None:
    state = frozen(path, 3)[0].state_dict()
    other, _ = frozen(str(small_folder(tmp_path / "other", WORDS, layers=3, seed=1)), 3)
    with pytest.raises(StudentError, match="not those that this was taught with"):
        other.load_state_dict(state)


def test_a_copy_shares_the_frozen_part_and_not_the_rest(path: str) -> None:
    model, net = frozen(path, 2)
    twin = copy.deepcopy(model)
    assert isinstance(twin.net, FrozenEncoder)
    assert twin.net.lower is net.lower
    assert twin.net.head is not net.head


def test_more_layers_than_there_are_are_refused(path: str) -> None:
    with pytest.raises(StudentError, match="has 3 layers\nhint: freeze=3 leaves the head alone to learn"):
        hf(path, max_length=20, freeze=4)(SCHEMA, 0)
    with pytest.raises(StudentError, match="nothing is left to learn"):
        hf(path, max_length=20, freeze=3)(Schema("text", texts=("a", "b"), embeds=True), 0)
