"""A linear model over hashed word n-grams: the honest, cheap competitor of whatever reads text."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from attar.ends import at_least, seeded
from attar.errors import StudentError
from attar.notation import say
from attar.pretrained.transformer import need_texts
from attar.reading import Bags, TextModel
from attar.signal import Schema

__all__ = ["Ngrams", "ngrams"]

START = 1e-3  # spread of initial weights: so small that a word never seen in training says nothing


def ngrams(buckets: int = 1 << 18, words: int = 2) -> Ngrams:
    """A weight for each word and each row of words up to `words` long, hashed: texts → (B, C) logits.

    buckets: how many weights an outcome has; what falls into one bucket shares it. words: length of the longest n-gram.

    Each n-gram counts once, and the sum is divided by √ of their number: the row has length 1, as TF-IDF makes it. What IDF is for, rare
    n-grams being heard beside frequent ones, the optimiser does, which scales each weight's step by itself: on VADER's film snippets, 6,500
    to learn from and fit(epochs=20, lr=2e-2), it decides 78.7 % right, and 79.4 % by single words, where scikit-learn's TF-IDF and logistic
    regression decide 77.5 % (C = 1) or 78.9 % (C = 10), and 77.5 % or 78.5 % by single words; three splits each. It wants a rate of 5e-3
    to 5e-2. Needs no tokenizer, no library and no pretrained weights; its answer takes microseconds. It makes no vectors of texts: for
    embeddings there is `static_embedding`.

    >>> from attar.signal import Texts
    >>> student = ngrams(buckets=64, words=1)(Schema("text", texts=("text",), classes=("no", "yes")), 0)
    >>> student({"text": Texts(["good", "not so good", ""])}).shape
    torch.Size([3, 2])
    """
    at_least("ngrams", buckets=(buckets, 1), words=(words, 1))
    return Ngrams(buckets, words)


@dataclass(frozen=True, repr=False)
class Ngrams:
    """See `ngrams`; called with (schema, seed) it builds."""

    buckets: int = 1 << 18
    words: int = 2
    _readings: dict[int, Bags] = field(default_factory=dict, init=False, compare=False)

    def __repr__(self) -> str:
        return say("ngrams", buckets=self.buckets, words=self.words)

    def __call__(self, schema: Schema, seed: int) -> TextModel:
        need_texts(self, schema)
        if schema.embeds:
            raise StudentError(f"{self!r} answers logits, the data ask for vectors", hint="static_embedding(hf(folder)) answers vectors")
        reading = self._readings.setdefault(0, Bags(self.buckets, self.words))
        with seeded(seed):
            return TextModel(reading, LinearBag(self.buckets, schema), schema.texts)


class LinearBag(nn.Module):
    """Ids of n-grams → the sum of their weights over √ of their number, and a bias: (N, L) int64 → (N, C)."""

    mean: Tensor
    std: Tensor

    def __init__(self, buckets: int, schema: Schema) -> None:
        super().__init__()
        outcomes = max(1, len(schema.classes))
        self.weight = nn.Parameter(torch.randn(buckets + 1, outcomes) * START)
        self.bias = nn.Parameter(torch.zeros(outcomes))
        self.numeric = not schema.classes
        if self.numeric:
            self.register_buffer("mean", torch.tensor(schema.label_mean))
            self.register_buffer("std", torch.tensor(schema.label_std if schema.label_std > 0 else 1.0))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        there = attention_mask.to(self.weight.dtype)  # (N, L)
        total = torch.bmm(there.unsqueeze(1), self.weight[input_ids]).squeeze(1)  # (N, C)
        output = total / there.sum(1, keepdim=True).clamp(min=1).sqrt() + self.bias
        return output * self.std + self.mean if self.numeric else output
