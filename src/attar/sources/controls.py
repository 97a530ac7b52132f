"""Controls: sources that keep part of what a teacher says, to find out which part helped.

`hard` keeps the decision; `shuffled` keeps how sure the teacher is, but not of what; `smooth` keeps the label alone. Each wraps a
source, is a source, and has `.over(split)`, which tells it the training rows; over a stored teacher it is `Stored` again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.identity import digest, uniform
from attar.notation import say
from attar.signal import IGNORE, NOTHING, Batch, Schooled, Signal, Source, Stored
from attar.sources.answers import no_taps

__all__ = ["Owners", "Rows", "hard", "outcomes_of", "shuffled", "smooth", "training_ids"]

HARD = 1e-6
"""ε of `hard`: what is left for all other outcomes together. At temperature 4 it still leaves the decision 97 % of two outcomes."""


class Rows(Protocol):
    """A split of the data, as far as a control needs it."""

    @property
    def ids(self) -> Tensor: ...

    @property
    def labels(self) -> Tensor | None: ...

    def batch(self, index: Tensor, views: Tensor | None = None) -> Batch: ...


def training_ids(*sources: Source) -> Tensor | None:
    """Sorted ids of the rows that any of `sources` was trained on; None if one of them does not know."""
    found = [s.training_ids if isinstance(s, Schooled) else None for s in sources]
    known = [f for f in found if f is not None]
    return torch.cat(known).unique() if known and len(known) == len(found) else None


# ---------------------------------------------------------------------------------------------------------------------------- hard


def hard(teacher: Source, epsilon: float = HARD) -> Hard:
    """The teacher's decision and nothing else: (..., C) → log of 1 − ε for the likeliest outcome, ε / (C − 1) for each other.

    epsilon: ε, 0..0.5; not 0, so that every divergence and temperature bears it. Ties go to the first outcome.
    Control (iv): does the student need more than the teacher's decision? As DeiT's hard distillation (arXiv:2012.12877).
    Raises TeacherError for a regression, which decides nothing.

    >>> from attar.sources.controls import _hard
    >>> _hard(torch.tensor([[2.0, 1.0, -1.0]]), 0.01).exp()
    tensor([[0.9900, 0.0050, 0.0050]])
    """
    if not 0 < epsilon <= 0.5:
        raise TeacherError(f"hard(epsilon={epsilon}): ε lies above 0 and not above 0.5", hint=f"leave it out for {HARD:g}")
    return StoredHard(teacher, epsilon) if isinstance(teacher, Stored) else Hard(teacher, epsilon)


@dataclass(frozen=True)
class Hard:
    """See `hard`."""

    source: Source
    epsilon: float = HARD

    def __repr__(self) -> str:
        return say("hard", self.source, epsilon=self.epsilon)

    @property
    def fingerprint(self) -> str:
        return digest("hard", self.source.fingerprint, self.epsilon)

    @property
    def training_ids(self) -> Tensor | None:
        return training_ids(self.source)

    def over(self, rows: Rows) -> Hard:
        """Itself: a decision needs no other rows."""
        return self

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        signal = self.source(batch, taps)
        return replace(signal, output=_hard(signal.output, self.epsilon))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The wrapped source's cheapest call: a control costs what its teacher costs."""
        return self.source.prepare(batch)


@dataclass(frozen=True, repr=False)
class StoredHard(Hard):
    """`hard` over stored answers."""

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        return _stored(self.source).locate(ids, views)

    def signal(self, rows: Tensor) -> Signal:
        signal = _stored(self.source).signal(rows)
        return replace(signal, output=_hard(signal.output, self.epsilon))


def _hard(output: Tensor, epsilon: float) -> Tensor:
    outcomes = output.shape[-1]
    if outcomes < 2:
        raise TeacherError("hard: a regression decides nothing", hint="leave this control out")
    answer = torch.full_like(output, math.log(epsilon / (outcomes - 1)))
    return answer.scatter(-1, output.argmax(-1, keepdim=True), math.log1p(-epsilon))


# ------------------------------------------------------------------------------------------------------------------------ shuffled


