"""Ask a source every row of the data once, and store what it says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attar.data import Data, Split
from attar.errors import DataError, ObjectiveError, StoreError, TeacherError, near
from attar.files import need_space
from attar.progress import Event, Listener, silent
from attar.signal import NOTHING, Batch, Schema, Signal, Source
from attar.sources.cached import Cached
from attar.sources.ema import Ema
from attar.sources.told import told
from attar.store import Identity, Precision, Store, Writer, estimate
from attar.task import Task, task_for

__all__ = ["annotate"]

SPLITS = ("train", "valid", "calibration", "test")
PROBE = 8  # rows by which a tap is seen to be even
PATIENCE_S = 1800.0  # how long one of several processes waits for the others while nothing new is written


def annotate(
    source: Source,
    data: Data,
    *,
    at: str | Path | None = None,
    splits: Sequence[str] = SPLITS,
    views: int | None = None,
    precision: Precision | None = None,
    taps: frozenset[str] = NOTHING,
    task: Task | None = None,
    batch: int = 1024,
    shard: int = 16_384,
    resume: bool = True,
    listen: Listener = silent,
) -> Cached:
    """Store what `source` answers to each row of `data`, and return the source with its answers at hand.

    at: the store's folder; None keeps the answers in memory. Rows that are there are not asked again: equal rows are asked once, a new
        row costs one row, and a kill loses what was asked since the last shard. resume: False refuses a folder that holds answers.
    splits: whose rows. Training rows are asked as they are (view 0) and in views 1..`views` of the declared augmentation; by default
        as many as the data say. Other rows as they are.
    precision: of the stored numbers; None: float16 for classes and vectors (half a thousandth of a number's size), float32 for a
        regression.
    taps: what is stored beside the output. Where one of them is longer in one batch than in another, as the states of a text's tokens
        are, none is stored, an event says so, and who trains on them asks the source as it goes.
    task: what the answers must fit; None: what the data are.
    batch: rows asked at a time. shard: rows after which they are written. Launched by torchrun, each process asks its share.

    Checks on the first batch that the answers fit the data and the disk. Raises TeacherError for another number of outcomes, or an
    answer that is NaN, +∞ or −∞ throughout; StoreError for a folder with another source's answers; DiskFull.

    >>> answers = annotate(teacher, data, at="runs/credit/answers")     # doctest: +SKIP
    >>> answers.signal(answers.locate(data.train.ids))                  # doctest: +SKIP
    """
    views = data.views if views is None else views
    _check(data, splits, views)
    task = (task or task_for(data.schema, data.kind)).bind(data.schema)
    chosen: Precision = precision or ("float32" if task.kind == "regression" else "float16")
    if isinstance(source, Ema):
        raise TeacherError(
            f"{source!r} answers otherwise after each step: nothing of it can be stored", hint="distill asks it as it trains"
        )
    source = told(source, data.train)
    if splits and (uneven := _uneven(source, taps, data.splits[splits[0]])):
        text = f"{', '.join(uneven)}: as long as the longest row of a batch, so that no tap is stored"
        listen(Event("annotate", text=f"{text}: the teacher is asked while the student trains"))
        taps = NOTHING
    identity = Identity(source.fingerprint, data.augmentation, tuple(sorted(taps)), chosen)
    wanted = [_Wanted(data.splits[name], view) for name in splits for view in range(views + 1 if name == "train" else 1)]
    teacher = _Teacher(source, taps, task, data.schema)
    if at is None:
        store = _in_memory(teacher, identity, _distinct(wanted), batch, listen)
    else:
        store = _on_disk(teacher, identity, _distinct(wanted), Path(at), batch, shard, resume, listen)
    if len(store):
        teacher.check_shape(store.output[:1])
    return Cached(source, at, store=store, augmentation=data.augmentation)


@dataclass(frozen=True)
class _Wanted:
    """Rows of one split in one view; index: their positions, None for all."""

    split: Split
    view: int
    index: Tensor | None = None

    @property
    def ids(self) -> Tensor:
        return self.split.ids if self.index is None else self.split.ids[self.index]

    def views(self, rows: int) -> Tensor:
        return torch.full((rows,), self.view)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Batch]]:
        """(ids, views, the batch itself) by batches; rows in view 0 as they are, which costs no augmentation."""
        assert self.index is not None
        for index in self.index.split(size) if len(self.index) else ():
            views = self.views(len(index))
            yield self.split.ids[index], views, self.split.batch(index, views if self.view else None)


@dataclass(frozen=True)
class _Teacher:
    """A source whose answers are looked at before they are kept."""

    source: Source
    taps: frozenset[str]
    task: Task
    schema: Schema

    def __call__(self, batch: Batch, ids: Tensor, *, first: bool) -> Signal:
        with torch.no_grad():
            signal = self.source(batch, self.taps)
        if first:
            if len(signal.output) != len(ids):
                raise TeacherError(f"{len(signal.output)} answers to {len(ids)} rows", hint="a source answers each row once, in order")
            self.check_shape(signal.output)
        best = signal.output.amax(-1) if signal.output.ndim > 1 else signal.output  # NaN wins, +∞ wins, −∞ only if it is alone
        if self.task.kind == "embedding":  # no coordinate is absent
            best = signal.output.abs().amax(-1)
        if not bool(torch.isfinite(best).all()):
            raise self._broken(signal.output, best, ids)
        return signal

    def check_shape(self, output: Tensor) -> None:
        """Raise TeacherError where an answer's form is not what the data ask."""
        try:
            self.task.canonical(output)
        except ObjectiveError as error:
            form = tuple(output.shape[1:])
            if self.task.kind == "embedding":
                what = f"the teacher answers {form} a row, asked is a vector for each of {self.task.texts} texts"
                raise TeacherError(what, hint=f"({self.task.texts}, coordinates) a row; is it a classifier?") from error
            if self.task.kind == "regression":
                what = f"the teacher answers {form} a row, the data have one number, {self.schema.label!r}"
                raise TeacherError(what, hint="is it a classifier? then say task: classification()") from error
            names = ", ".join(self.schema.classes[:8]) + (", …" if len(self.schema.classes) > 8 else "")
            kind = "labels" if self.task.kind == "multilabel" else "classes"
            count = f"{form[-1]} outcomes" if len(form) == 1 else f"{form} a row"
            raise TeacherError(
                f"the teacher answers {count}, the data have {len(self.schema.classes)} {kind}: {names}",
                hint="is this the teacher of these data? `classes=` of a teacher names its outcomes",
            ) from error

    def _broken(self, output: Tensor, best: Tensor, ids: Tensor) -> TeacherError:
        rows = (~torch.isfinite(best)).reshape(len(best), -1).any(1).nonzero().squeeze(1).cpu()
        value = output[rows[0]].reshape(-1)
        absent = "−∞" if self.task.kind == "embedding" else "−∞ for every outcome"
        kind = "NaN" if bool(torch.isnan(value).any()) else "+∞" if bool((value == torch.inf).any()) else absent
        shown = ", ".join(str(i) for i in ids[rows[:3]].tolist()) + (", …" if len(rows) > 3 else "")
        return TeacherError(
            f"the teacher answers {kind}; {len(rows):,} such of the {len(ids):,} rows of this batch, ids {shown}",
            hint="look at these rows; an outcome that cannot be is −∞ and the others finite",
        )


def _uneven(source: Source, taps: frozenset[str], split: Split) -> tuple[str, ...]:
    """The taps whose size depends on the other rows of a batch, seen on a few rows: together, and each alone.

    A tap with a mask has token positions, and is one even where these rows happen to be equally long.
    """
    if not taps or not len(split):
        return ()
    index = torch.arange(min(PROBE, len(split)))
    with torch.no_grad():
        together = source(split.batch(index), taps)
        alone = [source(split.batch(one), taps) for one in index.split(1)]
    forms = {tap: {tuple(signal.taps[tap].shape[1:]) for signal in (together, *alone)} for tap in taps}
    by_text = {tap for tap in taps if len(together.taps[tap]) != len(index)}  # where texts of a row are read each by itself
    return tuple(tap for tap in sorted(taps) if tap in together.masks or tap in by_text or len(forms[tap]) > 1)


def _check(data: Data, splits: Sequence[str], views: int) -> None:
    for name in splits:
        if name not in data.splits:
            raise DataError(f"no split {name!r}", hint=near(name, data.splits))
    if views and not data.augmentation:
        raise DataError(f"views={views} of data that declare no augmentation", hint="augment= declares one; or leave views out")


def _distinct(wanted: Sequence[_Wanted]) -> list[_Wanted]:
    """The same with positions; of rows with equal id and view only the first."""
    seen: dict[int, list[np.ndarray]] = {}
    found = []
    for want in wanted:
        ids = want.split.ids.numpy()
        _, first = np.unique(ids, return_index=True)
        first.sort()
        for before in seen.get(want.view, []):
            first = first[~np.isin(ids[first], before)]
        seen.setdefault(want.view, []).append(ids)
        found.append(_Wanted(want.split, want.view, torch.from_numpy(first)))
    return found


class _Progress:
    """Says how far it is, and how fast."""

    def __init__(self, total: int, listen: Listener) -> None:
        self.total, self.listen = total, listen
        self.done = 0
        self.started = time.perf_counter()

    def say(self, text: str = "") -> None:
        seconds = time.perf_counter() - self.started
        rate = self.done / seconds if self.done and seconds else 0.0
        text = text or f"{self.done:,} of {self.total:,} rows, {rate:,.0f} a second"
        self.listen(Event("annotate", self.done, self.total, text, {"rows_per_second": rate}))


def _in_memory(teacher: _Teacher, identity: Identity, wanted: Sequence[_Wanted], size: int, listen: Listener) -> Store:
    progress = _Progress(sum(len(w.ids) for w in wanted), listen)
    parts: list[dict[str, Tensor]] = []
    for want in wanted:
        for ids, views, batch in want.batches(size):
            parts.append(identity.tensors(ids, views, teacher(batch, ids, first=not parts)))
            progress.done += len(ids)
    progress.say()
    if not parts:
        raise DataError("no rows to annotate", hint="every split asked for is empty")
    return Store.of(identity, parts)


def _on_disk(
    teacher: _Teacher,
    identity: Identity,
    wanted: Sequence[_Wanted],
    folder: Path,
    size: int,
    shard: int,
    resume: bool,
    listen: Listener,
) -> Store:
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    with Writer.open(folder, identity, rank=rank, shard=shard, resume=resume) as writer:
        for damage in writer.damage:
            listen(Event("annotate", text=f"{folder} is damaged and will be mended: {damage}"))
        missing = [_lacking(want, writer, rank, world, shard) for want in wanted]
        progress = _Progress(sum(len(w.ids) for w in missing), listen)
        first = True
        for want in missing:
            for ids, views, batch in want.batches(size):
                signal = teacher(batch, ids, first=first)
                if first:
                    _announce(progress, signal, identity, folder)
                    first = False
                written = writer.add(ids, views, signal)
                progress.done += len(ids)
                if written and progress.done < progress.total:  # the last word is said when all is on disk
                    progress.say()
        writer.flush()
        if progress.total:
            progress.say()
        if world > 1:
            _wait(writer, wanted, compacted=rank != 0)
        if rank == 0:
            writer.compact()
    return Store.open(folder, identity, verify=False)


def _lacking(want: _Wanted, writer: Writer, rank: int, world: int, shard: int) -> _Wanted:
    """What is not on disk yet, and this rank's to ask: every world-th run of `shard` rows.

    Shares follow from positions alone, so that ranks which look at different moments agree on them.
    """
    assert want.index is not None
    ids = want.ids
    lacking = ~writer.has(ids, want.views(len(ids)))
    if world > 1:
        lacking &= torch.arange(len(ids)) // min(shard, -(-len(ids) // world)) % world == rank
    return _Wanted(want.split, want.view, want.index[lacking])


def _announce(progress: _Progress, signal: Signal, identity: Identity, folder: Path) -> None:
    """Say the size, and refuse what does not fit, when the first answer has shown its form."""
    tapped = [tuple(signal.taps[t].shape[1:]) for t in identity.taps]
    size = estimate(progress.total, signal.output.shape[1:], identity.precision, tapped)
    need_space(folder, size.peak, f"storing {progress.total:,} answers")
    progress.say(f"{size} to {folder}")


def _wait(writer: Writer, wanted: Sequence[_Wanted], *, compacted: bool) -> None:
    """Until every wanted row is on disk, from whatever rank; until it is compacted, for the ranks that do not do that."""

    def there() -> bool:
        writer.refresh()
        arrived = [bool(writer.has(w.ids, w.views(len(w.ids))).all()) for w in wanted]
        return all(arrived) and (writer.is_compacted or not compacted)

    held, since = -1, time.monotonic()
    while not there():
        if writer.rows > held:
            held, since = writer.rows, time.monotonic()
        if time.monotonic() - since > PATIENCE_S:
            raise StoreError(
                f"nothing new at {writer.folder} for {PATIENCE_S / 60:.0f} minutes, and other ranks' rows are missing",
                hint="a process has died: start all of them again, what is there is kept",
            )
        time.sleep(0.2)
