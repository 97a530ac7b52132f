"""A smaller copy of a pretrained encoder: some of its layers, heads, channels and tokens, with the weights they had."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from attar.ends import Head, at_least, seeded
from attar.errors import StudentError
from attar.notation import InPath, say
from attar.pretrained.text import Encoder, Pool, blocks_of, load_body, open_folder, pruned
from attar.pretrained.transformer import Transformer, need_texts
from attar.reading import TextModel
from attar.signal import Schema

__all__ = ["Shrunk", "shrink", "spread_over"]


def shrink(
    builder: Transformer,
    layers: int | list[int] | None = None,
    heads: int | None = None,
    width: int | None = None,
    vocabulary: InPath | None = None,
) -> Shrunk:
    """A smaller encoder that begins as part of `builder`'s: texts → (B, C) logits, or for embeddings (B, K, D) vectors.

    builder: `hf(folder)`.
    layers: which of the folder's, counted from 0, in order; or how many: then evenly spread from the first to the last, which for 6 of
        12 is DistilBERT's choice 0, 2, 4, 7, 9, 11 (arXiv:1910.01108, `extract_distilbert.py`).
    heads: of each layer, those that weigh most: by ‖W_V W_O‖, the size of the map that a head adds to its input.
    width: channels of the hidden states, those that weigh most, the same ones in all layers; the feed-forward part shrinks in proportion,
        to neurons of the largest ‖w_in‖ ‖w_out‖. A head keeps its own width.
    vocabulary: as of `hf`: a file of text, or a folder of such, whose tokens are kept.

    Layers are copied whole, so that fewer of them are close to the teacher from the start; heads and channels cut through every layer,
    and want longer training to be mended. Minitron (arXiv:2407.14679) weighs both by activations on rows of data; a builder has none and
    weighs by norms of weights, as pruning before it did. Normalisation over tokens of a sentence encoder is kept for embeddings.

    Raises StudentError for layers that are not there, more heads or channels than there are, an architecture whose parts are not known.

    >>> shrink(hf("folder"), layers=3)                                                 # doctest: +SKIP
    shrink(hf("folder", max_length=128, freeze=0), layers=3)
    """
    if builder.path is None:
        raise StudentError(f"shrink({builder!r}): nothing to begin from", hint="shrink(hf(folder)): a smaller config is shorter to write")
    if builder.freeze:
        raise StudentError(f"shrink({builder!r}): what is frozen cannot be mended", hint="leave freeze out")
    for name, value in (("heads", heads), ("width", width), ("layers", layers if isinstance(layers, int) else None)):
        if value is not None:
            at_least("shrink", **{name: (value, 1)})
    if isinstance(layers, list) and (not layers or sorted(set(layers)) != layers or layers[0] < 0):
        raise StudentError(f"shrink(layers={layers}): layers are counted from 0, each once, in order", hint="layers=[0, 2, 4]")
    return Shrunk(
        builder if vocabulary is None else replace(builder, vocabulary=vocabulary),
        tuple(layers) if isinstance(layers, list) else layers,
        heads,
        width,
    )


@dataclass(frozen=True, repr=False)
class Shrunk:
    """See `shrink`; called with (schema, seed) it builds. The vocabulary is the builder's."""

    builder: Transformer
    layers: int | tuple[int, ...] | None = None
    heads: int | None = None
    width: int | None = None

    def __repr__(self) -> str:
        return say("shrink", self.builder, layers=self.layers, heads=self.heads, width=self.width)

    def __call__(self, schema: Schema, seed: int) -> TextModel:
        need_texts(self, schema)
        folder = self.builder.folder
        width = self.width or folder.width
        with seeded(seed):  # new layers draw weights before they get those that they had
            body = copy.deepcopy(_cut(folder.path, folder.digest, self.builder.kept, self.layers, self.heads, self.width))
        with seeded(seed):
            head = None if schema.embeds else Head(width, schema)
            net = Encoder(body, Pool(folder.pooling, folder.normalised and schema.embeds), head)
            return self.builder.model(net, schema)