def shuffled(teacher: Source, seed: int = 0) -> Shuffled:
    """The teacher's certainty without its dark knowledge: what it says of the wrong outcomes is dealt out anew.

    Three outcomes or more: each row keeps the probability of its likeliest outcome, and the others' are permuted among themselves,
    by (seed, id) alone: every view, batch and epoch sees the same. The likeliest, not the label, stays in its place, so that the
    teacher's decisions, right and wrong, are kept and only what lies below them is lost.
    Two outcomes have nothing to permute in a row: there the rows of one label exchange their answers, along one random cycle.
    That needs the rows: `shuffled(teacher).over(data.train)`. Rows without a label exchange with those of the same teacher's decision.

    Control (iii): is it dark knowledge that helps, or only softer targets? (Mason-Williams, arXiv:2510.12615.)
    Raises TeacherError for a regression or many labels, for a batch without ids, and for rows it was not told of.
    """
    return StoredShuffled(teacher, seed) if isinstance(teacher, Stored) else Shuffled(teacher, seed)


@dataclass(frozen=True)
class Shuffled:
    """See `shuffled`. partners: of two outcomes, whose answer each row gets."""

    source: Source
    seed: int = 0
    partners: Partners | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return say("shuffled", self.source, seed=self.seed)

    @property
    def fingerprint(self) -> str:
        return digest("shuffled", self.source.fingerprint, self.seed, self.partners.fingerprint if self.partners else "")

    @property
    def training_ids(self) -> Tensor | None:
        return training_ids(self.source)

    def over(self, rows: Rows) -> Shuffled:
        """The same control, told of the rows that may exchange answers; nothing to do for more than two outcomes."""
        if rows.labels is not None and rows.labels.ndim == 2:
            raise TeacherError("shuffled: rows of many labels have no one label to exchange answers within", hint="leave this control out")
        if outcomes_of(rows) != 2:
            return self
        return replace(self, partners=_partners(self.source, rows, self.seed))

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        ids = _ids(batch, "shuffled")
        if self.partners is not None:
            return self.source(self.partners.batch(ids, batch.views), taps)
        signal = self.source(batch, taps)
        return replace(signal, output=_permuted(signal.output, ids, self.seed))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The wrapped source's cheapest call: a control costs what its teacher costs."""
        return self.source.prepare(batch)


@dataclass(frozen=True, repr=False)
class StoredShuffled(Shuffled):
    """`shuffled` over stored answers. A handle of `locate` is the store's own; whose row it is, is remembered from there."""

    owners: Owners = field(default_factory=lambda: Owners(), repr=False, compare=False)

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        if self.partners is not None:
            return _stored(self.source).locate(self.partners.of(ids), views)
        rows = _stored(self.source).locate(ids, views)
        self.owners.note(rows, ids)
        return rows

    def signal(self, rows: Tensor) -> Signal:
        if self.partners is not None:
            return _stored(self.source).signal(rows)
        ids = self.owners.of(rows)
        signal = _stored(self.source).signal(rows)
        return replace(signal, output=_permuted(signal.output, ids, self.seed))


def _permuted(output: Tensor, ids: Tensor, seed: int) -> Tensor:
    """(B, C) → (B, C): the likeliest outcome stays, the others change places, by (seed, id)."""
    if output.ndim != 2 or output.shape[-1] < 3:
        raise TeacherError(
            f"shuffled: an answer of shape {tuple(output.shape)} has nothing to permute in a row",
            hint="two outcomes: shuffled(teacher).over(data.train); a regression or many labels: leave this control out",
        )
    B, C = output.shape
    keys = ids.cpu().numpy()[:, None] * np.int64(-7046029254386353131) + np.arange(C)  # one key for each row and outcome
    noise = torch.from_numpy(uniform(keys, f"shuffled {seed}")).to(output.device)  # (B, C)
    first = output.argmax(-1, keepdim=True)  # (B, 1)
    places = noise.scatter(-1, first, -1.0).argsort(-1)  # (B, C): the likeliest first, then the others in a random order
    plain = torch.arange(C, device=output.device, dtype=noise.dtype).repeat(B, 1)
    natural = plain.scatter(-1, first, -1.0).argsort(-1)  # (B, C): the likeliest first, then the others as they stand
    return torch.empty_like(output).scatter(-1, places, output.gather(-1, natural))


