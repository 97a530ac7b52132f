"""Rows from elsewhere: another data set's rows as the home data lay theirs out, and how everyone does on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attar.certificate import Figure, Quality, Shifted
from attar.data import Data, Split
from attar.data.base import stacked
from attar.errors import DataError, TeacherError
from attar.reading import Reading
from attar.signal import IGNORE, Batch, Inputs, Schema
from attar.task import Task
from attar.verbs.evaluate.label_free import Answered, label_free
from attar.verbs.evaluate.likeness import fidelity, positions
from attar.verbs.evaluate.models import Judged, Model, Rows, Who
from attar.verbs.evaluate.scoring import drawn, quality

__all__ = ["elsewhere", "fitted", "laid_out"]


def fitted(name: str, other: Data, home: Data) -> Split:
    """All rows of `other`, from all its splits, in the form of `home`'s rows: columns and texts by name, classes by name.

    Raises DataError where that cannot be: other columns, other shapes, labels of another kind, a class that home does not know.
    """
    if other.kind != home.kind:
        what = f"shift {name!r} is of the kind {other.kind}, the data at home are of the kind {home.kind}"
        raise DataError(what, hint="both are asked the same task: is the label column the right one?")
    whole = laid_out(name, other, home, as_what="shift")
    splits = _splits(other)
    labels = _joined([split.labels for split in splits])
    return replace(
        whole,
        labels=None if labels is None else _renamed(name, labels, other, home),
        weight=_joined([split.weight for split in splits]),
    )


def laid_out(name: str, other: Data, home: Data, *, as_what: str) -> Split:
    """The same without labels and weights, of whatever kind and classes those are. as_what: the key under which the data stand."""
    splits = _splits(other)
    schema = replace(other.schema, classes=home.schema.classes, embeds=home.schema.embeds)
    if schema.kind == "text" and home.schema.kind == "text" and len(schema.texts) == len(home.schema.texts):
        schema = replace(schema, texts=home.schema.texts)  # a text is what it is, whatever its column is called
    rows = _Rows(splits, other.schema, schema, Reading(home.schema, "home"))
    try:
        rows.reading.check(schema)
    except TeacherError as error:
        raise DataError(f"{as_what} {name!r}: {error.message}", hint=error.hint) from error
    ids = torch.cat([split.ids for split in splits])
    return Split(name, ids, None, None, home.schema, rows, mask=_joined([split.mask for split in splits]))


def _splits(data: Data) -> list[Split]:
    return [split for split in data.splits.values() if len(split)]


def elsewhere(
    split: Split,
    data: Data,
    seen: Tensor,
    models: Mapping[Who, Model],
    judged: Judged,
    task: Task,
    at_home: tuple[Mapping[str, Quality], Mapping[str, Figure]],
    home: Answered,
) -> Shifted:
    """How everyone does on the rows of `split` that nobody learned from.

    data: whose rows they are. seen: ids that student or teacher learned from. at_home: quality and fidelity on the test rows. home: these,
    and what was answered to them.
    """
    fresh = (~torch.isin(split.ids, seen)).nonzero().squeeze(1)
    if not len(fresh):
        raise DataError(f"shift {split.name!r}: all {len(split):,} rows are among those learned from", hint="is it the same file?")
    mine = split.take(fresh)
    answers = {who: model.ask(mine) for who, model in models.items()}
    rows = Rows.of(mine, task)
    at = positions(models, answers, rows, judged) if task.kind in ("classification", "multilabel") else None
    draws = drawn(models, answers, rows)
    here = quality(draws, models, answers, rows, judged, task), fidelity(answers, at, rows, judged, task)
    return Shifted(
        kind="data",
        data=data.fingerprint,
        rows=rows.count,
        labelled=rows.n,
        left_out=len(split) - len(mine),
        quality=here[0],
        fidelity=here[1],
        lost=_lost(at_home, here, task),
        label_free=label_free(home, Answered(answers, rows), models, judged.who),
    )


def _lost(
    home: tuple[Mapping[str, Quality], Mapping[str, Figure]], here: tuple[Mapping[str, Quality], Mapping[str, Figure]], task: Task
) -> dict[str, Figure]:
    found = {}
    if task.metric in home[0] and task.metric in here[0]:
        a, b, better = home[0][task.metric], here[0][task.metric], task.better(task.metric)
        found = {
            "teacher": _less(a.teacher, b.teacher, better),
            "student": _less(a.student, b.student, better),
            "difference": _less(a.difference, b.difference, better),
        }
    if first := next(iter(home[1]), None):
        found[first] = _less(home[1][first], here[1][first], task.better(first))
    return found


def _less(home: Figure, here: Figure, better: int) -> Figure:
    """How much less `here` is, of two figures of different rows; positive is worse. The interval is put together from both theirs.

    Square and add, Zou and Donner 2008: the bounds of a difference from the bounds of its parts, which need not be symmetric.
    """
    if home.value is None or here.value is None:
        return Figure(None)
    gap, low, high = home.value - here.value, math.nan, math.nan
    bounds = (home.low, home.high, here.low, here.high)
    if None not in bounds:
        home_low, home_high, here_low, here_high = (float(end) for end in bounds if end is not None)
        low = gap - math.hypot(home.value - home_low, here_high - here.value)
        high = gap + math.hypot(home_high - home.value, here.value - here_low)
    if better < 0:
        gap, low, high = -gap, -high, -low
    return Figure.of(gap, low, high, n=here.n, how="from the intervals of both, square and add (Zou and Donner)")


class _Rows:
    """Positions in all splits of another data set → inputs as home lays them out."""

    def __init__(self, splits: Sequence[Split], own: Schema, schema: Schema, reading: Reading) -> None:
        self.splits, self.own, self.schema, self.reading = splits, own, schema, reading
        self.ends = torch.tensor([len(split) for split in splits]).cumsum(0)

    def __call__(self, index: Tensor) -> Inputs:
        which = torch.searchsorted(self.ends, index, right=True)
        parts, places = [], []
        for number, split in enumerate(self.splits):
            at = (which == number).nonzero().squeeze(1)
            if len(at):
                start = int(self.ends[number]) - len(split)
                parts.append(split.rows(index[at] - start))
                places.append(at)
        inputs = stacked(parts)
        order = torch.cat(places).argsort() if places else torch.zeros(0, dtype=torch.long)
        picked = inputs[order] if isinstance(inputs, Tensor) else {name: block[order] for name, block in inputs.items()}
        if not isinstance(picked, Tensor) and self.own.texts != self.schema.texts:
            picked = {new: picked[old] for old, new in zip(self.own.texts, self.schema.texts, strict=True)}
        return self.reading.inputs(Batch(picked, schema=self.schema))


def _renamed(name: str, labels: Tensor, other: Data, home: Data) -> Tensor:
    """Labels by home's classes; of many labels the columns in home's order."""
    theirs, mine = other.schema.classes, home.schema.classes
    if theirs == mine:
        return labels
    many = home.kind == "multilabel"
    if strange := [c for c in theirs if c not in mine] + [c for c in mine if many and c not in theirs]:
        raise DataError(
            f"shift {name!r} has the {'labels' if many else 'classes'} {_some(theirs)}, the data at home have {_some(mine)}",
            hint=f"{strange[0]!r} is not in both; rename the classes of one file",
        )
    if many:
        return labels[:, [theirs.index(c) for c in mine]]
    table = torch.tensor([mine.index(c) for c in theirs])
    return torch.where(labels == IGNORE, IGNORE, table[labels.clamp(min=0)])


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """All of them, or None where one is not there."""
    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) == len(parts) else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:6])) + (", …" if len(names) > 6 else "")
