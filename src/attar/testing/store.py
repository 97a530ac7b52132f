"""The battery of the store: kill it at any byte; what it reports as complete is complete. And toys whose answers are known."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attar.data import Data, Split
from attar.identity import digest
from attar.signal import NOTHING, Batch, Schema, Signal
from attar.store import Store, complete_rows

__all__ = ["Plain", "kill_at_any_byte", "plain_data"]


def plain_data(rows: int = 200, classes: int = 3, *, views: int = 0, seed: int = 0, repeat: int = 0) -> Data:
    """Rows of `classes` numbers in four splits; an augmented row is the row plus the number of its view, so that answers are known.

    repeat: how many training rows are there twice.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, classes, generator=generator)
    ids = torch.randint(-(2**62), 2**62, (rows,), generator=generator)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    schema = Schema("tensor", shape=(classes,), classes=tuple(f"class {c}" for c in range(classes)))
    edges = [0, rows * 6 // 10, rows * 7 // 10, rows * 8 // 10, rows]
    splits = {}
    for name, low, high in zip(("train", "valid", "calibration", "test"), edges, edges[1:], strict=False):
        at = torch.arange(low, high)
        if name == "train" and repeat:
            at = torch.cat((at, at[:repeat]))
        own = inputs[at]
        seen = (lambda index, _, v, own=own: own[index] + v[:, None]) if views and name == "train" else None
        splits[name] = Split(name, ids[at], labels[at], None, schema, lambda index, own=own: own[index], seen)
    text = "shift(1)" if views else ""
    return Data(schema, "classification", **splits, fingerprint=digest("plain", rows, classes, seed), views=views, augmentation=text)


@dataclass
class Plain:
    """A teacher that answers each row by itself, bit for bit whatever stands beside it in the batch: its inputs times `scale`.

    asked: how many rows it has been asked so far.
    """

    scale: float = 2.0
    asked: int = field(default=0, compare=False)

    @property
    def fingerprint(self) -> str:
        return digest("plain", self.scale)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert isinstance(batch.inputs, Tensor)
        self.asked += len(batch)
        return Signal(batch.inputs * self.scale, dict.fromkeys(taps, batch.inputs + 1))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        return lambda: self(batch)


def kill_at_any_byte(fill: Callable[[Path], object], answer: Callable[[Tensor, Tensor], Tensor], scratch: Path) -> int:
    """Kill `fill` at every step of what it writes, and within each; returns how many states of the folder were looked at.

    fill: fills the store in a folder, going on with what is there. answer: (R,) ids and views → (R, ...) what must be stored.
    For each state: what is reported complete is right, no complete row is lost from one step to the next, and filling once more gives
    the bytes of the fill that nobody killed. Raises AssertionError with the state otherwise. A state is the folder before an open for
    writing (and after it, where it empties a file), a rename or a removal; between two of them, each file that grew is cut short at
    its first, middle and last byte.
    """
    whole = scratch / "whole"
    states: list[Path] = []

    def snapshot(emptied: str) -> None:
        states.append(shutil.copytree(whole, scratch / f"state {len(states)}"))
        if emptied:
            states.append(shutil.copytree(whole, scratch / f"state {len(states)}"))
            (states[-1] / emptied).write_bytes(b"")

    with _before_each_change(whole, snapshot):
        fill(whole)
    states.append(whole)
    expected = _mapped(whole)
    assert expected, "fill left nothing compacted"
    looked = least = 0
    for before, after in zip([None, *states], states, strict=False):
        for state in chain(_torn(before, after, scratch / "torn"), [after]):
            rows = complete_rows(state) if state.exists() else 0
            assert rows >= least, f"{state}: {rows} complete rows, {least} before"
            if rows:
                store = Store.open(state)
                assert len(store) == rows, f"{state}: reports {rows} rows, holds {len(store)}"
                assert torch.equal(store.output, answer(store.ids, store.views)), f"{state}: an answer is wrong"
            again = shutil.copytree(state, scratch / "again")
            fill(again)
            assert _mapped(again) == expected, f"{state}: filled once more, it is not what an undisturbed fill gives"
            shutil.rmtree(again)
            looked += 1
        least = complete_rows(after)
    return looked


@contextmanager
def _before_each_change(folder: Path, snapshot: Callable[[str], object]) -> Iterator[None]:
    """Call `snapshot` before each open for writing, rename and removal in `folder`, with the name of a file that is being emptied.

    An audit hook cannot be taken away again: afterwards it stays and does nothing.
    """
    watching = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal watching
        if not watching or event not in ("open", "os.rename", "os.remove", "os.truncate"):
            return
        flags = (args[2] or 0) if event == "open" else os.O_WRONLY
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(args[0]).startswith(f"{folder}{os.sep}"):
            path = Path(str(args[0]))
            watching = False
            try:
                snapshot(path.name if flags & os.O_TRUNC and path.exists() else "")
            finally:
                watching = True

    sys.addaudithook(hook)
    try:
        yield
    finally:
        watching = False


def _torn(before: Path | None, after: Path, at: Path) -> Iterator[Path]:
    """The folder as it is while one file grows from `before` to `after`; a renamed file is there whole or not at all."""
    known = {p.read_bytes() for p in before.iterdir()} if before is not None else set()
    for path in sorted(p for p in after.iterdir() if p.is_file()):
        new = path.read_bytes()
        if new in known:
            continue
        earlier = before / path.name if before is not None else path.with_name("nothing is called so")
        old = earlier.read_bytes() if earlier.exists() else b""
        kept = len(old) if new.startswith(old) else 0
        cuts = {kept, kept + 1, (kept + len(new)) // 2, len(new) - 1} if len(new) > kept else set()
        for cut in sorted(c for c in cuts if kept <= c < len(new)):
            shutil.copytree(after, at)
            (at / path.name).write_bytes(new[:cut])
            yield at
            shutil.rmtree(at)


def _mapped(folder: Path) -> dict[str, bytes]:
    """The compacted files by name without their generation, which tells how often a fill was begun."""
    return {p.name.split(".")[0]: p.read_bytes() for p in folder.glob("*.bin")}
