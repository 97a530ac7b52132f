"""What keeps a search honest: two halves of the validation rows, one that chooses and one that no choice has seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from attar.data import Data, Split
from attar.errors import DataError
from attar.identity import uniform

__all__ = ["Halves", "halved"]

SALT = "search"
FEWEST = 20  # rows of a half: fewer choose by chance


@dataclass(frozen=True)
class Halves:
    """The data with one half of the validation rows in place of all: `first` chooses epochs and candidates, `second` compares finalists."""

    first: Data
    second: Split


def halved(data: Data) -> Halves:
    """The validation rows in two, by a hash of each row's id: adding rows moves none from one half to the other.

    Raises DataError where a half has fewer than twenty rows.
    """
    part = torch.from_numpy(uniform(data.valid.ids.numpy(), SALT)) < 0.5
    first, second = (data.valid.take(where.nonzero().squeeze(1)) for where in (part, ~part))
    if min(len(first), len(second)) < FEWEST:
        what = f"{len(data.valid):,} validation rows make halves of {len(first):,} and {len(second):,}, and {FEWEST} are needed"
        raise DataError(what, hint="give the validation split more rows: a search chooses on one half and compares on the other")
    return Halves(replace(data, valid=first), second)
