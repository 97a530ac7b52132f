"""What a name stands for: places to read, and what becomes of what is read there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from attar.tap.grammar import Read

__all__ = ["Names", "Spot", "mean_of", "one", "part", "scores", "within"]

Finish = Callable[[tuple[Tensor, ...], Tensor | None], Tensor]


@dataclass(frozen=True)
class Spot:
    """reads: what is read. finish: (what was read, (B, L) mask or None) → the tap; None takes the one thing read as it is."""

    reads: tuple[Read, ...]
    finish: Finish | None = None


@dataclass(frozen=True)
class Names:
    """The names one part of a model answers to.

    spots: by name. blocks: how many there are to count; 0: none.
    refused: why there is no name of a kind, by kind, such as "attention".
    reader: path of the module whose call has the tokens' mask; None: nobody's.
    """

    spots: Mapping[str, Spot]
    blocks: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    reader: str | None = None


def one(path: str, *, into: bool = False, call: int | None = None) -> Spot:
    """The output of a module, or its first argument."""
    return Spot((Read(path, into, call=call, first=not into),))


def within(prefix: str, names: Names) -> Names:
    """The same names, of a module that lies at `prefix`."""

    def below(path: str) -> str:
        return ".".join(part for part in (prefix, path) if part)

    spots = {
        name: replace(spot, reads=tuple(replace(read, path=below(read.path)) for read in spot.reads)) for name, spot in names.spots.items()
    }
    return replace(names, spots=spots, reader=None if names.reader is None else below(names.reader))


def part(index: int, of: int) -> Finish:
    """The index-th of so many equal parts of the last axis: (B, L, of · D) → (B, L, D)."""
    return lambda read, mask: read[0].chunk(of, -1)[index]


def scores(heads: int) -> Finish:
    """Queries and keys, (B, L, D) or (B, heads, L, d) → (B, heads, L, L): q kᵀ/√d, as attention has them before mask and softmax."""

    def finish(read: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        query, key = (_split(x, heads) for x in read)
        return query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5

    return finish


def _split(x: Tensor, heads: int) -> Tensor:
    return x if x.dim() == 4 else x.unflatten(-1, (heads, -1)).transpose(1, 2)


def mean_of(read: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
    """(B, L, D) → (B, D): the mean over real tokens; zeros for a row without any."""
    tokens = read[0]
    if mask is None or mask.shape != tokens.shape[:2]:
        return tokens.mean(1)
    real = mask.unsqueeze(-1)
    return torch.where(real, tokens, 0.0).sum(1) / real.sum(1).clamp(min=1)
