"""An embedding teacher in fewer coordinates: the principal components of what it answers to training rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.identity import digest
from attar.notation import say
from attar.signal import NOTHING, Batch, Remembering, Signal, Source, Stored, Weighed
from attar.sources.controls import Rows, training_ids
from attar.sources.told import told
from attar.statistics.components import Components, principal_components

__all__ = ["PCA", "pca"]

AT_ONCE = 1024  # rows in one question
ROWS = 4096  # training rows it is fitted on, spread evenly: more than enough for a few hundred coordinates, and quickly asked


def pca(teacher: Source, dimensions: int = 256) -> PCA:
    """`teacher` in its first principal components: (B, K, D) → (B, K, dimensions).

    dimensions: coordinates that are left: as many as the student has, so that the two can be compared one by one.
    Fitted on what the teacher answers to up to 4,096 training rows, of which it has to be told: `pca(teacher).told(data.train)`, as
    `distill`, `annotate` and `run` do by themselves. The mean of these vectors is taken off: what all texts share tells none from another,
    and cosines differ from the teacher's own by that. Over a stored teacher it is `Stored` again.

    It is cheaper than a projector that learns, the same for each arm and seed, and known beforehand (sentence-transformers' recipe for
    smaller students does the same); a projector, in contrast, finds the directions that the student can reach.
    Raises TeacherError if asked before it is told, and for more dimensions than the vectors have.

    >>> pca(hf("folder"), dimensions=128).told(data.train)                             # doctest: +SKIP
    """
    if dimensions < 1:
        raise TeacherError(f"pca(dimensions={dimensions}): at least 1 is left", hint="dimensions=256")
    return StoredPCA(teacher, dimensions) if isinstance(teacher, Stored) else PCA(teacher, dimensions)


@dataclass(frozen=True, eq=False)
class PCA:
    """See `pca`. rows: that it was told of, and is fitted on when first asked."""

    source: Source
    dimensions: int = 256
    rows: Rows | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return say("pca", self.source, dimensions=self.dimensions)

    @property
    def fingerprint(self) -> str:
        """By the rows, not by the components: those are the same but for the last bits wherever they are computed."""
        ids = () if self.rows is None else (self.rows.ids[_spread(self.rows)].numpy(),)
        return digest("pca", self.source.fingerprint, self.dimensions, *ids)

    @property
    def training_ids(self) -> Tensor | None:
        """What the wrapped source was trained on: components know no labels."""
        return training_ids(self.source)

    @property
    def in_fold(self) -> bool:
        return isinstance(self.source, Remembering) and self.source.in_fold

    @property
    def size_bytes(self) -> int | None:
        return self.source.size_bytes if isinstance(self.source, Weighed) else None

    @property
    def parameters(self) -> int | None:
        return self.source.parameters if isinstance(self.source, Weighed) else None

    def told(self, rows: Rows) -> PCA:
        """The same, told of the rows on which it is to be fitted."""
        return replace(self, source=told(self.source, rows), rows=rows)

    @cached_property
    def components(self) -> Components:
        """Of the teacher's vectors; texts that are not there are left out. `explained` says what share of the variance each has."""
        if self.rows is None:
            raise TeacherError(f"{self!r} knows no rows to be fitted on", hint="pca(teacher).told(data.train); a run does so itself")
        pieces = []
        for some in _spread(self.rows).split(AT_ONCE):
            output = self.source(self.rows.batch(some)).output
            flat = output.reshape(-1, output.shape[-1])
            pieces.append(flat[flat.any(1)].cpu())
        vectors = torch.cat(pieces).numpy()
        if self.dimensions > min(vectors.shape):
            raise TeacherError(
                f"{self!r}: {len(vectors):,} vectors of {vectors.shape[1]} coordinates have no {self.dimensions} components",
                hint=f"dimensions={min(vectors.shape)}",
            )
        return principal_components(vectors, self.dimensions)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        return self._turned(self.source(batch, taps))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The wrapped source's cheapest call: what the teacher costs is what is to be replaced."""
        return self.source.prepare(batch)

    def _turned(self, signal: Signal) -> Signal:
        output = signal.output
        mean, directions = (torch.from_numpy(a).to(output) for a in (self.components.mean, self.components.directions))
        there = output.any(-1, keepdim=True)  # a text that is not there stays zero
        return replace(signal, output=((output - mean) @ directions.T).where(there, 0))


@dataclass(frozen=True, repr=False, eq=False)
class StoredPCA(PCA):
    """`pca` over stored answers."""

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        assert isinstance(self.source, Stored)
        return self.source.locate(ids, views)

    def signal(self, rows: Tensor) -> Signal:
        assert isinstance(self.source, Stored)
        return self._turned(self.source.signal(rows))


def _spread(rows: Rows) -> Tensor:
    """Positions of at most ROWS rows, evenly spread."""
    count = len(rows.ids)
    return torch.arange(count) if count <= ROWS else torch.linspace(0, count - 1, ROWS, dtype=torch.float64).long()
