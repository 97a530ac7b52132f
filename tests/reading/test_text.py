"""Texts become a model's own integers, once; rows come back in their order, whatever was read in pieces."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attar.errors import TeacherError
from attar.reading import Bags, Remembers, TextFeed, TextModel, TextReading, Tokens, text_reading_from
from attar.reading.text import AT_ONCE, LEARNT_AT_ONCE
from attar.signal import Texts
from attar.testing.folders import small_folder

WORDS = [f"w{i}" for i in range(40)]
UNKNOWN, BEGIN, END = 1, 2, 3


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> str:
    at = small_folder(tmp_path_factory.mktemp("folder") / "model", WORDS)
    return (at / "tokenizer.json").read_text(encoding="utf-8")


def word(i: int) -> int:
    return 4 + i


def test_tokens_are_framed_padded_and_masked(definition: str) -> None:
    arrays = Tokens(definition, 16).arrays([("w0 w1",), ("",), ("W2 never w3 w4",)])
    assert arrays["input_ids"].tolist() == [
        [BEGIN, word(0), word(1), END, 0, 0],
        [BEGIN, END, 0, 0, 0, 0],
        [BEGIN, word(2), UNKNOWN, word(3), word(4), END],
    ]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1] * 6]
    assert arrays["input_ids"].dtype == np.int64


def test_a_pair_has_types_and_the_longer_text_is_cut_first(definition: str) -> None:
    reading = Tokens(definition, 8, ("input_ids", "attention_mask", "token_type_ids"))
    arrays = reading.arrays([("w0 w1 w2 w3 w4 w5 w6", "w7 w8")])
    assert arrays["input_ids"].tolist() == [[BEGIN, word(0), word(1), word(2), END, word(7), word(8), END]]
    assert arrays["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]]
    with pytest.raises(TeacherError, match="3 texts in a row"):
        reading.arrays([("a", "b", "c")])


def test_without_special_tokens_words_alone_are_left(definition: str) -> None:
    assert Tokens(definition, 16, special=False).arrays([("w0 w1",), ("",)])["input_ids"].tolist() == [[word(0), word(1)], [0, 0]]


def test_a_smaller_vocabulary_renumbers_and_knows_no_other_word(definition: str) -> None:
    reading = Tokens(definition, 16, kept=(0, UNKNOWN, BEGIN, END, word(5), word(9)), unknown=1)
    assert reading.vocabulary == 6
    assert reading.arrays([("w9 w5 w6",)])["input_ids"].tolist() == [[2, 5, 4, 1, 3]]


def test_what_was_read_is_remembered_and_a_cost_is_not(definition: str) -> None:
    reading = Tokens(definition, 16)
    first = reading.arrays([("w0",), ("w0",), ("w1",)])
    assert len(reading._memo) == 2  # pyright: ignore[reportPrivateUsage] that nothing is kept twice cannot be seen from outside
    assert all(np.array_equal(first[n], reading.arrays([("w0",), ("w0",), ("w1",)])[n]) for n in first)
    reading.arrays([("w7",)], keep=False)
    assert len(reading._memo) == 2  # pyright: ignore[reportPrivateUsage] that nothing is kept twice cannot be seen from outside


def test_copies_share_what_was_read_and_processes_do_not(definition: str) -> None:
    reading = Tokens(definition, 16)
    reading.arrays([("w0",)])
    assert copy.deepcopy(reading) is reading
    sent = pickle.loads(pickle.dumps(reading))
    assert sent.fingerprint == reading.fingerprint
    assert np.array_equal(sent.arrays([("w0",)])["input_ids"], reading.arrays([("w0",)])["input_ids"])


def test_the_fingerprint_follows_all_that_changes_what_is_read(definition: str) -> None:
    readings: list[TextReading] = [
        Tokens(definition, 16), Tokens(definition, 17), Tokens(definition, 16, special=False), Tokens(definition, 16, kept=(0, 1)),
        Tokens(definition, 16, kept=(0, 1), unknown=1), Tokens(definition.replace('"w0"', '"w00"'), 16),
        Bags(64, 1), Bags(64, 2), Bags(65, 1), Bags(64, 1, 3),
    ]  # fmt: skip
    assert len({reading.fingerprint for reading in readings}) == len(readings)
    assert Tokens(definition, 16).fingerprint == Tokens(definition, 16).fingerprint


@pytest.mark.parametrize("odd", ["\x00", "a\x00b", "\ud800", "é" * 3, "🙂 w0", "\n\t ", "w0 " * 300_000])
def test_odd_texts_are_read(definition: str, odd: str) -> None:
    if "\ud800" not in odd:  # half of a sign, which no file of UTF-8 holds
        assert Tokens(definition, 16).arrays([(odd,)])["input_ids"].shape[1] <= 16
    assert Bags(64, 2, 16).arrays([(odd,)])["input_ids"].shape[1] <= 16


def test_a_tokenizer_that_does_not_read_says_so() -> None:
    with pytest.raises(TeacherError, match=r"a tokenizer\.json that does not read"):
        Tokens("{}").arrays([("a",)])


def test_bags_count_each_ngram_once_and_keep_the_texts_of_a_pair_apart() -> None:
    bags = Bags(1 << 20, 2)
    assert [len(bag) for bag in bags.encode([("a b",), ("a a a",), ("Don't stop!",), ("",)])] == [3, 2, 5, 0]
    assert not set(bags.encode([("a", "")])[0]) & set(bags.encode([("", "a")])[0])
    assert set(bags.encode([("good film",)])[0]) == set(bags.encode([("Good  FILM",)])[0])
    assert all((bags.encode([("a b c",)])[0] >= 1) & (bags.encode([("a b c",)])[0] <= 1 << 20))


@pytest.mark.parametrize("kind", ["tokens", "kept", "bags"])
def test_a_reading_lies_beside_its_graph_and_reads_back(kind: str, definition: str, tmp_path: Path) -> None:
    readings: dict[str, TextReading] = {
        "tokens": Tokens(definition, 16), "kept": Tokens(definition, 16, kept=(0, 1, 2, 3, 7), unknown=1), "bags": Bags(64, 2, 16),
    }  # fmt: skip
    reading = readings[kind]
    for name, content in reading.files().items():
        (tmp_path / name).write_bytes(content)
    back = text_reading_from(json.loads(json.dumps(reading.to_json())), tmp_path)
    rows = [("w3 w5",), ("w1",)]
    assert back.fingerprint == reading.fingerprint
    assert all(np.array_equal(a, back.arrays(rows)[n]) for n, a in reading.arrays(rows).items())
    if kind != "bags":
        (tmp_path / "tokenizer.json").unlink()
        with pytest.raises(TeacherError, match="does not read"):
            text_reading_from(reading.to_json(), tmp_path)


# ---------------------------------------------------------------------------------------------------------------------------- models


class Count(nn.Module):
    """How many tokens are real, and their sum; notes how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.asked: list[tuple[int, ...]] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.asked.append(tuple(input_ids.shape))
        return torch.stack((attention_mask.sum(1), (input_ids * attention_mask).sum(1)), 1) * self.weight


