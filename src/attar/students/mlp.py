"""A multi-layer perceptron that reads raw rows: it fills, scales and embeds inside itself, so that its graph ships alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attar.errors import StudentError
from attar.notation import say
from attar.signal import Column, Inputs, Schema
from attar.students.ends import Head, Pixels, at_least, seeded

__all__ = ["MLP", "mlp"]


@dataclass(frozen=True, repr=False)
class MLP:
    """See `mlp`; called with (schema, seed) it builds."""

    width: int = 64
    depth: int = 3
    dropout: float = 0.0
    embed: int = 4

    def __repr__(self) -> str:
        return say("mlp", width=self.width, depth=self.depth, dropout=self.dropout, embed=self.embed)

    def __call__(self, schema: Schema, seed: int) -> nn.Module:
        with seeded(seed):
            return Perceptron(schema, self)


def mlp(width: int = 64, depth: int = 3, dropout: float = 0.0, embed: int = 4) -> MLP:
    """`depth` hidden layers of `width` ReLUs over raw rows: (B, numbers) and (B, categories), images or tensors → (B, C) logits.

    dropout: after each hidden layer, 0..1.
    embed: numbers that each category becomes; missing and unseen values have a row of their own, which begins at zero.

    A number is filled with its median where missing (with a flag beside it, where the training rows show gaps), then becomes
    asinh((x − mean) / std): linear near the mean, logarithmic in the tails, for bills and payments have heavy ones. Piecewise-linear
    bins (arXiv:2203.05556) did a little better in a trial on credit-card customers, at three times the weights; plain standard scores
    a little worse.
    Pixels become standard scores by channel; other tensors are scaled by a batch normalisation without weights.
    A regression answers in the unit of its label.

    >>> schema = Schema("table", (Column("age", "number", mean=40.0, std=10.0, median=39.0),), classes=("no", "yes"))
    >>> student = mlp(width=8, depth=1)(schema, 0)
    >>> student({"numbers": torch.tensor([[31.0], [math.nan]])}).shape
    torch.Size([2, 2])
    """
    at_least("mlp", width=(width, 1), depth=(depth, 1), embed=(embed, 1))
    if not 0 <= dropout < 1:
        raise StudentError(f"mlp(dropout={dropout}): a share lies from 0 to below 1", hint="0.1 drops every tenth")
    return MLP(width, depth, dropout, embed)


class Perceptron(nn.Module):
    """What `mlp` builds."""

    def __init__(self, schema: Schema, how: MLP) -> None:
        super().__init__()
        self.read = _Table(schema, how.embed) if schema.kind == "table" else _Flat(schema)
        layers: list[nn.Module] = []
        width = self.read.width
        for _ in range(how.depth):
            layers += [nn.Linear(width, how.width), nn.ReLU()]
            layers += [nn.Dropout(how.dropout)] if how.dropout else []
            width = how.width
        self.hidden = nn.Sequential(*layers)
        self.head = Head(width, schema)

    def tap_names(self) -> dict[str, str]:
        """hidden.0 is what the first layer reads, hidden.k what the k-th passes on; `hidden` and `embedding` what the head reads."""
        ends = [i for i, layer in enumerate(self.hidden, 1) if i == len(self.hidden) or isinstance(self.hidden[i], nn.Linear)]
        blocks = {f"hidden.{k}": f"hidden.{end - 1}" for k, end in enumerate(ends, 1)}
        return {"hidden.0": "hidden:in", **blocks, "hidden": "hidden", "embedding": "head:in"}

    def forward(self, inputs: Inputs) -> Tensor:
        return self.head(self.hidden(self.read(inputs)))


class _Table(nn.Module):
    """{"numbers": (B, n), "categories": (B, m)} → (B, width)."""

    def __init__(self, schema: Schema, embed: int) -> None:
        super().__init__()
        blocks: list[tuple[str, nn.Module]] = []
        self.width = 0
        if schema.numbers:
            numbers = _Numbers(schema.numbers)
            blocks.append(("numbers", numbers))
            self.width += numbers.width
        if schema.categories:
            blocks.append(("categories", _Categories(schema.categories, embed)))
            self.width += embed * len(schema.categories)
        if not blocks:
            raise StudentError("mlp: the table has no column but the label", hint="look at the columns of the data")
        self.blocks = nn.ModuleDict(dict(blocks))

    def forward(self, inputs: Inputs) -> Tensor:
        if isinstance(inputs, Tensor):
            raise StudentError(
                f"this student reads a table, and is given a tensor of {tuple(inputs.shape)}", hint="ask it with the data's batches"
            )
        read = [block(inputs[name]) for name, block in self.blocks.items()]
        return read[0] if len(read) == 1 else torch.cat(read, 1)


class _Numbers(nn.Module):
    """(B, n) numbers, NaN where missing → (B, n + flags)."""

    mean: Tensor
    scale: Tensor
    median: Tensor
    gaps: Tensor

    def __init__(self, columns: tuple[Column, ...]) -> None:
        super().__init__()
        gaps = [i for i, c in enumerate(columns) if c.missing > 0]
        self.register_buffer("mean", torch.tensor([c.mean for c in columns]))
        self.register_buffer("scale", torch.tensor([1 / c.std if c.std > 0 else 1.0 for c in columns]))
        self.register_buffer("median", torch.tensor([c.median for c in columns]))
        self.register_buffer("gaps", torch.tensor(gaps, dtype=torch.int64))
        self.flagged = bool(gaps)
        self.width = len(columns) + len(gaps)

    def forward(self, numbers: Tensor) -> Tensor:
        numbers = numbers.float()
        missing = numbers.isnan()
        scores = torch.asinh((torch.where(missing, self.median, numbers) - self.mean) * self.scale)
        return torch.cat((scores, missing.index_select(1, self.gaps).float()), 1) if self.flagged else scores


class _Categories(nn.Module):
    """(B, m) codes → (B, m × embed). One table for all columns: one look-up costs less than m of them."""

    most: Tensor
    first: Tensor

    def __init__(self, columns: tuple[Column, ...], embed: int) -> None:
        super().__init__()
        sizes = torch.tensor([len(c.categories) + 1 for c in columns])
        self.register_buffer("most", sizes - 1)
        self.register_buffer("first", sizes.cumsum(0) - sizes)
        self.table = nn.Embedding(int(sizes.sum()), embed)
        with torch.no_grad():
            self.table.weight[self.first] = 0.0  # missing or unseen: the middle of the others, until training rows say more

    def forward(self, codes: Tensor) -> Tensor:
        codes = torch.where(codes <= self.most, codes, 0).clamp(min=0)  # a code that training did not know is "unseen"
        return self.table(codes + self.first).flatten(1)


class _Flat(nn.Module):
    """(B, ...) pixels or numbers → (B, width)."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.width = math.prod(schema.shape)
        self.scale: nn.Module = Pixels(schema) if schema.kind == "images" else nn.BatchNorm1d(self.width, affine=False)
        self.first = schema.kind == "images"

    def forward(self, inputs: Inputs) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise StudentError(f"this student reads a tensor, and is given {sorted(inputs)}", hint="ask it with the data's batches")
        return self.scale(inputs).flatten(1) if self.first else self.scale(inputs.flatten(1))
