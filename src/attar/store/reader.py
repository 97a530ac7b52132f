"""Stored answers to be read: by (id, view), memory-mapped where they are compacted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attar.errors import StoreError
from attar.store.answers import KEY_BYTES, Identity
from attar.store.manifest import Damage, load_shard, map_files, need_same, read_manifest

__all__ = ["Index", "Store", "complete_rows", "no_answer", "sorted_unique"]


class Store:
    """Answers by (id, view), to be read: `locate` gives row numbers, `output[rows]` the answers. Immutable.

    identity: whose. ids (R,) int64, views (R,) int32. output (R, ..., C), taps and masks by name: memory-mapped where compacted, so
    that only what is indexed is read from disk. The mapping is private: writing to it never reaches the file.
    """

    def __init__(self, identity: Identity, tensors: Mapping[str, Tensor]) -> None:
        self.identity = identity
        self.ids = tensors["ids"]
        self.views = tensors["views"]
        self.output = tensors["output"]
        self.taps = _under("taps", tensors)
        self.masks = _under("masks", tensors)
        self._index: Index | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def open(cls, folder: str | Path, identity: Identity | None = None, *, verify: bool = True) -> Store:
        """Map the answers in `folder`; raises StoreError where there are none, or damaged ones, or those of another identity.

        verify: read every byte once and compare checksums (about 1 GB a second); the sizes of files are always compared.
        Shards that are not compacted yet are read into memory; `annotate` compacts them.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest is None or not manifest.rows:
            raise StoreError(f"no answers at {folder}", hint="annotate writes them")
        if identity is not None:
            need_same(folder, manifest.identity, identity)
        damage = Damage.find(folder, manifest, contents=verify)
        if damage:
            raise StoreError(f"answers at {folder} are damaged: {damage}", hint="annotate once more: only the damaged rows are asked again")
        parts = [map_files(folder, manifest)] if manifest.compacted else []
        parts += [load_shard(folder, shard, manifest.identity) for shard in manifest.shards]
        if len(parts) == 1 and manifest.compacted:
            return cls(manifest.identity, parts[0])
        return cls.of(manifest.identity, parts)

    @classmethod
    def of(cls, identity: Identity, parts: Sequence[Mapping[str, Tensor]]) -> Store:
        """The answers of these parts in memory, sorted by (id, view); of two with one key the first counts."""
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        keep = torch.from_numpy(sorted_unique(joined["ids"], joined["views"]))
        return cls(identity, {name: value[keep] for name, value in joined.items()})

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one row's answer on disk, taps and masks with it; its key takes `key_bytes_per_row` more."""
        values = [self.output, *self.taps.values(), *self.masks.values()]
        return sum(math.prod(v.shape[1:]) * v.dtype.itemsize for v in values)

    @property
    def key_bytes_per_row(self) -> int:
        """Bytes of one row's id and view on disk."""
        return KEY_BYTES

    def find(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        """(B,) ids and views (None: 0) → (B,) int64 row numbers, −1 where there is no answer."""
        if self._index is None:
            self._index = Index(self.ids, self.views)
        return self._index.find(ids, views)

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        """(B,) ids and views (None: 0) → (B,) int64 row numbers; raises StoreError that says how many have no answer."""
        rows = self.find(ids, views)
        if bool((rows < 0).any()):
            raise no_answer(rows, ids, views)
        return rows


def no_answer(rows: Tensor, ids: Tensor, views: Tensor | None) -> StoreError:
    """The error of rows that were looked up and not found (−1)."""
    at = int((rows < 0).nonzero()[0])
    view = 0 if views is None else int(views[at])
    lost = int((rows < 0).sum())
    what = f"{lost:,} of {len(rows):,} rows have no stored answer, such as id {int(ids[at])} view {view}"
    return StoreError(what, hint="annotate these rows; rows that changed are new rows")


def complete_rows(folder: str | Path) -> int:
    """How many answers are complete in `folder`, compacted or in shards; 0 where there is no store."""
    manifest = read_manifest(Path(folder))
    return manifest.rows if manifest else 0


class Index:
    """Row numbers by (id, view): two binary searches, one where all views are 0."""

    def __init__(self, ids: Tensor, views: Tensor) -> None:
        order = None
        if len(ids) and not bool(((ids[1:] > ids[:-1]) | ((ids[1:] == ids[:-1]) & (views[1:] > views[:-1]))).all()):
            order = torch.from_numpy(np.lexsort((views.numpy(), ids.numpy())))  # rows were appended behind the sorted ones
            ids, views = ids[order], views[order]
        first = torch.ones(len(ids), dtype=torch.bool)
        first[1:] = ids[1:] != ids[:-1]
        self.ids = ids[first].clone()  # (U,) each once
        self.width = int(views.max()) + 1 if len(views) else 1
        # (R,) rank of the id, then view; where each id is there once, in view 0, the rank is the row
        self.keys = (first.cumsum(0) - 1) * self.width + views if self.width > 1 or not bool(first.all()) else None
        self.order = order

    def find(self, ids: Tensor, views: Tensor | None) -> Tensor:
        if not len(self.ids):
            return torch.full((len(ids),), -1)
        ids = ids.to("cpu", torch.int64).contiguous()
        rank = torch.searchsorted(self.ids, ids).clamp_(max=len(self.ids) - 1)
        there = self.ids[rank] == ids
        views = torch.zeros_like(ids) if views is None else views.to("cpu", torch.int64)
        there &= (views >= 0) & (views < self.width)
        rows = rank
        if self.keys is not None:
            wanted = rank * self.width + views
            rows = torch.searchsorted(self.keys, wanted.contiguous()).clamp_(max=len(self.keys) - 1)
            there &= self.keys[rows] == wanted
        if self.order is not None:
            rows = self.order[rows]
        return torch.where(there, rows, -1)


def sorted_unique(ids: Tensor, views: Tensor) -> NDArray[np.int64]:
    """Row numbers by (id, view), each key once: its first row."""
    i, v = ids.numpy(), views.numpy()
    order = np.lexsort((v, i))  # stable
    repeated = np.zeros(len(order), dtype=bool)
    repeated[1:] = (i[order[1:]] == i[order[:-1]]) & (v[order[1:]] == v[order[:-1]])
    return order[~repeated]


def _under(room: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.split("/", 1)[1]: value for name, value in tensors.items() if name.startswith(room + "/")}
