"""Stored answers: safetensors shards and a JSONL manifest while filling, one memory-mapped file per tensor when complete.

    answers/
      manifest.jsonl                  header (identity, what is compacted, checksums), then one line per shard; each line carries a check
      manifest.1.jsonl …              the shard lines of rank 1 and so on, where several processes fill
      shard.0.0.000000.safetensors    generation, rank, number: output, ids, views, taps/…, masks/… of some rows
      output.1.bin ids.1.bin …        once compacted: raw rows, little-endian; their form stands in the header

A shard counts once its line stands in the manifest; the line is written after the file is synced and renamed. Compacting writes the
mapped files, then replaces the manifest (the switch), then removes the shards: a kill at any byte leaves either shards to go on from,
or the compacted answers. Rows that come later are appended behind the compacted ones, and the header says how many rows count.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from attar.errors import StoreError
from attar.files import append_line, explain_disk, need_space, replacing, write_atomic
from attar.identity import digest, digest_file
from attar.signal import Signal

__all__ = ["BLOCK", "Identity", "Precision", "Size", "Store", "Writer", "complete_rows", "estimate"]

Precision = Literal["float16", "float32"]

FORMAT = 1
BLOCK = 4096  # rows under one checksum of a compacted file: what is asked again when a byte of it is damaged
SHARD_BYTES = 64_000_000  # a shard never waits for more than this
SHARD_SECONDS = 30.0  # nor for longer than this: what a kill may lose of a slow teacher's time
MANIFEST = "manifest.jsonl"
KEY_BYTES = 12  # id 8, view 4
FLOATS: dict[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}
DTYPES: dict[str, tuple[torch.dtype, str]] = {  # as on disk, where numbers are little-endian whatever the machine
    "float16": (torch.float16, "<f2"),
    "float32": (torch.float32, "<f4"),
    "int64": (torch.int64, "<i8"),
    "int32": (torch.int32, "<i4"),
    "bool": (torch.bool, "|b1"),
}


@dataclass(frozen=True)
class Identity:
    """Whose answers these are; a store holds those of one identity, and refuses to open as another.

    source: the fingerprint of who answered. augmentation: its text, "" for none. taps: module paths, sorted.
    precision: of the numbers as stored; answers are read back as float32.
    """

    source: str
    augmentation: str = ""
    taps: tuple[str, ...] = ()
    precision: Precision = "float32"

    def differences(self, other: Identity) -> list[str]:
        """One sentence for each part that differs: stored (self) against asked (other)."""
        words = {"source": "teacher", "augmentation": "augmentation", "taps": "taps", "precision": "precision"}
        mine, theirs = asdict(self), asdict(other)
        return [f"another {word} (stored {mine[k]!r}, asked {theirs[k]!r})" for k, word in words.items() if mine[k] != theirs[k]]

    def tensors(self, ids: Tensor, views: Tensor, signal: Signal) -> dict[str, Tensor]:
        """(B,) keys and their answers as they are stored: ids, views, output, taps/…, masks/…, on the CPU and in the precision.

        Raises StoreError for a number that the precision cannot hold: a float16 ends at ±65504. −∞, an absent outcome, is kept.
        """
        named = {"output": signal.output, **{f"taps/{t}": signal.taps[t] for t in self.taps}}
        found = {"ids": ids.to("cpu", torch.int64), "views": views.to("cpu", torch.int32)}
        for name, value in named.items():
            small = value.detach().to("cpu", FLOATS[self.precision], copy=True)  # a source may use its buffer again
            if not bool(torch.isfinite(small).all()):
                _check_range(name, value.detach().cpu(), small, ids)
            found[name] = small
        return found | {f"masks/{t}": m.detach().to("cpu", torch.bool) for t, m in signal.masks.items() if t in self.taps}


@dataclass(frozen=True)
class Size:
    """What answers take on disk: bytes of one row's answer, of its key (id and view), of all; `peak` while they are compacted."""

    rows: int
    bytes_per_row: int
    key_bytes_per_row: int = KEY_BYTES

    @property
    def bytes(self) -> int:
        return self.rows * (self.bytes_per_row + self.key_bytes_per_row)

    @property
    def peak(self) -> int:
        return 2 * self.bytes + 4096 + 1024 * math.ceil(self.rows / BLOCK)  # shards and mapped files side by side, and the manifest

    def __str__(self) -> str:
        each = f"{self.bytes_per_row} + {self.key_bytes_per_row}"
        return f"{self.rows:,} rows of {each} bytes, {self.bytes / 1e6:,.1f} MB ({self.peak / 1e6:,.1f} MB while filling)"