def many(rows: int) -> dict[str, Texts]:
    return {"text": Texts([" ".join(WORDS[: 1 + (7 * i) % 11]) for i in range(rows)])}


def test_many_rows_are_asked_by_pieces_of_like_length_and_answered_in_their_order(definition: str) -> None:
    model = TextModel(Tokens(definition, 32), Count())
    inputs = many(100)
    found = model(inputs)
    net = model.net
    assert isinstance(net, Count)
    assert len(net.asked) > 1
    assert sum(rows for rows, _ in net.asked) == 100
    assert sum(rows * length for rows, length in net.asked) < 100 * 13
    expected = torch.tensor([[len(text.split()) + 2, sum(model.reading.arrays([(text,)])["input_ids"][0])] for text in inputs["text"]])
    torch.testing.assert_close(found, expected.float())


def test_the_gradient_of_pieces_is_that_of_the_whole(definition: str) -> None:
    net = Count()
    model = TextModel(Tokens(definition, 32), net)
    (whole,) = torch.autograd.grad(net(**model.tensors(many(100)))[:, 1].sum(), net.weight)
    (pieces,) = torch.autograd.grad(model(many(100))[:, 1].sum(), net.weight)
    torch.testing.assert_close(whole, pieces)


def test_a_step_learns_from_smaller_pieces_than_a_question_asks(definition: str) -> None:
    net = Count()
    model = TextModel(Tokens(definition, 32), net)
    model(many(100))
    assert max(rows for rows, _ in net.asked) == LEARNT_AT_ONCE
    net.asked.clear()
    with torch.no_grad():
        model(many(100))
    assert max(rows for rows, _ in net.asked) == AT_ONCE


