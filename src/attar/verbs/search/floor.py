"""What no student can undercut: the exported identity function, by which a budget is judged before anything is taught."""

from __future__ import annotations

import math

import torch

from attar.cost import Budget, Candidate, Cost, compare
from attar.data import Data
from attar.errors import EvidenceError
from attar.signal import Batch, Student
from attar.verbs.export.rows import Feed
from attar.verbs.search.drafts import identity

__all__ = ["floor_of", "need_possible"]

SECONDS = 0.3  # of measuring
BOUNDS = ("latency_ms", "size_mb", "rows_per_second")  # that a graph which does nothing may break


def floor_of(student: Student, data: Data, bounds: Budget) -> Cost:
    """What a graph costs that answers what it is given, in calls such as the budget names. student: for how it reads rows."""
    rows = Batch(data.valid.batch(torch.arange(bounds.many) % len(data.valid)).inputs, schema=data.schema)
    draft = identity(Feed.of(student(data.schema, 0)), rows, bounds.threads)
    candidate = Candidate.of(draft, rows, rows, size_bytes=draft.size_bytes, batch=bounds.batch, memory=False)
    return compare({"": candidate}, seconds=SECONDS, threads=bounds.threads, undisturbed=True).costs[""]


def need_possible(bounds: Budget, student: Student, data: Data) -> None:
    """Raise EvidenceError where the bounds ask for less than a graph takes that does nothing.

    student: any of the space. Nothing is exported for it, and nothing measured where no bound asks.
    """
    if all(getattr(bounds, name) is None for name in BOUNDS):
        return
    cost = floor_of(student, data, bounds)
    size_bytes = cost.size_bytes or 0
    if bounds.latency_ms is not None and bounds.latency_ms < (least := cost.latency_ms.p50.low):
        raise EvidenceError(
            f"a budget of latency_ms={bounds.latency_ms:g}: the exported identity function alone takes {least:.2g} ms here",
            hint=f"no student answers sooner; latency_ms={_up(2 * cost.latency_ms.p95.value):g} leaves room for one",
        )
    if bounds.size_mb is not None and bounds.size_mb * 1e6 < size_bytes:
        raise EvidenceError(
            f"a budget of size_mb={bounds.size_mb:g}: the exported identity function alone is {size_bytes / 1e6:.2g} MB",
            hint=f"no student is smaller; size_mb={_up(4 * size_bytes / 1e6):g} leaves room for one",
        )
    if bounds.rows_per_second is not None and bounds.rows_per_second > (most := cost.rows_per_second.high):
        raise EvidenceError(
            f"a budget of rows_per_second={bounds.rows_per_second:g}: the exported identity function alone answers {most:.2g}",
            hint=f"no student answers more; rows_per_second={most / 10:.1g} leaves room for one",
        )


def _up(value: float) -> float:
    """Rounded up to one digit.

    >>> _up(0.0132)
    0.02
    """
    unit = 10 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / unit) * unit:.1g}")
