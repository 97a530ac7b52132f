"""Reading text: raw strings → the integers one model was made for, made once for each text, and what carries them to a network."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from attar.errors import MissingExtra, TeacherError
from attar.identity import digest
from attar.signal import Inputs

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TOKENIZER", "Bags", "Remembers", "TextFeed", "TextModel", "TextReading", "Tokens", "text_reading_from"]

MEMO = 1_000_000  # texts whose integers are kept: 20 tokens of 4 bytes each are 0.1 GB with what Python adds
LETTERS = 64  # characters looked at for each token that is kept: no text of a million characters is tokenised for its first hundred words
AT_ONCE = 32  # texts a network is asked at a time: a thousand padded to the longest take a gigabyte, and wait
LEARNT_AT_ONCE = 16  # texts a network learns from at a time, on a CPU, where a call weighs less than what is padded
TOKENIZER = "tokenizer.json"

Row = tuple[str, ...]  # the texts of one row that are read together


@runtime_checkable
class TextReading(Protocol):
    """What turns texts into a model's own tensors. Frozen but for its memory of texts read before; shared by copies of a model.

    names: of the tensors, in the order of the exported graph's inputs; the first holds the tokens, `attention_mask` what is real.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def fingerprint(self) -> str: ...

    def arrays(self, rows: Sequence[Row], *, keep: bool = True) -> dict[str, np.ndarray]:
        """Rows of one text, or of two that are read as a pair → int64 arrays (N, L) by name, L of the longest.

        keep: remember what was read, and use what is remembered. A cost is measured without.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """What `text_reading_from` reads back, beside `files`."""
        ...

    def files(self) -> dict[str, bytes]:
        """What lies beside the graph, by file name."""
        ...


@dataclass(frozen=True, eq=False)
class Tokens:
    """A tokenizer of the library `tokenizers`: [CLS] and what else it adds, then tokens, cut at `max_length`.

    definition: the content of a tokenizer.json. max_length: tokens, added ones included; of a pair the longer text is cut first.
    names: the tensors a model takes, of input_ids, attention_mask, token_type_ids. special: add [CLS] and its like.
    kept: ids of the tokenizer in the order of a smaller vocabulary, so that token kept[i] has the id i; one that is not kept becomes
        `unknown`, an id of the smaller vocabulary. None keeps all.
    """

    definition: str = field(repr=False)
    max_length: int = 128
    names: tuple[str, ...] = ("input_ids", "attention_mask")
    special: bool = True
    kept: tuple[int, ...] | None = field(default=None, repr=False)
    unknown: int = 0
    _memo: dict[Row, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def __deepcopy__(self, memo: object) -> Tokens:
        return self  # copies of a model share what was read

    def __getstate__(self) -> dict[str, Any]:
        held = dict(self.__dict__)
        held.pop("tokenizer", None)
        return held | {"_memo": {}}  # another process reads anew

    @property
    def fingerprint(self) -> str:
        return self._mark

    @cached_property
    def _mark(self) -> str:
        kept = None if self.kept is None else np.asarray(self.kept)
        return digest("tokens", self.definition, self.max_length, self.names, self.special, kept, self.unknown)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the library, cutting and not padding. Raises MissingExtra, TeacherError for a definition that does not read."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtra("tokenizers", "text") from error
        try:
            made = Tokenizer.from_str(self.definition)
        except Exception as error:  # the library raises plain Exception for whatever is wrong
            raise TeacherError(f"a {TOKENIZER} that does not read: {error}", hint="copy it again from where the model came from") from error
        made.no_padding()
        made.enable_truncation(self.max_length)
        return made

    @cached_property
    def vocabulary(self) -> int:
        """How many ids there are."""
        if self.kept is not None:
            return len(self.kept)
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def pad(self) -> int:
        """The id that fills up a row; masked, so that it matters to nobody but the embedding table's bounds."""
        said = json.loads(self.definition).get("padding") or {}
        known = [said["pad_token"]] if "pad_token" in said else ["[PAD]", "<pad>", "<|pad|>"]
        ids = [i for i in map(self.tokenizer.token_to_id, known) if i is not None]
        return self._small(np.array(ids[:1] or [0]))[0].item()

    @cached_property
    def _table(self) -> np.ndarray | None:
        if self.kept is None:
            return None
        table = np.full(max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1, self.unknown, dtype=np.int64)
        table[np.asarray(self.kept)] = np.arange(len(self.kept))
        return table

    def _small(self, ids: np.ndarray) -> np.ndarray:
        return ids if self._table is None else self._table[ids]

    def encode(self, rows: Sequence[Row]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(ids, type ids) of each row, int32; read anew."""
        bound = LETTERS * self.max_length
        cut = [tuple(text[:bound] for text in row) for row in rows]
        asked = [row[0] if len(row) == 1 else (row[0], row[1]) for row in cut]
        found = self.tokenizer.encode_batch_fast(asked, add_special_tokens=self.special)  # without places in the text
        return [(self._small(np.array(e.ids, dtype=np.int32)).astype(np.int32), np.array(e.type_ids, dtype=np.int32)) for e in found]

    def arrays(self, rows: Sequence[Row], *, keep: bool = True) -> dict[str, np.ndarray]:
        if any(len(row) > 2 for row in rows[:1]):
            raise TeacherError(f"{len(rows[0])} texts in a row, read together", hint="a tokenizer joins two at most: name fewer texts")
        found = _remembered(self._memo, rows, self.encode) if keep else self.encode(rows)
        length = max((len(ids) for ids, _ in found), default=0) or 1
        ids = np.full((len(rows), length), self.pad, dtype=np.int64)
        mask, types = np.zeros((2, len(rows), length), dtype=np.int64)
        for i, (tokens, kinds) in enumerate(found):
            ids[i, : len(tokens)], mask[i, : len(tokens)], types[i, : len(tokens)] = tokens, 1, kinds
        made = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: made[name] for name in self.names}

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "tokens",
            "file": TOKENIZER,
            "max_length": self.max_length,
            "names": list(self.names),
            "special": self.special,
            "kept": None if self.kept is None else list(self.kept),
            "unknown": self.unknown,
        }

    def files(self) -> dict[str, bytes]:
        return {TOKENIZER: self.definition.encode()}


@dataclass(frozen=True, eq=False)
class Bags:
    """Word n-grams hashed into buckets: what a linear model of text reads. Needs no vocabulary, no library and no training.

    buckets: ids 1..buckets; 0 fills up. words: n-grams of up to so many words. max_length: n-grams kept of one row; each counts once.
    A word is a run of letters, digits and apostrophes, lower case, or one other sign. Of a pair each text's n-grams are its own.
    """

    buckets: int = 1 << 18
    words: int = 2
    max_length: int = 512
    _memo: dict[Row, np.ndarray] = field(default_factory=dict, repr=False)

    names = ("input_ids", "attention_mask")

    def __deepcopy__(self, memo: object) -> Bags:
        return self

    @property
    def fingerprint(self) -> str:
        return digest("bags", self.buckets, self.words, self.max_length)

    def encode(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Bucket ids of each row, int32, each once, in the order they come."""
        found = []
        for row in rows:
            grams: dict[str, None] = {}
            for place, text in enumerate(row):
                words = _WORD.findall(text[: LETTERS * self.max_length].lower())[: self.max_length]
                for n in range(1, self.words + 1):
                    grams.update(dict.fromkeys(f"{place} {' '.join(words[i : i + n])}" for i in range(len(words) - n + 1)))
            ids = dict.fromkeys(1 + _hash(gram) % self.buckets for gram in grams)
            found.append(np.array(list(ids)[: self.max_length], dtype=np.int32))
        return found

    def arrays(self, rows: Sequence[Row], *, keep: bool = True) -> dict[str, np.ndarray]:
        found = _remembered(self._memo, rows, self.encode) if keep else self.encode(rows)
        length = max(map(len, found), default=0) or 1
        ids = np.zeros((len(rows), length), dtype=np.int64)
        for i, bag in enumerate(found):
            ids[i, : len(bag)] = bag
        return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}

    def to_json(self) -> dict[str, Any]:
        return {"kind": "bags", "buckets": self.buckets, "words": self.words, "max_length": self.max_length}

    def files(self) -> dict[str, bytes]:
        return {}


