"""How much a term counts: a number, a number that follows the training, or a tensor that a cohort can replace.

Two more kinds are made of these: `gating` has the one that differs from row to row, `balancing` the one that is measured.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attar.errors import ObjectiveError
from attar.notation import say
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = ["Dial", "Knob", "Number", "Ramp", "Weight", "as_weight", "number_in", "ramp"]


class Weight(abc.ABC):
    """The factor of a term; final kinds below. `weight * term` is an objective.

    composite: made of other weights, so that it takes any factor into itself.
    by_rows: differs from row to row: then `rows` is asked, not `at`.
    """

    composite: ClassVar[bool] = False
    by_rows: ClassVar[bool] = False

    @abc.abstractmethod
    def at(self, progress: float) -> float | Tensor:
        """The factor at this share of training, 0..1."""

    def rows(self, progress: float, teacher: Signal | None, batch: Batch, task: Task) -> float | Tensor:
        """The factor of each position, (...) as far as `batch` and the teacher's answers tell them apart; the same for all by default."""
        return self.at(progress)

    def check(self, task: Task) -> None:
        """Raise ObjectiveError where this weight means nothing for the task."""
        return

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's answers decide it."""
        return False

    @property
    def held(self) -> tuple[nn.Module, ...]:
        """What it keeps in tensors, which move and are saved with the objective."""
        return ()

    @property
    def measured(self) -> tuple[tuple[Any, int], ...]:
        """What of it is measured while training, and every how many steps; see `balancing`."""
        return ()

    @property
    def extremes(self) -> tuple[float, ...]:
        """The factors between which it moves."""
        return tuple(number_in(self.at(progress)) for progress in (0.0, 1.0))

    @abc.abstractmethod
    def scaled(self, factor: Weight) -> Weight:
        """This weight times another one."""

    @abc.abstractmethod
    def rest(self) -> Weight:
        """1 − this weight, moving as it moves."""

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, int | float | Weight | Tensor):
            return self.scaled(as_weight(other))
        return NotImplemented  # a term or an objective takes it from the right

    def __rmul__(self, other: Any) -> Any:
        return self * other

    def __neg__(self) -> Weight:
        return self.scaled(Number(-1.0))


@dataclass(frozen=True, repr=False)
class Number(Weight):
    """The same all along; exact, and of no cost to the step."""

    value: float

    def at(self, progress: float) -> float:
        return self.value

    def scaled(self, factor: Weight) -> Weight:
        return Number(_tidy(self.value * factor.value)) if isinstance(factor, Number) else factor.scaled(self)

    def rest(self) -> Weight:
        return Number(_tidy(1.0 - self.value))

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, repr=False)
class Ramp(Weight):
    """A straight line from `start` to `stop`, then flat. See `ramp`."""

    start: float
    stop: float
    until: float = 1.0

    def at(self, progress: float) -> float:
        return self.start + (self.stop - self.start) * min(max(progress / self.until, 0.0), 1.0)

    def scaled(self, factor: Weight) -> Weight:
        if factor.composite:
            return factor.scaled(self)
        if not isinstance(factor, Number):
            raise ObjectiveError(f"{self!r} * {factor!r}: a ramp is scaled by plain numbers only", hint="fold both into one ramp")
        return Ramp(_tidy(self.start * factor.value), _tidy(self.stop * factor.value), self.until)

    def rest(self) -> Weight:
        return Ramp(_tidy(1.0 - self.start), _tidy(1.0 - self.stop), self.until)

    def __repr__(self) -> str:
        return say("ramp", start=self.start, stop=self.stop, until=self.until)


class Dial(Weight):
    """offset + scale · value, the value a 0-dimensional tensor of a module, so that a cohort gives each student its own.

    A blend's two weights are turned by the one dial: `knob` is shared, and `torch.func.functional_call` replaces `knob.value` once.
    """

    def __init__(self, knob: Knob, scale: float = 1.0, offset: float = 0.0) -> None:
        self.knob, self.scale, self.offset = knob, scale, offset

    @property
    def held(self) -> tuple[nn.Module, ...]:
        return (self.knob,)

    def at(self, progress: float) -> Tensor:
        value = self.knob.value
        if self.scale != 1.0:
            value = value * self.scale
        return value + self.offset if self.offset else value

    def scaled(self, factor: Weight) -> Weight:
        if factor.composite:
            return factor.scaled(self)
        if not isinstance(factor, Number):
            raise ObjectiveError(f"{self!r} * {factor!r}: a tensor weight is scaled by plain numbers only", hint="multiply the tensors")
        return Dial(self.knob, self.scale * factor.value, self.offset * factor.value)

    def rest(self) -> Weight:
        return Dial(self.knob, -self.scale, 1.0 - self.offset)

    def __repr__(self) -> str:
        return repr(_tidy(self.offset + self.scale * number_in(self.knob.value)))


class Knob(nn.Module):
    """One tensor that may differ from student to student of a cohort; a buffer, and in no checkpoint."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", _scalar(value), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Knob:
        exact = self.value
        super()._apply(fn, recurse)
        if self.value.dtype != exact.dtype:  # `.bfloat16()` of a module is meant for its arithmetic: 0.9 must not become 0.8984
            self.value = exact.to(self.value.device)
        return self


def ramp(start: float, stop: float, until: float = 1.0) -> Ramp:
    """A weight that goes straight from `start` to `stop` as training goes from 0 to `until`, and stays there.

    until: share of training, 0..1, at which `stop` is reached. Warm-ups, fade-outs and stages are ramps: DKD's warm-up (arXiv:2203.08679)
    is `ramp(0, 1, until=0.08) * …`. 1 − ramp is a ramp again, so it may be the weight of a `blend`.

    >>> ramp(0, 1, until=0.5).at(0.25)
    0.5
    >>> ramp(0, 1)
    ramp(start=0.0, stop=1.0, until=1.0)
    """
    if not 0 < until <= 1:
        raise ObjectiveError(f"ramp(until={until:g}) is not a share of training", hint="0 < until ≤ 1")
    return Ramp(float(start), float(stop), float(until))


def as_weight(value: float | Tensor | Weight) -> Weight:
    """A number or a 0-dimensional tensor as a Weight; a Weight as it is."""
    if isinstance(value, Weight):
        return value
    if isinstance(value, Tensor):
        return Dial(Knob(value))
    return Number(float(value))


def _scalar(value: Tensor) -> Tensor:
    """`value` if it is one floating number, else ObjectiveError."""
    if value.dim() or not value.dtype.is_floating_point:
        raise ObjectiveError(
            f"a tensor of shape {tuple(value.shape)} and {value.dtype} where one floating number is meant",
            hint="torch.tensor(2.0); a cohort gives each student its value with torch.func.functional_call",
        )
    return value.detach().clone()


def number_in(value: float | Tensor) -> float:
    """The number in a 0-dimensional tensor, with no more digits than its type carries: 0.9, not 0.8999999762."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:
        value = value.float()
    return float(str(value.numpy()))


def _tidy(value: float) -> float:
    """1 − 0.9 is 0.1, not 0.09999999999999998: the text of an objective should not show the machine's last bit."""
    return round(value, 12)
