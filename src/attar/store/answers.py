"""What is stored: whose answers, in which form, of which size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from attar.errors import StoreError
from attar.signal import Signal

__all__ = ["BLOCK", "DTYPES", "FLOATS", "KEY_BYTES", "Identity", "Precision", "Size", "estimate"]

Precision = Literal["float16", "float32"]

BLOCK = 4096  # rows under one checksum of a compacted file: what is asked again when a byte of it is damaged
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
        mine, theirs = asdict(self), asdict(other)
        parts = {
            "source": "another teacher",
            "augmentation": "another augmentation",
            "taps": "other taps",
            "precision": "another precision",
        }
        return [f"{what} (stored {mine[p]!r}, asked {theirs[p]!r})" for p, what in parts.items() if mine[p] != theirs[p]]

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