def spread_over(count: int, of: int) -> tuple[int, ...]:
    """`count` of the layers 0..of − 1, evenly spread from the first to the last; one alone is the first.

    >>> spread_over(6, 12), spread_over(3, 6)
    ((0, 2, 4, 7, 9, 11), (0, 2, 5))
    """
    return tuple(int(i) for i in np.linspace(0, of - 1, count).round())


@lru_cache(maxsize=8)
def _cut(
    path: str, mark: str, kept: tuple[int, ...] | None, layers: int | tuple[int, ...] | None, heads: int | None, width: int | None
) -> nn.Module:
    """The smaller encoder, cut once in a process. mark: the folder's digest, so that changed weights are cut anew."""
    body = pruned(load_body(open_folder(path)), kept)
    at, blocks = blocks_of(body, path)
    if layers is not None:
        blocks = _chosen(blocks, spread_over(layers, len(blocks)) if isinstance(layers, int) and layers <= len(blocks) else layers, path)
        parent, _, name = at.rpartition(".")
        body.get_submodule(parent).add_module(name, blocks)
    if heads is not None:
        for block in blocks:
            _keep_heads(_Parts.of(block, path), heads, path)
    if width is not None:
        _keep_channels(body, [_Parts.of(block, path) for block in blocks], width, path)
    return body


def _chosen(blocks: nn.ModuleList, layers: int | tuple[int, ...], path: str) -> nn.ModuleList:
    if isinstance(layers, int) or layers[-1] >= len(blocks):
        said = layers if isinstance(layers, int) else list(layers)
        raise StudentError(
            f"shrink(layers={said}): {path} has {len(blocks)} layers, 0 to {len(blocks) - 1}", hint=f"layers={max(1, len(blocks) // 2)}"
        )
    return nn.ModuleList(blocks[i] for i in layers)


# ------------------------------------------------------------------------------------------------------------------- parts of a layer


@dataclass(frozen=True)
class _Parts:
    """What a layer of an encoder is made of, whatever its architecture calls them.

    attention: the module that counts the heads, under the name `count`. query, key, value, out; up and down of the feed-forward part;
    norms: the normalisation after the attention, and the one after the feed-forward part.
    """

    block: nn.Module
    attention: nn.Module
    count: str
    query: str
    key: str
    value: str
    out: str
    up: str
    down: str
    norms: tuple[str, str]

    @classmethod
    def of(cls, block: nn.Module, path: str) -> _Parts:
        """Raises StudentError for an architecture whose parts are not known."""
        inside = dict(block.named_modules())
        for attention, count, names in _NAMES:
            if all(isinstance(inside.get(name), nn.Linear) for name in names[:6]):
                return cls(block, inside[attention], count, *names[:6], names[6:])  # type: ignore[arg-type] always two norms
        raise StudentError(
            f"shrink: the heads and channels of {path} ({type(block).__name__}) are not known", hint="its layers alone can be chosen"
        )

    @property
    def heads(self) -> int:
        return int(vars(self.attention)[self.count])

    @property
    def size(self) -> int:
        """Of a head."""
        return int(vars(self.attention)["attention_head_size"])

    def linear(self, name: str) -> nn.Linear:
        found = self.block.get_submodule(name)
        assert isinstance(found, nn.Linear)
        return found

    def put(self, name: str, rows: Tensor | None, columns: Tensor | None) -> None:
        """The linear layer with these of its outputs and inputs alone."""
        old = self.linear(name)
        weight = old.weight if rows is None else old.weight[rows]
        weight = weight if columns is None else weight[:, columns]
        new = nn.Linear(weight.shape[1], weight.shape[0], bias=old.bias is not None)
        with torch.no_grad():
            new.weight.copy_(weight)
            if old.bias is not None:
                new.bias.copy_(old.bias if rows is None else old.bias[rows])
        _put(self.block, name, new)


