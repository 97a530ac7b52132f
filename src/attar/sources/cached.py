"""A source that remembers: answers are looked up by (id, view), in a store on disk or in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attar.errors import StoreError
from attar.notation import OutPath, say
from attar.signal import NOTHING, Batch, Remembering, Signal, Source, Weighed
from attar.sources.controls import Rows, training_ids
from attar.sources.told import told
from attar.store import Identity, Store, complete_rows, no_answer

__all__ = ["Cached", "cached"]


def cached(source: Source, at: OutPath | None = None) -> Cached:
    """The same source, asked once for each row: (B, …) rows → the stored answers, the others live.

    at: a store's folder, as `annotate` fills it; rows that it lacks are asked live each time. None remembers in memory what was asked.
    Answers are those of a live source up to the store's precision (float16 keeps 11 bits), and are float32 either way. A batch without
    ids is asked live. Views other than 0 are looked up where the store is known to be of the same augmentation: that is what
    `annotate` returns; over a folder alone they are asked live. It is `Stored`: `locate` once, then `signal(rows)` at every step.
    Raises StoreError if the folder holds answers of another source, or damaged ones.
    """
    return Cached(source, at)


class Cached:
    """See `cached`. store: its answers, if they are open already. augmentation: what views other than 0 mean to the caller."""

    def __init__(self, source: Source, at: str | Path | None = None, *, store: Store | None = None, augmentation: str = "") -> None:
        self.source = source
        self.at = None if at is None else Path(at)
        self.augmentation = augmentation
        self._store = store
        self._memory = _Memory() if at is None and store is None else None

    def __repr__(self) -> str:
        return say("cached", self.source, at=self.at)

    @property
    def fingerprint(self) -> str:
        """The wrapped source's: a memory changes no answer."""
        return self.source.fingerprint

    @property
    def training_ids(self) -> Tensor | None:
        """What the wrapped source was trained on."""
        return training_ids(self.source)

    @property
    def in_fold(self) -> bool:
        """Whether the wrapped source answers its training rows as one that has seen them."""
        return isinstance(self.source, Remembering) and self.source.in_fold

    @property
    def size_bytes(self) -> int | None:
        """What the wrapped source weighs: the answers beside it are not shipped."""
        return self.source.size_bytes if isinstance(self.source, Weighed) else None

    @property
    def parameters(self) -> int | None:
        return self.source.parameters if isinstance(self.source, Weighed) else None

    @property
    def store(self) -> Store | None:
        """The store behind it, opened when first needed; None while there is none."""
        if self._store is None and self.at is not None and complete_rows(self.at):
            store = Store.open(self.at)
            asked = Identity(self.fingerprint, store.identity.augmentation, store.identity.taps, store.identity.precision)
            if differences := store.identity.differences(asked):
                raise StoreError(f"the answers at {self.at} are of {differences[0]}", hint="choose another folder, or annotate anew")
            self._store = store
        return self._store

    def told(self, rows: Rows) -> Cached:
        """The same over a source that has been told of these rows; itself, with its answers, where that changes nothing."""
        source = told(self.source, rows)
        if source is self.source or source.fingerprint == self.source.fingerprint:
            return self
        return Cached(source, self.at, augmentation=self.augmentation)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        """Stored answers of the rows that have one; one live question for all others together."""
        ids, views = batch.ids, batch.views
        if ids is None:
            return self.source(batch, taps)
        rows = self._find(ids, views, taps)
        missing = (rows < 0).nonzero().squeeze(1)
        if not len(missing):
            return _to(ids.device, _only(self.signal(rows), taps))
        asked = batch if len(missing) == len(rows) else _take(batch, missing)
        if self._memory is None:
            live = _to("cpu", self.source(asked, taps))
        else:  # what is remembered has all taps that were ever asked
            every = _to("cpu", self.source(asked, taps | self._memory.taps.keys()))
            at = missing.to(ids.device)
            self._memory.add(ids[at], None if views is None else views[at], every)
            live = _only(every, taps)
        if len(missing) == len(rows):
            return _to(ids.device, live)
        return _to(ids.device, _merged(_only(self.signal(rows.clamp(min=0)), taps), live, missing))

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        """(B,) ids and views (None: 0) → (B,) int64 rows for `signal`; StoreError says how many have no answer."""
        rows = self._find(ids, views, NOTHING)
        if bool((rows < 0).any()):
            raise no_answer(rows, ids, views)
        return rows

    def signal(self, rows: Tensor) -> Signal:
        """(B,) rows, as `locate` gave them → their answers, float32, with all the taps that are stored. Looks up no ids."""
        held = self._memory if self._memory is not None else self.store
        if held is None:
            raise StoreError(f"no answers at {self.at}", hint="annotate writes them")
        output = held.output.index_select(0, rows).float()
        if not held.taps:
            return Signal(output)
        taps = {name: value.index_select(0, rows).float() for name, value in held.taps.items()}
        return Signal(output, taps, {name: value.index_select(0, rows) for name, value in held.masks.items()})

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The wrapped source's cheapest call: what is measured is what the teacher costs, not what looking up costs."""
        return self.source.prepare(batch)

    def _find(self, ids: Tensor, views: Tensor | None, taps: frozenset[str]) -> Tensor:
        held = self._memory if self._memory is not None else self.store
        if held is None or not taps <= held.taps.keys():
            return torch.full((len(ids),), -1)
        rows = held.find(ids, views)
        if views is not None and isinstance(held, Store) and held.identity.augmentation != self.augmentation:
            rows = torch.where(views.cpu() == 0, rows, -1)  # view 0 is the row as it is, whatever the augmentation
        return rows