@dataclass(frozen=True, eq=False)
class TextFeed:
    """What of a row is read together, and whose answer it is: the way from a batch's texts to a graph's tensors and back.

    names: of the texts of a row, in order (Schema.texts).
    each: whether every text of a row is answered by itself: (B, K, D), zeros where a text is not there. Otherwise the texts of a row
        are read together, as one or as a pair: (B, C).
    """

    reading: TextReading
    names: tuple[str, ...] = ("text",)
    each: bool = False

    def rows(self, inputs: Inputs) -> list[Row]:
        """What is read, one entry for each answer: rows; with `each` the texts that are there, row by row."""
        columns = self._columns(inputs)
        if self.each:
            return [(text,) for row in zip(*columns, strict=True) for text in row if text]
        return list(zip(*columns, strict=True))

    def arrays(self, inputs: Inputs, *, keep: bool = True) -> dict[str, np.ndarray]:
        """`rows` as int64 arrays (N, L) by name; `keep=False` reads them anew, as a cost is measured."""
        return self.reading.arrays(self.rows(inputs), keep=keep)

    def pieces(self, inputs: Inputs) -> list[Tensor]:
        """Positions of rows, AT_ONCE in a piece and like lengths together: what is padded costs as what is not."""
        lengths = [sum(map(len, row)) for row in zip(*self._columns(inputs), strict=True)]
        return list(torch.tensor(lengths).argsort(stable=True).split(AT_ONCE))

    def spread(self, answers: Tensor, inputs: Inputs) -> Tensor:
        """(N, D) answers → (B, K, D) with `each`, zeros where a text is not there; otherwise as they are."""
        if not self.each:
            return answers
        there = torch.tensor([[bool(text) for text in row] for row in zip(*self._columns(inputs), strict=True)], device=answers.device)
        if bool(there.all()):
            return answers.reshape(*there.shape, -1)
        return answers.new_zeros(*there.shape, answers.shape[-1]).masked_scatter(there.unsqueeze(-1), answers)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads back, beside the reading's files."""
        return {"names": list(self.names), "each": self.each, "reading": self.reading.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], folder: Path) -> TextFeed:
        """What `to_json` described, its files in `folder`. Raises TeacherError where it does not read."""
        return cls(text_reading_from(value["reading"], folder), tuple(value["names"]), value["each"])

    def _columns(self, inputs: Inputs) -> list[Sequence[str]]:
        if isinstance(inputs, Tensor) or not set(self.names) <= set(inputs):
            there = "one tensor" if isinstance(inputs, Tensor) else ", ".join(map(repr, inputs))
            raise TeacherError(f"this model reads the texts {', '.join(map(repr, self.names))}, and is given {there}")
        return [list(inputs[name]) for name in self.names]