_NAMES = (
    (
        "attention.self",
        "num_attention_heads",
        ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense",
         "output.dense", "attention.output.LayerNorm", "output.LayerNorm"),
    ),
    (
        "attention",
        "n_heads",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2", "sa_layer_norm",
         "output_layer_norm"),
    ),
)  # fmt: skip


def _keep_heads(parts: _Parts, heads: int, path: str) -> None:
    """The heads of largest ‖W_V W_O‖, in their order; changed in place."""
    if heads > parts.heads:
        raise StudentError(f"shrink(heads={heads}): {path} has {parts.heads} heads in a layer", hint=f"heads={max(1, parts.heads // 2)}")
    value, out = parts.linear(parts.value).weight, parts.linear(parts.out).weight  # (heads × size, D), (D, heads × size)
    each = torch.bmm(
        out.T.reshape(parts.heads, parts.size, -1).transpose(1, 2), value.reshape(parts.heads, parts.size, -1)
    )  # (heads, D, D)
    kept = each.flatten(1).norm(dim=1).topk(heads).indices.sort().values
    rows = (kept[:, None] * parts.size + torch.arange(parts.size)).flatten()
    for name in (parts.query, parts.key, parts.value):
        parts.put(name, rows, None)
    parts.put(parts.out, None, rows)
    vars(parts.attention)[parts.count] = heads


def _keep_channels(body: nn.Module, layers: Sequence[_Parts], width: int, path: str) -> None:
    """The channels that the layers read most, and of the feed-forward parts the same share; changed in place."""
    whole = layers[0].linear(layers[0].query).in_features
    if width > whole:
        raise StudentError(f"shrink(width={width}): {path} is {whole} wide", hint=f"width={whole // 2}")
    channels = _read(body, layers).topk(width).indices.sort().values
    for parts in layers:
        up, down = parts.linear(parts.up), parts.linear(parts.down)
        strength = up.weight.norm(dim=1) * down.weight.norm(dim=0)
        neurons = strength.topk(max(1, round(up.out_features * width / whole))).indices.sort().values
        for name in (parts.query, parts.key, parts.value):
            parts.put(name, None, channels)
        parts.put(parts.out, channels, None)
        parts.put(parts.up, neurons, channels)
        parts.put(parts.down, channels, neurons)
        for name in parts.norms:
            _put(parts.block, name, _norm(parts.block.get_submodule(name), channels))
    embeddings = body.get_submodule("embeddings")
    for name, child in list(embeddings.named_children()):
        if isinstance(child, nn.Embedding):
            table = nn.Embedding(child.num_embeddings, width, padding_idx=child.padding_idx)
            with torch.no_grad():
                table.weight.copy_(child.weight[:, channels])
            embeddings.add_module(name, table)
        elif isinstance(child, nn.LayerNorm):
            embeddings.add_module(name, _norm(child, channels))


def _read(body: nn.Module, layers: Sequence[_Parts]) -> Tensor:
    """(D,) how strongly each channel is read: Σ over whatever reads it of (γ² + β²) ‖w‖², γ and β of the normalisation before."""
    before = next(child for child in body.get_submodule("embeddings").children() if isinstance(child, nn.LayerNorm))
    total = torch.zeros(before.normalized_shape)
    for parts in layers:
        for norm, names in ((before, (parts.query, parts.key, parts.value)), (parts.block.get_submodule(parts.norms[0]), (parts.up,))):
            assert isinstance(norm, nn.LayerNorm)
            size = norm.weight.square() + norm.bias.square()
            total += size * sum((parts.linear(name).weight.square().sum(0) for name in names), torch.zeros(()))
        last = parts.block.get_submodule(parts.norms[1])
        assert isinstance(last, nn.LayerNorm)
        before = last
    return total.detach()


def _norm(old: nn.Module, channels: Tensor) -> nn.LayerNorm:
    assert isinstance(old, nn.LayerNorm)
    new = nn.LayerNorm(len(channels), eps=old.eps)
    with torch.no_grad():
        new.weight.copy_(old.weight[channels])
        new.bias.copy_(old.bias[channels])
    return new


def _put(block: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    block.get_submodule(parent).add_module(last, new)