@dataclass(frozen=True)
class Partners:
    """Whose answer each row gets: ids, sorted and unique, and beside each its partner's id and position in `rows`."""

    rows: Rows
    ids: Tensor
    partner: Tensor
    position: Tensor
    fingerprint: str

    def of(self, ids: Tensor) -> Tensor:
        """(B,) ids → (B,) ids of their partners."""
        return self.partner[_find(self.ids, ids, "shuffled")]

    def batch(self, ids: Tensor, views: Tensor | None) -> Batch:
        """The partners' rows."""
        return self.rows.batch(self.position[_find(self.ids, ids, "shuffled")], views)


def _partners(source: Source, rows: Rows, seed: int) -> Partners:
    ids, first = np.unique(rows.ids.numpy(), return_index=True)  # equal rows are one row; their first label counts
    group = np.full(len(ids), IGNORE) if rows.labels is None else rows.labels.numpy()[first].astype(np.int64)
    for start in range(0, len(ids), 1024):
        bare = start + np.flatnonzero(group[start : start + 1024] == IGNORE)
        if len(bare):  # decided classes are counted from −1 downwards, so that they do not mix with labels
            decided = source(rows.batch(torch.from_numpy(first[bare]))).output.argmax(-1)
            group[bare] = -1 - decided.cpu().numpy()
    partner = np.arange(len(ids))
    order = np.lexsort((uniform(ids, f"shuffled {seed}"), group))
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        partner[members] = np.roll(members, -1)
    return Partners(
        rows, torch.from_numpy(ids), torch.from_numpy(ids[partner]), torch.from_numpy(first[partner]), digest(ids, ids[partner])
    )


class Owners:
    """Row handle → id, as `locate` saw them: a fact of the store, written down once."""

    def __init__(self) -> None:
        self.ids = torch.zeros(0, dtype=torch.int64)
        self.known = torch.zeros(0, dtype=torch.bool)

    def note(self, rows: Tensor, ids: Tensor) -> None:
        rows = rows.reshape(-1).cpu()
        if len(rows) == 0:
            return
        if (short := int(rows.max()) + 1 - len(self.ids)) > 0:
            self.ids = torch.cat((self.ids, torch.zeros(short, dtype=torch.int64)))
            self.known = torch.cat((self.known, torch.zeros(short, dtype=torch.bool)))
        self.ids[rows] = ids.reshape(-1).cpu()
        self.known[rows] = True

    def of(self, rows: Tensor) -> Tensor:
        rows = rows.cpu()
        if len(rows) and (int(rows.max()) >= len(self.known) or not bool(self.known[rows].all())):
            raise TeacherError("shuffled: rows that `locate` has not given", hint="handles are those of locate(ids, views)")
        return self.ids[rows]


# -------------------------------------------------------------------------------------------------------------------------- smooth


def smooth(teacher: Source, smoothing: float = 0.1) -> Smooth:
    """A teacher that knows the label and nothing else: log of 1 − ε + ε / C for it, ε / C for each other outcome.

    smoothing: ε, above 0, at most 1; the usual 0.1. Distilling from it at temperature 1 is label smoothing (SCIENCE: "LS(ε) ≡ KD from
    a uniform teacher", Yuan 2020, arXiv:1909.11723). The teacher it wraps is not asked: it stands for whom this replaces. A row
    without a label gets the uniform answer.

    Control (ii). Labels come with the batch, or from `smooth(teacher).over(data.train)`, which then answers by id, stored.
    Raises TeacherError for a regression, and for a batch without labels.
    """
    if not 0 < smoothing <= 1:
        raise TeacherError(f"smooth(smoothing={smoothing}): ε lies above 0 and not above 1", hint="0.1 is usual")
    return Smooth(teacher, smoothing)


