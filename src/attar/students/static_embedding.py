"""Static vectors: each token has one, and a text is their weighted mean: what an encoder knows of words, for the price of a look-up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attar.ends import Head, at_least, seeded
from attar.errors import StudentError
from attar.notation import InPath, say
from attar.pretrained.text import Encoder, Pool, load_body, open_folder
from attar.pretrained.transformer import Transformer, need_texts
from attar.reading import TextModel, Tokens
from attar.signal import Schema
from attar.statistics.components import principal_components

__all__ = ["Static", "StaticEmbedding", "rank_weights", "static_embedding", "token_vectors"]

AT_ONCE = 1024  # tokens in one question to the encoder
SIF = 1e-4


def static_embedding(
    builder: Transformer, dimensions: int = 256, vocabulary: InPath | None = None, hidden: int = 0, max_length: int = 512
) -> Static:
    """Σ wᵢ vᵢ / n over the n tokens of a text: (B, K, dimensions) vectors for embeddings, else a head over them, (B, C) logits.

    builder: `hf(folder)` of a sentence encoder, which is asked once for each token of its vocabulary.
    dimensions: of the vectors, principal components of those answers.
    vocabulary: a file of text, or a folder of such, whose tokens alone have vectors; the others are left out of the mean.
    hidden: width of one hidden layer of the head; 0 makes it linear.
    max_length: tokens of a text. They cost next to nothing.

    It begins as Model2Vec's recipe has it (MinishLab/model2vec): [CLS] token [SEP] through the encoder, the mean of its states, PCA, and a
    weight a / (a + p) for each token (SIF, Arora 2017), p by Zipf's law ∝ 1 / (rank + 2), the rank being the token's place in the
    vocabulary and a = 1e-4. So it begins where Model2Vec ends: of all-MiniLM-L6-v2, Spearman's ρ on the test pairs of STS-B is .638, .661
    and .662 at 128, 256 and 384 dimensions, as model2vec 0.10 has it. Vectors and weights then learn from the teacher. Special tokens begin
    at zero. No order of words is seen: "not good, bad" is "not bad, good".

    Of a teacher with more coordinates, `pca(teacher, dimensions=256)` gives as many as the student has.
    Raises StudentError for more dimensions than the encoder has, or a builder that begins from chance.

    >>> static_embedding(hf("folder"), dimensions=128)                                 # doctest: +SKIP
    static_embedding(hf("folder", max_length=128, freeze=0), dimensions=128, hidden=0, max_length=512)
    """
    at_least("static_embedding", dimensions=(dimensions, 1), hidden=(hidden, 0), max_length=(max_length, 1))
    if builder.path is None:
        raise StudentError(f"static_embedding({builder!r}): weights of chance know no words", hint="hf(folder) of a sentence encoder")
    if builder.freeze:
        raise StudentError(f"static_embedding({builder!r}): there are no layers to freeze in it", hint="leave freeze out")
    return Static(builder if vocabulary is None else replace(builder, vocabulary=vocabulary), dimensions, hidden, max_length)


@dataclass(frozen=True, repr=False)
class Static:
    """See `static_embedding`; called with (schema, seed) it builds. The vocabulary is the builder's."""

    builder: Transformer
    dimensions: int = 256
    hidden: int = 0
    max_length: int = 512
    _readings: dict[int, Tokens] = field(default_factory=dict, init=False, compare=False)

    def __repr__(self) -> str:
        return say("static_embedding", self.builder, dimensions=self.dimensions, hidden=self.hidden, max_length=self.max_length)

    def __call__(self, schema: Schema, seed: int) -> TextModel:
        need_texts(self, schema)
        folder = self.builder.folder
        if self.dimensions > folder.width:
            raise StudentError(f"{self!r}: {folder.path} answers {folder.width} coordinates", hint=f"dimensions={folder.width}")
        vectors = _started(folder.path, folder.digest, self.builder.kept, self.dimensions)
        with seeded(seed):
            head = None if schema.embeds else self._head(schema)
            return TextModel(self.reading(), StaticEmbedding(*vectors, head), schema.texts, each=schema.embeds)

    def reading(self) -> Tokens:
        """Tokens without [CLS] and its like; the same object each time."""
        if not self._readings:
            kept, definition = self.builder.kept, self.builder.definition
            unknown = 0 if kept is None else kept.index(self.builder.unknown)
            names = ("input_ids", "attention_mask")
            self._readings[0] = Tokens(definition, self.max_length, names, special=False, kept=kept, unknown=unknown)
        return self._readings[0]

    def _head(self, schema: Schema) -> nn.Module:
        if not self.hidden:
            return Head(self.dimensions, schema)
        return nn.Sequential(nn.Linear(self.dimensions, self.hidden), nn.ReLU(), Head(self.hidden, schema))


