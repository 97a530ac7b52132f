"""How every net of ours ends and begins: answers in the unit of the label, weights by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attar.errors import StudentError
from attar.signal import Schema

__all__ = ["Head", "at_least", "seeded"]


class Head(nn.Module):
    """(B, width) → (B, C) logits, (B, L) for many labels; for a regression (B, 1) in the unit of the label."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, schema: Schema) -> None:
        super().__init__()
        self.numeric = not schema.classes
        self.linear = nn.Linear(width, max(1, len(schema.classes)))
        if self.numeric:
            self.register_buffer("mean", torch.tensor(schema.label_mean))
            self.register_buffer("std", torch.tensor(schema.label_std if schema.label_std > 0 else 1.0))

    def forward(self, features: Tensor) -> Tensor:
        output = self.linear(features)
        return output * self.std + self.mean if self.numeric else output


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block weights are drawn by the seed; after it global chance is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def at_least(word: str, **values: tuple[int, int]) -> None:
    """Raise StudentError for the first of name=(value, least) that is below its least."""
    for name, (value, least) in values.items():
        if value < least:
            raise StudentError(f"{word}({name}={value}): at least {least} is needed", hint=f"{name}={least} is the smallest")
