"""A store being filled: shards as answers come, mapped files when all are there."""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from attar.errors import StoreError
from attar.files import append_line, explain_disk, need_space, replacing, write_atomic
from attar.signal import Signal
from attar.store.answers import BLOCK, DTYPES, Identity
from attar.store.manifest import (
    FORMAT,
    MANIFEST,
    Damage,
    Manifest,
    Mapped,
    checksum_of,
    load_shard,
    manifest_name,
    map_files,
    mend,
    need_same,
    read_manifest,
    seal,
)
from attar.store.reader import Index, sorted_unique

__all__ = ["Writer"]

SHARD_BYTES = 64_000_000  # a shard never waits for more than this
SHARD_SECONDS = 30.0  # nor for longer than this: what a kill may lose of a slow teacher's time


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
        self._manifest = Manifest(identity)
        self._index = Index(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int32))
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
            manifest = read_manifest(folder)
            if manifest is not None:
                need_same(folder, manifest.identity, identity)
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
        manifest = read_manifest(self.folder)
        if manifest is None:
            return
        parts = []
        if manifest.compacted:
            mapped = map_files(self.folder, manifest)
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
                part = load_shard(self.folder, shard, manifest.identity)
                parts.append(part)
                self._check_shapes({name: tuple(value.shape[1:]) for name, value in part.items()})
        none = torch.empty(0, dtype=torch.int64)
        self._index = Index(torch.cat([none, *(p["ids"] for p in parts)]), torch.cat([none.int(), *(p["views"] for p in parts)]))
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
        old = map_files(self.folder, manifest) if manifest.compacted else None
        good = self._good_rows(manifest)
        parts = [load_shard(self.folder, s, manifest.identity) for s in manifest.shards if s.file in self._sound]
        start = manifest.compacted.rows if manifest.compacted else 0
        keep = torch.ones(sum(len(p["ids"]) for p in parts), dtype=torch.bool)
        if old is not None and good is not None:  # written anew, from what is sound and what was asked again
            parts, start, keep = [old, *parts], 0, torch.cat((good, keep))
        order = np.empty(0, dtype=np.int64)
        if parts:
            ids, views = torch.cat([p["ids"] for p in parts]), torch.cat([p["views"] for p in parts])
            if old is not None and start:  # the same row from two ranks: what is compacted counts
                keep &= Index(old["ids"], old["views"]).find(ids, views) < 0
            kept = keep.nonzero().squeeze(1)
            order = kept.numpy()[sorted_unique(ids[kept], views[kept])]
        if manifest.shards or good is not None:
            self._write(parts, order, start)
        self._sweep()

    def _begin(self, manifest: Manifest | None) -> None:
        own = self.folder / manifest_name(self.rank)
        if not own.exists():
            write_atomic(own, seal({"store": FORMAT, "identity": asdict(self.identity), "generation": 0}) + "\n")
        mend(own)
        for leftover in self.folder.glob(f".shard.*.{self.rank}.*.tmp"):
            leftover.unlink()
        if manifest is not None and manifest.compacted:
            damage = Damage.find(self.folder, manifest, shards=False)
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

    def _good_rows(self, manifest: Manifest) -> Tensor | None:
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
            line = {"shard": name, "rows": rows, "bytes": len(content), "checksum": checksum_of(content)}
            append_line(self.folder / manifest_name(self.rank), seal(line))
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
            tensors[name] = Mapped(file, dtype, shape, blocks)
        header: dict[str, Any] = {"store": FORMAT, "identity": asdict(self.identity), "generation": generation}
        if tensors:
            header |= {"rows": start + len(order), "block": BLOCK, "tensors": {name: asdict(t) for name, t in tensors.items()}}
        write_atomic(self.folder / MANIFEST, seal(header) + "\n")
        self._bad_rows = None

    def _sweep(self) -> None:
        """Remove what the manifest does not need: shards that are compacted, files of before, what a kill left.

        Nothing of the present generation, for another rank may have begun to write more of it.
        """
        manifest = read_manifest(self.folder)
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
            blocks.append(checksum_of(head, content[first * row_bytes : last * row_bytes]))
            head = b""
        low = high
    return tuple(blocks)


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


def _little(tensor: Tensor) -> bytes:
    return tensor.numpy().astype(DTYPES[str(tensor.dtype).removeprefix("torch.")][1], copy=False).tobytes()