def estimate(rows: int, shape: Sequence[int], precision: Precision, taps: Iterable[Sequence[int]] = ()) -> Size:
    """The size of `rows` answers of this shape (of one row, its taps' shapes beside it), before anything is written.

    >>> print(estimate(30_000, (10,), "float16"))
    30,000 rows of 20 + 12 bytes, 1.0 MB (1.9 MB while filling)
    """
    numbers = math.prod(shape) + sum(math.prod(tap) for tap in taps)
    return Size(rows, numbers * FLOATS[precision].itemsize)


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        self._index: _Index | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def open(cls, folder: str | Path, identity: Identity | None = None, *, verify: bool = True) -> Store:
        """Map the answers in `folder`; raises StoreError where there are none, or damaged ones, or those of another identity.

        verify: read every byte once and compare checksums (about 1 GB a second); the sizes of files are always compared.
        Shards that are not compacted yet are read into memory; `annotate` compacts them.
        """
        folder = Path(folder)
        manifest = _read(folder)
        if manifest is None or not manifest.rows:
            raise StoreError(f"no answers at {folder}", hint="annotate writes them")
        if identity is not None:
            _same(folder, manifest.identity, identity)
        damage = _Damage.find(folder, manifest, contents=verify)
        if damage:
            raise StoreError(f"answers at {folder} are damaged: {damage}", hint="annotate once more: only the damaged rows are asked again")
        parts = [_map(folder, manifest)] if manifest.compacted else []
        parts += [_load(folder, shard, manifest.identity) for shard in manifest.shards]
        if len(parts) == 1 and manifest.compacted:
            return cls(manifest.identity, parts[0])
        return cls.of(manifest.identity, parts)

    @classmethod
    def of(cls, identity: Identity, parts: Sequence[Mapping[str, Tensor]]) -> Store:
        """The answers of these parts in memory, sorted by (id, view); of two with one key the first counts."""
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        keep = torch.from_numpy(_sorted_unique(joined["ids"], joined["views"]))
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
            self._index = _Index(self.ids, self.views)
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
    manifest = _read(Path(folder))
    return manifest.rows if manifest else 0