class StaticEmbedding(nn.Module):
    """Tokens (N, L) → the mean of their weighted vectors (N, D), or what `head` makes of it.

    vectors: (V, D) at the start. weights: (V,) at the start.
    """

    def __init__(self, vectors: Tensor, weights: Tensor, head: nn.Module | None = None) -> None:
        super().__init__()
        self.vectors, self.weights = nn.Parameter(vectors.clone()), nn.Parameter(weights.clone())
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        there = attention_mask.to(self.weights.dtype)  # (N, L)
        share = there * self.weights[input_ids] / there.sum(1, keepdim=True).clamp(min=1)
        pooled = torch.bmm(share.unsqueeze(1), self.vectors[input_ids]).squeeze(1)  # (N, D)
        return pooled if self.head is None else self.head(pooled)


@lru_cache(maxsize=4)
def _started(path: str, mark: str, kept: tuple[int, ...] | None, dimensions: int) -> tuple[Tensor, Tensor]:
    """(V, dimensions) vectors and (V,) weights at the start; of special tokens zero. mark: the folder's digest."""
    vectors, special = token_vectors(path, mark, kept)
    words = np.flatnonzero(~special)
    found = principal_components(vectors[words], dimensions)
    placed = np.zeros((len(vectors), dimensions), dtype=np.float32)
    placed[words] = (vectors[words] - found.mean) @ found.directions.T
    weights = np.zeros(len(vectors), dtype=np.float32)
    weights[words] = rank_weights(len(words))
    return torch.from_numpy(placed), torch.from_numpy(weights)


@lru_cache(maxsize=2)
def token_vectors(path: str, mark: str, kept: tuple[int, ...] | None) -> tuple[NDArray, NDArray]:
    """What the encoder in a folder answers to each token by itself: (V, D) float32, and (V,) bool which tokens are no words.

    A token stands between the tokens that the tokenizer adds to any text, [CLS] and [SEP]; the mean is over all of them.
    Computed once in a process: some 15 seconds for the 30,522 tokens of MiniLM.
    """
    folder = open_folder(path)
    tokens = Tokens(folder.tokenizer)
    known = tokens.tokenizer.get_added_tokens_decoder()
    ids = np.arange(tokens.vocabulary) if kept is None else np.asarray(kept)
    frame = tokens.tokenizer.encode("").ids  # what is added to nothing
    middle = (len(frame) + 1) // 2
    rows = np.concatenate([np.tile(frame[:middle], (len(ids), 1)), ids[:, None], np.tile(frame[middle:], (len(ids), 1))], axis=1).astype(
        np.int64
    )
    encoder = Encoder(load_body(folder), Pool("mean", False)).eval()
    with torch.no_grad():
        pieces = [encoder(piece, torch.ones_like(piece)) for piece in torch.from_numpy(rows).split(AT_ONCE)]
    named = [tokens.tokenizer.id_to_token(int(i)) for i in ids]
    special = [name is None or name.startswith("[unused") for name in named]
    for place, token in enumerate(ids.tolist()):
        special[place] |= token in known and known[token].special
    return torch.cat(pieces).numpy(), np.array(special)


def rank_weights(count: int) -> NDArray:
    """(count,) SIF weights a / (a + p) of tokens by their rank, p ∝ 1 / (rank + 2): near 0 for the most frequent, near 1 for the rarest.

    >>> rank_weights(30000)[[0, 10, 1000, 29999]].round(3)
    array([0.002, 0.012, 0.498, 0.967])
    """
    p = 1 / (np.arange(count) + 2.0)
    p /= p.sum()
    return SIF / (SIF + p)
