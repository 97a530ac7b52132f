"""Small texts and models that read them: made in milliseconds, and no library is needed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from attar.data.base import Data, Memory, assemble
from attar.reading import Bags, TextModel
from attar.signal import IGNORE, Schema, Texts

__all__ = ["SmallNet", "small_pairs", "small_text_model", "small_text_teacher", "small_texts"]

TOPICS = ("sea", "wood", "town", "field")
WORDS = {topic: tuple(f"{topic}{i}" for i in range(6)) for topic in TOPICS}
COMMON = tuple(f"the{i}" for i in range(6))


def small_texts(rows: int = 400, *, labelled: float = 1.0, seed: int = 0) -> Data:
    """Rows of one text of 3 to 9 words about the sea or the wood, a quarter in each split. labelled: the share whose class is known."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    texts = [_sentence(rng, TOPICS[y], TOPICS[1 - y]) for y in labels]
    schema = Schema("text", texts=("text",), classes=("sea", "wood"), label="about")
    known = torch.from_numpy(np.where(rng.random(rows) < labelled, labels, IGNORE))
    return _data(schema, "classification", known, {"text": Texts(texts)})


def small_pairs(rows: int = 400, *, labelled: float = 1.0, seed: int = 0) -> Data:
    """Rows of two texts to be embedded, with a score of 0 to 5: from 3 where they are about the same; a quarter in each split."""
    rng = np.random.default_rng(seed)
    pairs, scores = [], []
    for _ in range(rows):
        first = rng.integers(4)
        second = first if rng.random() < 0.5 else rng.integers(4)
        pairs.append([_sentence(rng, TOPICS[topic], TOPICS[rng.integers(4)]) for topic in (first, second)])
        scores.append(3 * (first == second) + 2 * rng.random())
    known = np.where(rng.random(rows) < labelled, scores, np.nan).astype(np.float32)
    mean, std = (float(np.nanmean(known)), float(np.nanstd(known))) if labelled else (0.0, 1.0)
    schema = Schema("text", texts=("one", "two"), embeds=True, label="score", label_mean=mean, label_std=std)
    blocks = {name: Texts([pair[i] for pair in pairs]) for i, name in enumerate(schema.texts)}
    return _data(schema, "embedding", torch.from_numpy(known), blocks)


class SmallNet(nn.Module):
    """The mean of word vectors, one layer, and as many answers: `words` sees (N, L, 12), `body` (N, 12)."""

    def __init__(self, buckets: int, answers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(buckets + 1, 12, padding_idx=0)
        self.body = nn.Linear(12, 12)
        self.head = nn.Linear(12, answers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask.unsqueeze(-1).to(torch.float32)
        mean = (self.words(input_ids) * real).sum(1) / real.sum(1).clamp(min=1)
        return self.head(torch.relu(self.body(mean)))


def small_text_model(schema: Schema, seed: int = 0, *, answers: int = 0, buckets: int = 128) -> TextModel:
    """A builder of students and teachers of texts. answers: coordinates or classes; 0: the data's classes, 8 coordinates."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        net = SmallNet(buckets, answers or len(schema.classes) or 8)
    return TextModel(Bags(buckets=buckets, words=1, max_length=16), net, schema.texts, each=schema.embeds)


def small_text_teacher(schema: Schema, *, answers: int = 0) -> TextModel:
    """A model that knows each word's topic: the share of words about the sea, the wood, … is its vector; of classes 8 times that."""
    model = small_text_model(schema, answers=answers, buckets=4096)
    net = model.net
    assert isinstance(net, SmallNet)
    with torch.no_grad():
        for weight in (net.words.weight, net.body.weight, net.head.weight, net.body.bias, net.head.bias):
            weight.zero_()
        for at, words in enumerate(WORDS.values()):
            for word in words:
                net.words.weight[model.reading.arrays([(word,)])["input_ids"][0, 0], at] = 1.0
        net.body.weight.copy_(torch.eye(12))
        net.head.weight.copy_(torch.eye(len(net.head.weight), 12) * (8.0 if schema.classes else 1.0))
    return model.eval()


def _sentence(rng: np.random.Generator, *topics: str) -> str:
    """Words of the first topic more often than of the others."""
    count = rng.integers(3, 10)
    chosen = [topics[0] if rng.random() < 0.7 else topics[rng.integers(len(topics))] for _ in range(count)]
    return " ".join(rng.choice(WORDS[topic]) if rng.random() < 0.8 else rng.choice(COMMON) for topic in chosen)


def _data(schema: Schema, kind: Literal["classification", "embedding"], labels: Tensor, inputs: dict[str, Texts]) -> Data:
    rows = len(labels)
    return assemble(
        schema=schema,
        kind=kind,
        ids=np.arange(rows),
        labels=labels,
        weight=None,
        part=np.arange(rows) % 4,
        rows=lambda at: Memory(inputs).take(at),
    )
