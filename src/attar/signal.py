"""What is asked (Batch), what is answered (Signal), by whom (Source), and what the data look like (Schema)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, overload, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "IGNORE",
    "NOTHING",
    "Batch",
    "Column",
    "Inputs",
    "Remembering",
    "Schema",
    "Schooled",
    "Signal",
    "Source",
    "Stored",
    "Student",
    "Texts",
    "Weighed",
]

IGNORE = -100  # the label of a row whose class is not known; for numbers it is NaN
NOTHING: frozenset[str] = frozenset()  # no taps

Inputs = Mapping[str, Any] | Tensor  # a block is a Tensor, or Texts; whoever reads a block by its name knows which


class Texts(Sequence[str]):
    """N texts as one block of a batch: picked by position like a tensor, so that code that deals rows need not know what they are.

    >>> texts = Texts(["a", "b", "c"])
    >>> list(texts.index_select(0, torch.tensor([2, 0]))), texts[1]
    (['c', 'a'], 'b')
    """

    def __init__(self, texts: Sequence[str] | np.ndarray) -> None:
        if isinstance(texts, np.ndarray):
            self._held = texts
        else:
            self._held = np.empty(len(texts), dtype=object)
            self._held[:] = list(texts)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[str]:
        return iter(self._held.tolist())

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice | Tensor | np.ndarray) -> Texts: ...
    def __getitem__(self, at: int | slice | Tensor | np.ndarray) -> str | Texts:
        if isinstance(at, int):
            return self._held[at]
        return Texts(self._held[at.cpu().numpy() if isinstance(at, Tensor) else at])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Texts) and np.array_equal(self._held, other._held)

    __hash__ = None  # type: ignore[assignment]  # compared by content, which is never a key

    def __repr__(self) -> str:
        return f"Texts({self._held.tolist()!r})" if len(self) <= 4 else f"<{len(self):,} texts>"

    @property
    def shape(self) -> tuple[int, ...]:
        return self._held.shape

    @property
    def device(self) -> torch.device:
        """Texts are at home on the CPU, wherever the tensors made of them go."""
        return torch.device("cpu")

    def index_select(self, dim: int, index: Tensor) -> Texts:
        """The texts at (B,) positions; dim is 0, as for a tensor."""
        assert dim == 0
        return self[index]

    def to(self, device: torch.device | str) -> Texts:
        """Itself: texts do not move."""
        return self

    def tolist(self) -> list[str]:
        return self._held.tolist()


@dataclass(frozen=True)
class Column:
    """One column of a table, as the training split shows it.

    kind: "number" and "boolean" columns lie in `numbers` (a boolean as 0 and 1, missing as NaN), "category" in `categories`.
    categories: the values seen in training, as text; value i has code i + 1, and code 0 is missing or never seen.
    mean, std, median: of the training split, missing values left out; std is 1 where it would be 0.
    missing: share of missing values in the training split, 0..1.
    """

    name: str
    kind: Literal["number", "category", "boolean"]
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    median: float = 0.0
    missing: float = 0.0


@dataclass(frozen=True)
class Schema:
    """What rows look like and what is asked of them; all statistics come from the training split.

    kind: "table": inputs are {"numbers": (B, N) float32 or float64, NaN where missing; "categories": (B, M) int64 codes}, each in
        the order of `columns`; an absent block is absent from the mapping. "images": inputs are (B, channels, height, width) uint8.
        "tensor": inputs are (B, *shape) float32. "text": inputs are {name: Texts of B} for each of `texts`; a text that is not there is "".
    columns: of a table, in the order of the file, the label left out.
    shape: of one row of images or tensors; () for a table.
    pixel_mean, pixel_std: per channel, in units of 0..255.
    classes: names in the order of the outcome axis; () for a regression. Multi-label: the names of the L labels.
    label: what is predicted, by name.
    label_mean, label_std: of a regression's label.
    texts: names of the texts of a row, in order: ("sentence1", "sentence2") of a pair.
    embeds: a vector for each text is asked, and the label, where there is one, is a score of the first text with the second.
    """

    kind: Literal["table", "images", "tensor", "text"]
    columns: tuple[Column, ...] = ()
    shape: tuple[int, ...] = ()
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    label: str = "label"
    label_mean: float = 0.0
    label_std: float = 1.0
    texts: tuple[str, ...] = ()
    embeds: bool = False

    @property
    def numbers(self) -> tuple[Column, ...]:
        """The columns of `inputs["numbers"]`, in order."""
        return tuple(c for c in self.columns if c.kind != "category")

    @property
    def categories(self) -> tuple[Column, ...]:
        """The columns of `inputs["categories"]`, in order."""
        return tuple(c for c in self.columns if c.kind == "category")


@dataclass(frozen=True)
class Batch:
    """What is asked: raw rows.

    inputs: see Schema.kind; whoever answers reads them in its own way.
    labels: (B,) int64 classes, IGNORE where unknown; (B, L) int64 for multi-label; (B,) float32 numbers, NaN where unknown.
    mask: (...) bool over positions, True where a position counts; None counts all.
    weight: (B,) float32 row weights; None weighs all alike.
    ids: (B,) int64 hash of the row's content, without its label: equal rows have equal ids.
    views: (B,) int64, which augmentation; view 0 is the row as it is. Inputs are a pure function of (id, view).
    schema: what the columns are called.
    complete: every label is known, so that nobody need look in each step; False says nothing.
    """

    inputs: Inputs
    labels: Tensor | None = None
    mask: Tensor | None = None
    weight: Tensor | None = None
    ids: Tensor | None = None
    views: Tensor | None = None
    schema: Schema | None = None
    complete: bool = False

    def __len__(self) -> int:
        first = self.inputs if isinstance(self.inputs, Tensor) else next(iter(self.inputs.values()))
        return len(first)

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on another device."""

        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        inputs = self.inputs
        moved = inputs.to(device) if isinstance(inputs, Tensor) else {k: v.to(device) for k, v in inputs.items()}
        return replace(
            self,
            inputs=moved,
            labels=move(self.labels),
            mask=move(self.mask),
            weight=move(self.weight),
            ids=move(self.ids),
            views=move(self.views),
        )


