"""The training rows of one arm, and the teacher's answers to them, as each step asks for them."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from attar.data import Data
from attar.errors import StoreError
from attar.identity import uniform
from attar.signal import Batch, Signal, Source, Stored

__all__ = ["Rows"]


class Rows:
    """(index (B,), epoch) → (Batch, the teacher's Signal or None), on the device where the student trains.

    Stored answers are looked up once, for every row and view; a step then picks rows. A row's views are shown in turn: in epoch e the
    view 1 + (h(id) + e) mod V, so that a batch has all of them and V epochs show each once.
    """

    def __init__(self, data: Data, source: Source | None, taps: frozenset[str], positions: Tensor, device: torch.device) -> None:
        self.split, self.source, self.taps, self.device = data.train, source, taps, device
        self.positions = None if len(positions) == len(self.split) else positions
        self.views = data.views
        if self.views:
            self.first = torch.from_numpy((uniform(self.split.ids.numpy(), "view") * self.views).astype(np.int64))  # (N,)
        self.stored = source if isinstance(source, Stored) else None
        self.places = self._located()  # (V × N,) handles of the store, view by view; None without one

    def answered_by(self, source: Source) -> Rows:
        """The same rows, answered by another source, live."""
        other = copy.copy(self)
        other.source, other.stored, other.places = source, None, None
        return other

    @property
    def tensors(self) -> bool:
        """Whether every block of the inputs is a tensor."""
        inputs = self.split.batch(torch.zeros(1, dtype=torch.int64)).inputs
        return all(isinstance(block, Tensor) for block in ([inputs] if isinstance(inputs, Tensor) else inputs.values()))

    def __len__(self) -> int:
        return len(self.split) if self.positions is None else len(self.positions)

    def __call__(self, index: Tensor, epoch: int) -> tuple[Batch, Signal | None]:
        index, views, place = self._place(index, epoch)
        batch = self.split.batch(index, views)
        if self.source is None:
            signal = None
        elif self.places is not None and self.stored is not None:
            signal = self.stored.signal(self.places.index_select(0, place))
        else:
            with torch.no_grad():
                signal = self.source(batch, self.taps)
        return (batch, signal) if self.device.type == "cpu" else (batch.to(self.device), _moved(signal, self.device))

    def batch(self, index: Tensor, epoch: int) -> Batch:
        """The rows alone."""
        index, views, _ = self._place(index, epoch)
        return self.split.batch(index, views)

    def signal(self, index: Tensor, epoch: int) -> Signal | None:
        """The teacher's answers alone; stored ones without the rows."""
        if self.source is None:
            return None
        if self.places is None or self.stored is None:
            return self(index, epoch)[1]
        return self.stored.signal(self.places.index_select(0, self._place(index, epoch)[2]))

    def _place(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """(B,) which row of the split, which view of it, and where its answer lies."""
        if self.positions is not None:  # fewer rows take turns, so that all arms make the same steps
            index = self.positions[index % len(self.positions)]
        if not self.views:
            return index, None, index
        turn = (self.first.index_select(0, index) + epoch) % self.views
        return index, turn + 1, turn * len(self.split) + index

    def _located(self) -> Tensor | None:
        if self.stored is None:
            return None
        ids = self.split.ids
        try:
            places = torch.cat([self.stored.locate(ids, torch.full_like(ids, v)) for v in range(1, self.views + 1) or (0,)])
        except StoreError:  # some were never asked: they are asked live, and a store that is damaged says so then
            return None
        return places if self.taps <= self.stored.signal(places[:1]).taps.keys() else None


def _moved(signal: Signal | None, device: torch.device) -> Signal | None:
    if signal is None:
        return None
    taps, masks = ({n: v.to(device) for n, v in named.items()} for named in (signal.taps, signal.masks))
    return Signal(signal.output.to(device), taps, masks)
