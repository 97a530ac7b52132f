"""An embedding teacher in fewer coordinates: the principal components of what it answers to training rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.identity import digest
from attar.notation import say
from attar.signal import NOTHING, Batch, Signal, Source, Stored, Weighed
from attar.sources.controls import Rows, training_ids
from attar.statistics.components import Components, principal_components

__all__ = ["PCA", "pca"]

AT_ONCE = 1024  # rows in one question


def pca(teacher: Source, dimensions: int = 256) -> PCA:
    """`teacher` in its first principal components: (B, K, D) → (B, K, dimensions).

    dimensions: coordinates that are left: as many as the student has, so that the two can be compared one by one.
    Fitted on the vectors of training rows: `pca(teacher).over(data.train)`; a run does that itself. What the mean of the teacher's vectors
    is subtracted from has no direction that all texts share, so that cosines differ a little from the teacher's own: those of the
    components alone are what a student of so few coordinates can reach. Over a stored teacher it is `Stored` again.

    Cheaper than a projector that learns, the same for each arm and seed, and known beforehand (as the recipe for smaller students of
    sentence-transformers has it). A projector, in contrast, finds directions that the student can reach.
    Raises TeacherError asked before it was fitted, or for more dimensions than the teacher has.

    >>> pca(hf("folder"), dimensions=128)                                              # doctest: +SKIP
    """
    if dimensions < 1:
        raise TeacherError(f"pca(dimensions={dimensions}): at least 1 is left", hint="dimensions=256")
    return StoredPCA(teacher, dimensions) if isinstance(teacher, Stored) else PCA(teacher, dimensions)


@dataclass(frozen=True)
class PCA:
    """See `pca`. components: None until it is fitted."""

    source: Source
    dimensions: int = 256
    components: Components | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return say("pca", self.source, dimensions=self.dimensions)

    @property
    def fingerprint(self) -> str:
        found = self.components
        fitted = () if found is None else (found.mean.astype("float32"), found.directions.astype("float32"))
        return digest("pca", self.source.fingerprint, self.dimensions, *fitted)

    @property
    def training_ids(self) -> Tensor | None:
        """What the wrapped source was trained on: components know no labels."""
        return training_ids(self.source)

    @property
    def size_bytes(self) -> int | None:
        return self.source.size_bytes if isinstance(self.source, Weighed) else None

    @property
    def parameters(self) -> int | None:
        return self.source.parameters if isinstance(self.source, Weighed) else None

    @property
    def explained(self) -> float:
        """Share of the variance of training vectors that is left, 0..1."""
        return float(self._fitted().explained.sum())

    def of(self, source: Source) -> PCA:
        """The same of another source that answers alike: of a store of its answers."""
        return replace(pca(source, self.dimensions), components=self.components)

    def over(self, rows: Rows) -> PCA:
        """The same, fitted on the vectors of these rows; texts that are not there are left out."""
        index = torch.arange(len(rows.ids))
        pieces = []
        for some in index.split(AT_ONCE):
            output = self.source(rows.batch(some)).output
            flat = output.reshape(-1, output.shape[-1])
            pieces.append(flat[flat.abs().sum(1) > 0].cpu())
        vectors = torch.cat(pieces).numpy()
        if self.dimensions > min(vectors.shape):
            raise TeacherError(
                f"{self!r}: {len(vectors):,} vectors of {vectors.shape[1]} coordinates have no {self.dimensions} components",
                hint=f"dimensions={min(vectors.shape)}",
            )
        return replace(self, components=principal_components(vectors, self.dimensions))

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        return self._turned(self.source(batch, taps))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The wrapped source's cheapest call: what the teacher costs is what is to be replaced."""
        return self.source.prepare(batch)

    def _turned(self, signal: Signal) -> Signal:
        found = self._fitted()
        output = signal.output
        mean = torch.from_numpy(found.mean).to(output)
        directions = torch.from_numpy(found.directions).to(output)
        there = output.abs().sum(-1, keepdim=True) > 0  # a text that is not there stays zero
        return replace(signal, output=((output - mean) @ directions.T).where(there, 0))

    def _fitted(self) -> Components:
        if self.components is None:
            raise TeacherError(f"{self!r} has not been fitted", hint="pca(teacher).over(data.train) fits it; a run does so itself")
        return self.components


@dataclass(frozen=True, repr=False)
class StoredPCA(PCA):
    """`pca` over stored answers."""

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        assert isinstance(self.source, Stored)
        return self.source.locate(ids, views)

    def signal(self, rows: Tensor) -> Signal:
        assert isinstance(self.source, Stored)
        return self._turned(self.source.signal(rows))
