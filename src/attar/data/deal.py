"""Which row belongs to which split: by a hash of its content, by group, or by time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import InitVar, dataclass

import numpy as np

from attar.errors import DataError
from attar.identity import uniform

__all__ = ["SPLITS", "Shares", "deal"]

SPLITS = ("train", "valid", "calibration", "test")


@dataclass(frozen=True)
class Shares:
    """What share of the rows each split gets; training gets the rest.

    given: names of splits whose rows come from elsewhere; their share is 0.
    """

    valid: float = 0.1
    calibration: float = 0.1
    test: float = 0.2
    given: InitVar[Collection[str]] = ()

    def __post_init__(self, given: Collection[str]) -> None:
        for name in SPLITS[1:]:
            if name in given:
                assert getattr(self, name) == 0
            elif not 0 < getattr(self, name) < 1:
                raise DataError(
                    f"{name}={getattr(self, name):g} is not a share between 0 and 1",
                    hint="all four splits are needed: valid chooses the epoch, calibration fits the guard, test is the evidence",
                )
        if self.train <= 0:
            shares = ", ".join(f"{n}={getattr(self, n):g}" for n in SPLITS[1:])
            raise DataError(f"nothing is left to train on: {shares}", hint="they must add up to less than 1")

    @property
    def train(self) -> float:
        return 1 - self.valid - self.calibration - self.test


def deal(
    ids: np.ndarray,
    shares: Shares,
    *,
    seed: int = 0,
    group: np.ndarray | None = None,
    time: np.ndarray | None = None,
    given: np.ndarray | None = None,
    whole: bool = False,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N,) int64 ids → (N,) split numbers in the order of SPLITS, −1 for rows left out; and notes.

    Without group and time a row's split is fixed by its content and the seed alone: more rows move none, and equal rows lie
    together. A larger `test` only adds rows to the test split.
    group: (N,) int64 keys; a group's split is fixed by its key and the seed.
    time: (N,) numbers; the oldest rows train and the newest test. Rows of one moment lie in one split.
    With group or time a row equal to one of an earlier split (train, valid, calibration, test) is left out of the later one,
    for a model that has seen it would be asked what it knows.
    given: (N,) the split of rows that come with one, −1 of those to deal; without group and time. A row that is dealt and equals one
        that comes with its split is left out, and so is one that equals one of a later given split: a test set that others use as well
        stays whole.
    whole: all rows stay together, in the first split: they are judged, and nothing is learned from them.
    Raises DataError where a split stays empty.
    """
    if whole:
        return np.zeros(len(ids), dtype=np.int64), ()
    assert given is None or (group is None and time is None)
    if time is not None:
        _, at, counts = np.unique(time, return_inverse=True, return_counts=True)
        middle = (np.cumsum(counts) - counts / 2) / len(ids)
        edges = np.cumsum([shares.train, shares.valid, shares.calibration])
        part = np.searchsorted(edges, middle, side="right")[at]
    else:
        edges = np.cumsum([shares.test, shares.calibration, shares.valid])
        keys = ids if group is None else group
        part = 3 - np.searchsorted(edges, uniform(keys, f"split {seed}"), side="right")
    notes: tuple[str, ...] = ()
    if given is not None:
        rank = np.where(given >= 0, given + len(SPLITS), 0)
        _, at = np.unique(ids, return_inverse=True)
        highest = np.zeros(at.max() + 1, dtype=rank.dtype)
        np.maximum.at(highest, at, rank)
        again = rank < highest[at]
        part = np.where(again, -1, np.where(given >= 0, given, part))
        if n := int(again.sum()):
            notes = (f"{n:,} rows repeat a row of a split that has its own file, or of a later such split, and are left out",)
    if group is not None or time is not None:
        _, at = np.unique(ids, return_inverse=True)
        first = np.full(at.max() + 1, len(SPLITS))
        np.minimum.at(first, at, part)
        late = part > first[at]
        part = np.where(late, -1, part)
        if n := int(late.sum()):
            notes = (f"{n:,} rows repeat a row of an earlier split and are left out",)
    for number, name in enumerate(SPLITS):
        if not (part == number).any():
            raise _empty(name, getattr(shares, name), ids, group, time, notes)
    return part, notes


def _empty(
    name: str, share: float, ids: np.ndarray, group: np.ndarray | None, time: np.ndarray | None, notes: tuple[str, ...]
) -> DataError:
    what, hint = f"the {name} split is empty: {share:.2g} of {len(ids):,} rows", f"more rows, or more for {name}"
    if (different := len(np.unique(ids))) < len(ids):
        what += f", {different:,} of them different"
    if time is not None:
        what += f", at {len(np.unique(time)):,} different times"
        hint = f"take a finer time column, or more for {name}"
    if group is not None:
        what += f", in {len(np.unique(group)):,} groups"
        hint = f"more groups, or more for {name}"
    return DataError(what + "".join(f"; {n}" for n in notes), hint=hint)