@dataclass(frozen=True)
class Smooth:
    """See `smooth`."""

    source: Source
    smoothing: float = 0.1

    def __repr__(self) -> str:
        return say("smooth", self.source, smoothing=self.smoothing)

    @property
    def fingerprint(self) -> str:
        return digest("smooth", self.source.fingerprint, self.smoothing)

    @property
    def training_ids(self) -> Tensor | None:
        return training_ids(self.source)

    def over(self, rows: Rows) -> SmoothOver:
        """The same control with the labels of these rows, by id."""
        if rows.labels is None:
            raise TeacherError("smooth: these rows have no labels", hint="label smoothing needs some; leave this control out")
        if (outcomes := outcomes_of(rows)) < 2:
            raise TeacherError("smooth: a regression has no outcomes to smooth over", hint="leave this control out")
        ids, first = np.unique(rows.ids.numpy(), return_index=True)
        labels = rows.labels[torch.from_numpy(first)]
        return SmoothOver(self.source, self.smoothing, torch.from_numpy(ids), labels, outcomes)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, "smooth")
        if batch.labels is None:
            raise TeacherError("smooth: a batch without labels", hint="smooth(teacher).over(data.train) brings the labels")
        if batch.schema is None or len(batch.schema.classes) < 2:
            raise TeacherError("smooth: the batch names no classes to smooth over", hint="a regression has none; leave this control out")
        return Signal(_smooth(batch.labels, 2 if batch.labels.ndim == 2 else len(batch.schema.classes), self.smoothing))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """Its own arithmetic: no teacher is asked."""
        return lambda: self(batch)


@dataclass(frozen=True, repr=False)
class SmoothOver(Smooth):
    """`smooth` with labels by id: a handle is the position among the sorted ids."""

    ids: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    outcomes: int = 2

    @property
    def fingerprint(self) -> str:
        return digest("smooth", self.source.fingerprint, self.smoothing, self.ids.numpy(), self.labels.numpy(), self.outcomes)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, "smooth")
        return self.signal(self.locate(_ids(batch, "smooth"), batch.views))

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        return _find(self.ids, ids, "smooth")

    def signal(self, rows: Tensor) -> Signal:
        return Signal(_smooth(self.labels[rows], self.outcomes, self.smoothing))


def _smooth(labels: Tensor, outcomes: int, smoothing: float) -> Tensor:
    """(...) labels → (..., C) log of the smoothed label."""
    if labels.dtype.is_floating_point:
        raise TeacherError("smooth: a regression has no outcomes to smooth over", hint="leave this control out")
    known = labels != IGNORE
    share = torch.full((*labels.shape, outcomes), smoothing / outcomes, device=labels.device)
    label = torch.nn.functional.one_hot(labels.where(known, torch.zeros_like(labels)), outcomes)
    answer = share + (1 - smoothing) * label
    return torch.where(known.unsqueeze(-1), answer, 1 / outcomes).log()


# --------------------------------------------------------------------------------------------------------------------------- rows


def outcomes_of(rows: Rows) -> int:
    """How many outcomes these rows have: 0 for a regression, 2 for each of many labels. Reads the schema of one row."""
    schema = rows.batch(torch.zeros(1, dtype=torch.int64)).schema
    if schema is None:
        raise TeacherError("these rows carry no schema: nobody knows their classes", hint="use a split of attar's data")
    if rows.labels is not None and rows.labels.ndim == 2:
        return 2 if len(schema.classes) else 0
    return len(schema.classes)


def _ids(batch: Batch, who: str) -> Tensor:
    if batch.ids is None:
        raise TeacherError(f"{who}: a batch without ids", hint="batches of attar's data have them: content hashes of the rows")
    return batch.ids


def _find(known: Tensor, ids: Tensor, who: str) -> Tensor:
    """(B,) ids → (B,) positions in `known`, which is sorted; raises TeacherError saying how many are not there."""
    position = torch.searchsorted(known, ids).clamp(max=max(len(known) - 1, 0))
    missing = int((known[position] != ids).sum()) if len(known) else len(ids)
    if missing:
        raise TeacherError(
            f"{who} was not told of {missing} of these {len(ids)} rows", hint="`.over(split)` tells it of all rows it will see"
        )
    return position


def _stored(source: Source) -> Stored:
    assert isinstance(source, Stored)  # chosen so by the word
    return source