class _Memory:
    """Answers remembered as they come, by (id, view); room grows twofold."""

    def __init__(self) -> None:
        self.taps: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}
        self._rows: dict[tuple[int, int], int] = {}
        self._room: dict[str, Tensor] = {}

    @property
    def output(self) -> Tensor:
        return self._room["output"] if self._room else torch.empty(0)

    def find(self, ids: Tensor, views: Tensor | None) -> Tensor:
        return torch.tensor([self._rows.get(key, -1) for key in _keys(ids, views)], dtype=torch.int64)

    def add(self, ids: Tensor, views: Tensor | None, signal: Signal) -> None:
        """Remember what is new; answers with other taps than before begin anew, for rows must be alike."""
        named = {"output": signal.output}
        named |= {f"taps/{n}": v for n, v in signal.taps.items()} | {f"masks/{n}": v for n, v in signal.masks.items()}
        if self._room and {n: v.shape[1:] for n, v in named.items()} != {n: v.shape[1:] for n, v in self._room.items()}:
            self._rows, self._room = {}, {}
        new = []
        for position, key in enumerate(_keys(ids, views)):
            if key not in self._rows:
                self._rows[key] = len(self._rows)
                new.append(position)
        start, end = len(self._rows) - len(new), len(self._rows)
        for name, value in named.items():
            room = self._room.get(name)
            if room is None or len(room) < end:
                grown = value.new_empty((max(2 * end, 1024), *value.shape[1:]))
                if room is not None:
                    grown[:start] = room[:start]
                room = self._room[name] = grown
            room[start:end] = value.detach()[new]
        self.taps = {n.removeprefix("taps/"): v for n, v in self._room.items() if n.startswith("taps/")}
        self.masks = {n.removeprefix("masks/"): v for n, v in self._room.items() if n.startswith("masks/")}


def _keys(ids: Tensor, views: Tensor | None) -> list[tuple[int, int]]:
    return list(zip(ids.tolist(), [0] * len(ids) if views is None else views.tolist(), strict=True))


def _take(batch: Batch, at: Tensor) -> Batch:
    """The rows of a batch at these positions."""

    def some(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[at.to(value.device)]

    inputs = batch.inputs
    taken = inputs[at.to(inputs.device)] if isinstance(inputs, Tensor) else {k: v[at.to(v.device)] for k, v in inputs.items()}
    return Batch(taken, some(batch.labels), some(batch.mask), some(batch.weight), some(batch.ids), some(batch.views), batch.schema)


def _merged(stored: Signal, live: Signal, missing: Tensor) -> Signal:
    def both(a: Tensor, b: Tensor) -> Tensor:
        if a.shape[1:] != b.shape[1:]:
            raise StoreError(f"stored answers have the shape {tuple(a.shape[1:])}, live ones {tuple(b.shape[1:])}", hint="annotate anew")
        return a.index_copy(0, missing, b.to(a.dtype))

    return Signal(
        both(stored.output, live.output),
        {name: both(value, live.taps[name]) for name, value in stored.taps.items()},
        {name: both(value, live.masks[name]) for name, value in stored.masks.items()},
    )


def _only(signal: Signal, taps: frozenset[str]) -> Signal:
    if signal.taps.keys() == taps:
        return signal
    return Signal(signal.output, {t: signal.taps[t] for t in taps}, {t: signal.masks[t] for t in taps if t in signal.masks})


def _to(device: torch.device | str, signal: Signal) -> Signal:
    """Live answers as stored ones are: float32, without gradient; and on the device where they were asked."""

    def plain(value: Tensor) -> Tensor:
        return value.detach().to(device, torch.float32)

    masks = {n: v.detach().to(device) for n, v in signal.masks.items()}
    return Signal(plain(signal.output), {n: plain(v) for n, v in signal.taps.items()}, masks)