@dataclass(frozen=True)
class Signal:
    """What is answered: logits, and whatever was tapped on the way.

    output: (..., C) logits: the last axis is outcomes, everything before it is positions. A regression has C = 1: the number itself.
    taps: activations by module path.
    masks: which positions of a tap are real.
    """

    output: Tensor
    taps: Mapping[str, Tensor] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """Whoever answers a Batch with a Signal: a teacher, an ensemble, a store, a file. Never keeps a gradient.

    fingerprint: changes when the answers may change: weights, code version, reading, ε.
    """

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal: ...

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The cheapest call that answers these rows, all reading done beforehand: what a cost measurement times."""
        ...


@runtime_checkable
class Stored(Protocol):
    """What a source can do if its answers lie ready by row: a store, or a control over one. The training loop's fast path.

    A source that cannot lacks the two methods, so that `isinstance(source, Stored)` tells.
    """

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        """(B,) ids and views (None: view 0) → (B,) int64 handles for `signal`. Raises StoreError or TeacherError for rows not held."""
        ...

    def signal(self, rows: Tensor) -> Signal:
        """(B,) handles, which `locate` gave → the answers, float32."""
        ...


@runtime_checkable
class Schooled(Protocol):
    """A source that says what it was trained on.

    training_ids: (N,) int64, sorted: ids of the rows whose labels it has seen; None where nobody knows, as of a teacher from elsewhere.
    """

    @property
    def training_ids(self) -> Tensor | None: ...


@runtime_checkable
class Remembering(Protocol):
    """A source that says whether it answers rows it was trained on as one that has seen their labels.

    in_fold: True where it does, so that on these rows it may say the label back instead of what it knows.
    """

    @property
    def in_fold(self) -> bool: ...


@runtime_checkable
class Weighed(Protocol):
    """A source that knows what it weighs.

    size_bytes: of the file it would ship as. parameters: numbers learnt, by gradient. None where that cannot be told.
    """

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def parameters(self) -> int | None: ...


Student = Callable[[Schema, int], nn.Module]
"""(schema, seed) → a fresh module whose forward takes `Batch.inputs` and returns (B, C) logits, (B, L, 2) for multi-label."""