class _Index:
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


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Writer:
    """A store being filled by one process (of several, each with its rank): `add` answers, `compact` when all are there.

    Use as a context: leaving it writes what was added, whatever happened. Shards are written by a thread of its own while the teacher
    answers the next rows. Not for two processes of the same rank: the second one is refused.
    """

    def __init__(self, folder: Path, identity: Identity, rank: int, shard: int, lock: IO[str]) -> None:
        self.folder = folder
        self.identity = identity
        self.rank = rank
        self.damage: list[str] = []  # what was found damaged, named
        self._shard = shard
        self._lock = lock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="attar-store")
        self._pending: Future[None] | None = None
        self._failed = False
        self._chunks: list[dict[str, Tensor]] = []
        self._rows = 0
        self._since = time.monotonic()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._sound: set[str] = set()  # shards whose bytes were compared, or written by us
        self._bad_shards: set[str] = set()
        self._bad_rows: tuple[int, NDArray[np.bool_]] | None = None  # of the compacted files, as of a generation
        self._manifest = _Manifest(identity)
        self._index = _Index(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int32))
        self._number = 0

    @classmethod
    def open(cls, folder: str | Path, identity: Identity, *, rank: int = 0, shard: int = 16_384, resume: bool = True) -> Writer:
        """Open or begin the store of `identity`; every byte that is there is compared with its checksum.

        shard: rows after which a shard is written (sooner past 64 MB or 30 s); a kill loses at most that much.
        resume: False refuses a folder that holds answers. Raises StoreError where another identity's answers lie, or another
        process is writing. What is damaged stands in `damage`, and its rows count as missing.
        """
        folder = Path(folder)
        with explain_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder, rank)
        try:
            manifest = _read(folder)
            if manifest is not None:
                _same(folder, manifest.identity, identity)
                if not resume and rank == 0 and manifest.rows:
                    raise StoreError(f"{manifest.rows:,} answers are at {folder} already", hint="--resume keeps them; or remove the folder")
            writer = cls(folder, identity, rank, shard, lock)
            writer._begin(manifest)
        except BaseException:
            lock.close()
            raise
        return writer

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.flush()
        finally:
            self._pool.shutdown(wait=True)
            self._lock.close()

    def has(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        """(B,) → (B,) bool: which of these rows have a sound answer on disk, as of the last `refresh`."""
        return self._index.find(ids, views) >= 0

    def add(self, ids: Tensor, views: Tensor, signal: Signal) -> bool:
        """Take the answers of (B,) rows; True where that began the writing of a shard.

        Raises StoreError where an answer does not fit the precision (a float16 ends at ±65504; −inf is an absent outcome), or has
        another shape than those before.
        """
        chunk = self.identity.tensors(ids, views, signal)
        self._check_shapes({name: tuple(value.shape[1:]) for name, value in chunk.items()})
        self._chunks.append(chunk)
        self._rows += len(ids)
        each = sum(math.prod(v.shape[1:]) * v.dtype.itemsize for v in chunk.values())
        if self._rows < self._shard and self._rows * each < SHARD_BYTES and time.monotonic() - self._since < SHARD_SECONDS:
            return False
        self._send()
        return True

    def flush(self) -> None:
        """Write what was added, and wait until it is on disk."""
        self._send()
        self._settle()

    def refresh(self) -> None:
        """Look again at what is on disk, for other ranks write too."""
        self._settle()
        for _ in range(4):  # rank 0 may switch to new files between our reading of the manifest and of what it names
            with suppress(FileNotFoundError):
                return self._look()
        self._look()

    def _look(self) -> None:
        manifest = _read(self.folder)
        if manifest is None:
            return
        parts = []
        if manifest.compacted:
            mapped = _map(self.folder, manifest)
            good = self._good_rows(manifest)
            parts.append(mapped if good is None else {name: mapped[name][good] for name in ("ids", "views")})
            self._shapes = {name: t.shape for name, t in manifest.compacted.tensors.items()}
        for shard in manifest.shards:
            if shard.file not in self._sound | self._bad_shards:
                if broken := shard.broken(self.folder):
                    self._bad_shards.add(shard.file)
                    self.damage.append(broken)
                    continue
                self._sound.add(shard.file)
            if shard.file in self._sound:
                part = _load(self.folder, shard, manifest.identity)
                parts.append(part)
                self._check_shapes({name: tuple(value.shape[1:]) for name, value in part.items()})
        none = torch.empty(0, dtype=torch.int64)
        self._index = _Index(torch.cat([none, *(p["ids"] for p in parts)]), torch.cat([none.int(), *(p["views"] for p in parts)]))
        self._manifest = manifest

    @property
    def rows(self) -> int:
        """Answers on disk, as of the last `refresh`."""
        return self._manifest.rows

    @property
    def is_compacted(self) -> bool:
        """Whether all that is on disk is sound and in the mapped files, as of the last `refresh`."""
        return not self._manifest.shards and self._good_rows(self._manifest) is None

    def compact(self) -> None:
        """Bring all answers into the mapped files; for rank 0 alone, when every rank has written its own.

        The first time, and where something was damaged, rows are sorted by (id, view); later ones are appended, sorted among
        themselves. Raises DiskFull where both do not fit; the shards then stay.
        """
        self.flush()
        self.refresh()
        manifest = self._manifest
        old = _map(self.folder, manifest) if manifest.compacted else None
        good = self._good_rows(manifest)
        parts = [_load(self.folder, s, manifest.identity) for s in manifest.shards if s.file in self._sound]
        start = manifest.compacted.rows if manifest.compacted else 0
        keep = torch.ones(sum(len(p["ids"]) for p in parts), dtype=torch.bool)
        if old is not None and good is not None:  # written anew, from what is sound and what was asked again
            parts, start, keep = [old, *parts], 0, torch.cat((good, keep))
        order = np.empty(0, dtype=np.int64)
        if parts:
            ids, views = torch.cat([p["ids"] for p in parts]), torch.cat([p["views"] for p in parts])
            if old is not None and start:  # the same row from two ranks: what is compacted counts
                keep &= _Index(old["ids"], old["views"]).find(ids, views) < 0
            kept = keep.nonzero().squeeze(1)
            order = kept.numpy()[_sorted_unique(ids[kept], views[kept])]
        if manifest.shards or good is not None:
            self._write(parts, order, start)
        self._sweep()

    def _begin(self, manifest: _Manifest | None) -> None:
        own = self.folder / _manifest_name(self.rank)
        if not own.exists():
            write_atomic(own, _seal({"store": FORMAT, "identity": asdict(self.identity), "generation": 0}) + "\n")
        _mend(own)
        for leftover in self.folder.glob(f".shard.*.{self.rank}.*.tmp"):
            leftover.unlink()
        if manifest is not None and manifest.compacted:
            damage = _Damage.find(self.folder, manifest, shards=False)
            self.damage += damage.sentences
            if damage.rows is not None:
                self._bad_rows = (manifest.generation, damage.rows)
        numbers = [int(p.name.split(".")[3]) for p in self.folder.glob(f"shard.*.{self.rank}.*.safetensors")]
        self._number = max(numbers, default=-1) + 1
        self.refresh()

    def _check_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            said = "; ".join(f"{n} {shapes.get(n)}, before {self._shapes.get(n)}" for n in sorted(shapes | self._shapes))
            raise StoreError(f"answers of another shape than those before: {said}", hint="a store holds answers of one shape")

    def _good_rows(self, manifest: _Manifest) -> Tensor | None:
        """(R,) bool over compacted rows, None where all are sound."""
        if self._bad_rows is None or self._bad_rows[0] != manifest.generation:
            return None
        return torch.from_numpy(~self._bad_rows[1])

    def _send(self) -> None:
        if self._rows and not self._failed:
            chunks, self._chunks, self._rows = self._chunks, [], 0
            self._settle()
            self._pending = self._pool.submit(self._write_shard, chunks)
        self._since = time.monotonic()

    def _settle(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write_shard(self, chunks: list[dict[str, Tensor]]) -> None:
        try:
            tensors = {name: torch.cat([c[name] for c in chunks]) for name in chunks[0]}
            name = f"shard.{self._manifest.generation}.{self.rank}.{self._number:06d}.safetensors"
            self._number += 1
            content = save(tensors)
            write_atomic(self.folder / name, content)
            rows = len(tensors["ids"])
            line = {"shard": name, "rows": rows, "bytes": len(content), "checksum": _checksum(content)}
            append_line(self.folder / _manifest_name(self.rank), _seal(line))
            self._sound.add(name)
        except BaseException:
            self._failed = True  # the manifest may end in half a line: nothing more may be appended before it is mended
            raise

    def _write(self, parts: list[dict[str, Tensor]], order: NDArray[np.int64], start: int) -> None:
        """Write rows `order` of the joined parts at row `start` of each mapped file, then switch the manifest."""
        old = self._manifest.compacted
        generation = self._manifest.generation + 1
        sizes = np.cumsum([0, *(len(p["ids"]) for p in parts)])
        named = sorted(parts[0].items()) if len(order) else []
        need = sum(len(order) * math.prod(v.shape[1:]) * v.dtype.itemsize for _, v in named)
        need_space(self.folder, need, "compacting the answers")
        tensors = dict(old.tensors) if start and old else {}
        for number, (name, like) in enumerate(named):
            dtype = str(like.dtype).removeprefix("torch.")
            shape = tuple(like.shape[1:])
            if start and old:
                file, known = old.tensors[name].file, old.tensors[name].blocks
                with explain_disk(self.folder / file), open(self.folder / file, "r+b") as target:
                    blocks = _write_rows(target, [p[name] for p in parts], sizes, order, start, known)
                    target.flush()
                    os.fsync(target.fileno())
            else:
                room = name.split("/")[0]
                file = f"{room}{'' if room == name else number}.{generation}.bin"
                with replacing(self.folder / file) as path, open(path, "w+b") as target:
                    blocks = _write_rows(target, [p[name] for p in parts], sizes, order, 0, ())
            tensors[name] = _Tensor(file, dtype, shape, blocks)
        header: dict[str, Any] = {"store": FORMAT, "identity": asdict(self.identity), "generation": generation}
        if tensors:
            header |= {"rows": start + len(order), "block": BLOCK, "tensors": {name: asdict(t) for name, t in tensors.items()}}
        write_atomic(self.folder / MANIFEST, _seal(header) + "\n")
        self._bad_rows = None

    def _sweep(self) -> None:
        """Remove what the manifest does not need: shards that are compacted, files of before, what a kill left.

        Nothing of the present generation, for another rank may have begun to write more of it.
        """
        manifest = _read(self.folder)
        assert manifest is not None
        kept = {t.file for t in manifest.compacted.tensors.values()} if manifest.compacted else set()
        stale = [p for p in self.folder.glob("*.bin") if p.name not in kept]
        stale += [p for p in self.folder.glob("shard.*.safetensors") if int(p.name.split(".")[1]) < manifest.generation]
        stale += [p for p in self.folder.glob(".shard.*.tmp") if int(p.name.split(".")[2]) < manifest.generation]
        stale += [*self.folder.glob(".*.bin.*.tmp"), *self.folder.glob(f".{MANIFEST}.*.tmp")]
        for path in stale:
            path.unlink(missing_ok=True)
        self.refresh()


def _write_rows(
    target: IO[bytes], parts: list[Tensor], sizes: NDArray[np.int64], order: NDArray[np.int64], start: int, known: Sequence[str]
) -> tuple[str, ...]:
    """Write rows of the joined parts in this order from row `start` on; the checksums of all blocks.

    In pieces of about 64 MB that end with a block, each gathered part by part: answers may be larger than memory.
    """
    like = parts[0]
    row_bytes = math.prod(like.shape[1:]) * like.dtype.itemsize
    piece = max(1, SHARD_BYTES // max(1, row_bytes) // BLOCK) * BLOCK
    blocks = list(known[: start // BLOCK])
    target.seek(start // BLOCK * BLOCK * row_bytes)
    head = target.read(start % BLOCK * row_bytes)  # of the last block, which is not full
    target.seek(start * row_bytes)
    target.truncate()
    total = start + len(order)
    low = start
    while low < total:
        high = min(total, (low // piece + 1) * piece)
        rows = order[low - start : high - start]
        which = np.searchsorted(sizes, rows, side="right") - 1
        gathered = torch.empty((high - low, *like.shape[1:]), dtype=like.dtype)
        for part in np.unique(which):
            here = np.flatnonzero(which == part)
            gathered[torch.from_numpy(here)] = parts[part][torch.from_numpy(rows[here] - sizes[part])]
        content = _little(gathered)
        target.write(content)
        for block in range(low // BLOCK, math.ceil(high / BLOCK)):
            first, last = max(low, block * BLOCK) - low, min(high, (block + 1) * BLOCK) - low
            blocks.append(_checksum(head, content[first * row_bytes : last * row_bytes]))
            head = b""
        low = high
    return tuple(blocks)


# ── the manifest ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Shard:
    file: str
    rows: int
    bytes: int
    checksum: str

    def broken(self, folder: Path) -> str:
        """What is wrong with the file, by name; "" for nothing."""
        path = folder / self.file
        if not path.exists():
            return f"{self.file} is missing ({self.rows:,} rows)"
        if (size := path.stat().st_size) != self.bytes:
            return f"{self.file} has {size:,} bytes, {self.bytes:,} were written ({self.rows:,} rows)"
        if digest_file(path, size=8) != self.checksum:
            return f"{self.file} does not match its checksum ({self.rows:,} rows)"
        return ""


@dataclass(frozen=True)
class _Tensor:
    file: str
    dtype: str
    shape: tuple[int, ...]  # of one row
    blocks: tuple[str, ...]  # checksum of each block of rows

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype][0].itemsize


@dataclass(frozen=True)
class _Compacted:
    rows: int
    tensors: Mapping[str, _Tensor]


@dataclass(frozen=True)
class _Manifest:
    identity: Identity
    generation: int = 0
    compacted: _Compacted | None = None
    shards: tuple[_Shard, ...] = ()

    @property
    def rows(self) -> int:
        return sum(s.rows for s in self.shards) + (self.compacted.rows if self.compacted else 0)


@dataclass
class _Damage:
    """What does not match: sentences that name it, and which compacted rows it touches."""

    sentences: list[str] = field(default_factory=list)
    rows: NDArray[np.bool_] | None = None

    def __bool__(self) -> bool:
        return bool(self.sentences)

    def __str__(self) -> str:
        return "; ".join(self.sentences)

    @classmethod
    def find(cls, folder: Path, manifest: _Manifest, *, contents: bool = True, shards: bool = True) -> _Damage:
        """Compare what is on disk with the manifest; contents: False looks at the sizes of compacted files alone."""
        damage = cls()
        if shards:
            damage.sentences += [b for s in manifest.shards if (b := s.broken(folder))]
        if manifest.compacted:
            rows = manifest.compacted.rows
            for tensor in manifest.compacted.tensors.values():
                bad = _bad_blocks(folder / tensor.file, tensor, rows, contents)
                if not bad:
                    continue
                if damage.rows is None:
                    damage.rows = np.zeros(rows, dtype=bool)
                for block in bad:
                    damage.rows[block * BLOCK : (block + 1) * BLOCK] = True
                first, last = bad[0] * BLOCK, min(rows, (bad[-1] + 1) * BLOCK) - 1
                damage.sentences.append(f"{tensor.file}, {len(bad)} of {len(tensor.blocks)} blocks between rows {first:,} and {last:,}")
        return damage


def _bad_blocks(path: Path, tensor: _Tensor, rows: int, contents: bool) -> list[int]:
    size = path.stat().st_size if path.exists() else 0
    bad = [b for b in range(len(tensor.blocks)) if size < min(rows, (b + 1) * BLOCK) * tensor.row_bytes]
    if contents and len(bad) < len(tensor.blocks):
        with open(path, "rb") as file:
            for block, checksum in enumerate(tensor.blocks[: len(tensor.blocks) - len(bad)]):
                count = min(rows - block * BLOCK, BLOCK)
                if _checksum(file.read(count * tensor.row_bytes)) != checksum:
                    bad.append(block)
    return sorted(bad)


def _read(folder: Path) -> _Manifest | None:
    """The manifest of a folder, the lines of all ranks together; None where there is no store."""
    own = folder / MANIFEST
    paths = sorted(folder.glob("manifest.*.jsonl"))
    if own.exists():
        paths.insert(0, own)
    manifest: _Manifest | None = None
    shards: list[_Shard] = []
    for path in paths:
        lines = _lines(path)
        if not lines and path != own:
            continue
        header = _unseal(lines[0]) if lines else None
        if header is None or header.get("store") != FORMAT:
            what = "does not read" if header is None else f"has format {header.get('store')!r}, this attar reads {FORMAT}"
            raise StoreError(f"the first line of {path} {what}", hint="remove the folder and annotate once more")
        if manifest is None:
            manifest = _parse(header)
        else:
            _same(folder, manifest.identity, _parse(header).identity)
        shards += [_Shard(r["shard"], r["rows"], r["bytes"], r["checksum"]) for r in map(_unseal, lines[1:]) if r is not None]
    if manifest is None:
        return None
    live = [s for s in shards if int(s.file.split(".")[1]) == manifest.generation]
    return _Manifest(manifest.identity, manifest.generation, manifest.compacted, tuple(live))


def _parse(header: dict[str, Any]) -> _Manifest:
    raw = header["identity"]
    identity = Identity(raw["source"], raw["augmentation"], tuple(raw["taps"]), raw["precision"])
    if "tensors" not in header:
        return _Manifest(identity, header["generation"])
    tensors = {n: _Tensor(t["file"], t["dtype"], tuple(t["shape"]), tuple(t["blocks"])) for n, t in header["tensors"].items()}
    return _Manifest(identity, header["generation"], _Compacted(header["rows"], tensors))


def _lines(path: Path) -> list[str]:
    """Complete lines; what follows the last line's end is torn and does not count."""
    return path.read_bytes().decode("utf-8", errors="replace").split("\n")[:-1]


def _mend(path: Path) -> None:
    """Cut off a torn last line, or the next one would be appended to it and lost with it."""
    with explain_disk(path), open(path, "r+b") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())


def _seal(record: dict[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True)
    return json.dumps({**record, "check": digest(text, size=8)}, sort_keys=True)


def _unseal(line: str) -> dict[str, Any] | None:
    """The record of a line; None where a byte of it has changed."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    check = record.pop("check", None)
    return record if check == digest(json.dumps(record, sort_keys=True), size=8) else None


def _manifest_name(rank: int) -> str:
    return MANIFEST if rank == 0 else f"manifest.{rank}.jsonl"


def _same(folder: Path, stored: Identity, asked: Identity) -> None:
    if differences := stored.differences(asked):
        raise StoreError(f"the answers at {folder} are of {'; '.join(differences)}", hint="choose another folder, or remove this one")


def _lock(folder: Path, rank: int) -> IO[str]:
    """Held while a process writes as this rank; the system lets go of it when the process ends, however it ends."""
    with explain_disk(folder):
        lock = open(folder / f".lock.{rank}", "a", encoding="utf-8")  # noqa: SIM115  (the Writer closes it)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise StoreError(f"another process is writing to {folder}", hint="wait for it, or choose another folder") from error
    return lock


# ── tensors and bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _map(folder: Path, manifest: _Manifest) -> dict[str, Tensor]:
    """The compacted tensors, memory-mapped."""
    assert manifest.compacted is not None
    found = {}
    for name, tensor in manifest.compacted.tensors.items():
        shape, dtype = (manifest.compacted.rows, *tensor.shape), DTYPES[tensor.dtype][1]
        path = folder / tensor.file
        if path.exists() and path.stat().st_size >= manifest.compacted.rows * tensor.row_bytes:
            # "c" is copy on write: torch warns of arrays that may not be written to, and the file must not be
            array = np.asarray(np.memmap(path, dtype=dtype, mode="c", shape=shape))
        else:  # damaged; the rows that are there may yet be kept
            array = np.zeros(shape, dtype)
            content = np.frombuffer(path.read_bytes() if path.exists() else b"", np.uint8)
            array.view(np.uint8).reshape(-1)[: len(content)] = content
        found[name] = torch.from_numpy(array)
    return found


def _load(folder: Path, shard: _Shard, identity: Identity) -> dict[str, Tensor]:
    """The tensors of a shard, mapped by safetensors."""
    tensors = load_file(folder / shard.file)
    lost = {"ids", "views", "output", *(f"taps/{t}" for t in identity.taps)} - tensors.keys()
    if lost or len(tensors["ids"]) != shard.rows:
        raise StoreError(f"{shard.file} in {folder} does not hold what its line says", hint="remove it and annotate once more")
    return tensors


def _sorted_unique(ids: Tensor, views: Tensor) -> NDArray[np.int64]:
    """Row numbers by (id, view), each key once: its first row."""
    i, v = ids.numpy(), views.numpy()
    order = np.lexsort((v, i))  # stable
    repeated = np.zeros(len(order), dtype=bool)
    repeated[1:] = (i[order[1:]] == i[order[:-1]]) & (v[order[1:]] == v[order[:-1]])
    return order[~repeated]


def _check_range(name: str, value: Tensor, small: Tensor, ids: Tensor) -> None:
    """Refuse numbers that the precision cannot hold; an infinity or NaN that was there before is its owner's business."""
    lost = torch.isfinite(value) & ~torch.isfinite(small)
    if bool(lost.any()):
        row = int(lost.flatten(1).any(1).nonzero()[0]) if value.ndim > 1 else int(lost.nonzero()[0])
        number = float(value[row][lost[row]].flatten()[0])
        raise StoreError(
            f"{name} of row id {int(ids[row])} is {number:g}, beyond ±{torch.finfo(small.dtype).max:g} of {str(small.dtype)[6:]}",
            hint='precision="float32"',
        )


def _little(tensor: Tensor) -> bytes:
    return tensor.numpy().astype(DTYPES[str(tensor.dtype).removeprefix("torch.")][1], copy=False).tobytes()


def _checksum(*pieces: bytes) -> str:
    h = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        h.update(piece)
    return h.hexdigest()


def _under(room: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.split("/", 1)[1]: value for name, value in tensors.items() if name.startswith(room + "/")}