def test_who_listens_inside_hears_one_question(definition: str) -> None:
    model = TextModel(Tokens(definition, 32), nn.Sequential())
    model.net = nn.Module()
    model.net.add_module("inner", Count())
    model.net.forward = lambda **tensors: model.net.inner(**tensors)  # type: ignore[method-assign,operator] a forward put in by hand
    with torch.no_grad():
        model(many(100))
        inner = model.net.inner
        assert isinstance(inner, Count)
        before = len(inner.asked)
        hook = inner.register_forward_hook(lambda *_: None)
        model(many(100))
        hook.remove()
    pieces = math.ceil(100 / AT_ONCE)
    assert pieces > 1
    assert (before, len(inner.asked)) == (pieces, pieces + 1)


def test_each_text_of_a_row_is_answered_by_itself(definition: str) -> None:
    model = TextModel(Tokens(definition, 32), Count(), ("one", "two"), each=True)
    inputs = {"one": Texts(["w0", "", "w1 w2"]), "two": Texts(["w3 w4", "w5", ""])}
    assert model(inputs)[..., 0].tolist() == [[3, 4], [0, 3], [4, 0]]
    nobody = {"one": Texts(["", ""]), "two": Texts(["", ""])}
    assert model(nobody).tolist() == [[[0, 0], [0, 0]], [[0, 0], [0, 0]]]


def test_texts_that_are_missing_are_named(definition: str) -> None:
    model = TextModel(Tokens(definition, 32), Count(), ("one",))
    with pytest.raises(TeacherError, match="reads the texts 'one', and is given 'two'"):
        model({"two": Texts(["a"])})
    with pytest.raises(TeacherError, match="and is given one tensor"):
        model(torch.zeros(2))


class Keeps(Count):
    """A net that remembers: it says so by answering zeros."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return 0 * super().forward(input_ids, attention_mask)

    def anew(self, **tensors: Tensor) -> Tensor:
        return super().forward(**tensors)


@pytest.mark.parametrize("rows", [3, 100])
def test_a_cost_is_that_of_a_net_that_remembers_nothing(definition: str, rows: int) -> None:
    model = TextModel(Tokens(definition, 32), Keeps())
    assert isinstance(model.net, Remembers)
    with torch.no_grad():
        assert not model(many(rows)).any()
        torch.testing.assert_close(model.answer(many(rows), keep=False), TextModel(Tokens(definition, 32), Count())(many(rows)))


def test_a_feed_reads_back(definition: str, tmp_path: Path) -> None:
    feed = TextFeed(Tokens(definition, 16), ("one", "two"), True)
    (tmp_path / "tokenizer.json").write_text(definition, encoding="utf-8")
    back = TextFeed.from_json(json.loads(json.dumps(feed.to_json())), tmp_path)
    assert (back.names, back.each, back.reading.fingerprint) == (feed.names, feed.each, feed.reading.fingerprint)