@runtime_checkable
class Remembers(Protocol):
    """A net that keeps what it computed before. anew: its forward, with nothing of that used."""

    def anew(self, **tensors: Tensor) -> Tensor: ...


class TextModel(nn.Module):
    """A network that reads text: `reading` makes its tensors of raw rows, `net` answers these.

    net: a module whose forward takes the reading's tensors by name, (N, L) int64, and answers (N, C) logits or (N, D) vectors, each text
        by itself: no statistics of a batch.
    names, each: see `TextFeed`, which it holds as `feed`.

    Takes `Batch.inputs`: {name: B texts}. The tokenizer is no part of its weights; an exported folder has it beside the graph.
    """

    def __init__(self, reading: TextReading, net: nn.Module, names: Sequence[str] = ("text",), *, each: bool = False) -> None:
        super().__init__()
        self.feed, self.net = TextFeed(reading, tuple(names), each), net

    @property
    def reading(self) -> TextReading:
        return self.feed.reading

    @property
    def names(self) -> tuple[str, ...]:
        return self.feed.names

    @property
    def each(self) -> bool:
        return self.feed.each

    def extra_repr(self) -> str:
        return f"reading={type(self.reading).__name__} {self.reading.fingerprint}, names={self.names}, each={self.each}"

    def tensors(self, inputs: Inputs, *, keep: bool = True) -> dict[str, Tensor]:
        """The texts as the net's tensors, on the net's device."""
        return self._read(self.feed.rows(inputs), keep=keep)

    def positions(self, inputs: Inputs) -> Tensor:
        """(N, L) bool: which tokens are real, for taps of token states."""
        return self.tensors(inputs)["attention_mask"].bool()

    def forward(self, inputs: Inputs) -> Tensor:
        return self.answer(inputs)

    def answer(self, inputs: Inputs, *, keep: bool = True) -> Tensor:
        """The forward; `keep=False` tokenises and computes all of it anew, as a cost is measured.

        Many texts are answered by pieces of like length where nothing is tapped: what is padded costs as what is not. Learning, too: a
        step of 64 film snippets through two layers of MiniLM takes 0.8 of its time on a CPU (`benchmarks/defaults.py`). An accelerator
        learns from all at once.
        """
        rows = self.feed.rows(inputs)
        net = self.net.anew if not keep and isinstance(self.net, Remembers) else self.net
        device = next(chain(self.net.parameters(), self.net.buffers()), torch.empty(0)).device
        size = LEARNT_AT_ONCE if torch.is_grad_enabled() else AT_ONCE
        if len(rows) <= size or (torch.is_grad_enabled() and device.type != "cpu") or self._tapped():
            return self.feed.spread(net(**self._read(rows, keep=keep)), inputs)
        order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
        pieces = [net(**self._read([rows[i] for i in order[k : k + size]], keep=keep)) for k in range(0, len(order), size)]
        answers = torch.cat(pieces)
        back = torch.empty(len(order), dtype=torch.long, device=answers.device)
        back[torch.tensor(order, device=answers.device)] = torch.arange(len(order), device=answers.device)
        return self.feed.spread(answers[back], inputs)

    def _read(self, rows: Sequence[Row], *, keep: bool) -> dict[str, Tensor]:
        device = next(chain(self.net.parameters(), self.net.buffers()), torch.empty(0)).device
        return {name: torch.from_numpy(a).to(device) for name, a in self.reading.arrays(rows, keep=keep).items()}

    def _tapped(self) -> bool:
        """Whether somebody listens inside, who wants one run for one question."""
        return any(m._forward_hooks or m._forward_pre_hooks for m in self.net.modules())


