"""The manifest: what is complete, in which files, with which checksums; a line for each shard, each line with a check."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from attar.errors import StoreError
from attar.files import explain_disk
from attar.identity import digest, digest_file
from attar.store.answers import BLOCK, DTYPES, Identity

__all__ = [
    "FORMAT",
    "MANIFEST",
    "Compacted",
    "Damage",
    "Manifest",
    "Mapped",
    "Shard",
    "checksum_of",
    "load_shard",
    "manifest_name",
    "map_files",
    "mend",
    "need_same",
    "read_manifest",
    "seal",
]

FORMAT = 1
MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Shard:
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
class Mapped:
    file: str
    dtype: str
    shape: tuple[int, ...]  # of one row
    blocks: tuple[str, ...]  # checksum of each block of rows

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype][0].itemsize


@dataclass(frozen=True)
class Compacted:
    rows: int
    tensors: Mapping[str, Mapped]


@dataclass(frozen=True)
class Manifest:
    identity: Identity
    generation: int = 0
    compacted: Compacted | None = None
    shards: tuple[Shard, ...] = ()

    @property
    def rows(self) -> int:
        return sum(s.rows for s in self.shards) + (self.compacted.rows if self.compacted else 0)


@dataclass
class Damage:
    """What does not match: sentences that name it, and which compacted rows it touches."""

    sentences: list[str] = field(default_factory=list)
    rows: NDArray[np.bool_] | None = None

    def __bool__(self) -> bool:
        return bool(self.sentences)

    def __str__(self) -> str:
        return "; ".join(self.sentences)

    @classmethod
    def find(cls, folder: Path, manifest: Manifest, *, contents: bool = True, shards: bool = True) -> Damage:
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


def _bad_blocks(path: Path, tensor: Mapped, rows: int, contents: bool) -> list[int]:
    size = path.stat().st_size if path.exists() else 0
    bad = [b for b in range(len(tensor.blocks)) if size < min(rows, (b + 1) * BLOCK) * tensor.row_bytes]
    if contents and len(bad) < len(tensor.blocks):
        with open(path, "rb") as file:
            for block, checksum in enumerate(tensor.blocks[: len(tensor.blocks) - len(bad)]):
                count = min(rows - block * BLOCK, BLOCK)
                if checksum_of(file.read(count * tensor.row_bytes)) != checksum:
                    bad.append(block)
    return sorted(bad)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, the lines of all ranks together; None where there is no store."""
    own = folder / MANIFEST
    paths = sorted(folder.glob("manifest.*.jsonl"))
    if own.exists():
        paths.insert(0, own)
    manifest: Manifest | None = None
    shards: list[Shard] = []
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
            need_same(folder, manifest.identity, _parse(header).identity)
        shards += [Shard(r["shard"], r["rows"], r["bytes"], r["checksum"]) for r in map(_unseal, lines[1:]) if r is not None]
    if manifest is None:
        return None
    live = [s for s in shards if int(s.file.split(".")[1]) == manifest.generation]
    return Manifest(manifest.identity, manifest.generation, manifest.compacted, tuple(live))


def _parse(header: dict[str, Any]) -> Manifest:
    raw = header["identity"]
    identity = Identity(raw["source"], raw["augmentation"], tuple(raw["taps"]), raw["precision"])
    if "tensors" not in header:
        return Manifest(identity, header["generation"])
    tensors = {n: Mapped(t["file"], t["dtype"], tuple(t["shape"]), tuple(t["blocks"])) for n, t in header["tensors"].items()}
    return Manifest(identity, header["generation"], Compacted(header["rows"], tensors))


def _lines(path: Path) -> list[str]:
    """Complete lines; what follows the last line's end is torn and does not count."""
    return path.read_bytes().decode("utf-8", errors="replace").split("\n")[:-1]


def mend(path: Path) -> None:
    """Cut off a torn last line, or the next one would be appended to it and lost with it."""
    with explain_disk(path), open(path, "r+b") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())


def seal(record: dict[str, Any]) -> str:
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


def manifest_name(rank: int) -> str:
    return MANIFEST if rank == 0 else f"manifest.{rank}.jsonl"


def need_same(folder: Path, stored: Identity, asked: Identity) -> None:
    if differences := stored.differences(asked):
        raise StoreError(f"the answers at {folder} are of {'; '.join(differences)}", hint="choose another folder, or remove this one")


def map_files(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
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


def load_shard(folder: Path, shard: Shard, identity: Identity) -> dict[str, Tensor]:
    """The tensors of a shard, mapped by safetensors."""
    tensors = load_file(folder / shard.file)
    lost = {"ids", "views", "output", *(f"taps/{t}" for t in identity.taps)} - tensors.keys()
    if lost or len(tensors["ids"]) != shard.rows:
        raise StoreError(f"{shard.file} in {folder} does not hold what its line says", hint="remove it and annotate once more")
    return tensors


def checksum_of(*pieces: bytes) -> str:
    h = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        h.update(piece)
    return h.hexdigest()