def text_reading_from(value: Mapping[str, Any], folder: Path) -> TextReading:
    """The reading that `to_json` described, its files in `folder`. Raises TeacherError where either does not read."""
    try:
        if value["kind"] == "bags":
            return Bags(value["buckets"], value["words"], value["max_length"])
        kept = value["kept"]
        return Tokens(
            (folder / value["file"]).read_text(encoding="utf-8"),
            value["max_length"],
            tuple(value["names"]),
            value["special"],
            None if kept is None else tuple(kept),
            value["unknown"],
        )
    except (KeyError, TypeError, OSError, UnicodeDecodeError) as error:
        raise TeacherError(f"the reading of {folder} does not read: {error}", hint="export again") from error


_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]")


def _hash(gram: str) -> int:
    return int.from_bytes(hashlib.blake2b(gram.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _remembered(memo: dict[Row, Any], rows: Sequence[Row], encode: Any) -> list[Any]:
    """`encode` of each row, asked once for each that is new."""
    new = list(dict.fromkeys(row for row in rows if row not in memo))
    made = dict(zip(new, encode(new), strict=True)) if new else {}
    if len(memo) + len(made) <= MEMO:
        memo.update(made)
        return [memo[row] for row in rows]
    return [made[row] if row in made else memo[row] for row in rows]
