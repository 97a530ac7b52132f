"""A teacher made of the student itself: its weights, averaged over the training so far."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attar.errors import TeacherError
from attar.identity import digest
from attar.loop import processes
from attar.notation import say
from attar.signal import NOTHING, Batch, Signal
from attar.sources.module import digest_state, module

__all__ = ["Ema", "Following", "ema"]

HINT = "the teacher of distill or run, by itself: nothing wraps it and nothing stores it"


def ema(decay: float = 0.999, warmup: bool = True) -> Ema:
    """The student's own weights, averaged over its training, as its teacher: no other is needed, and none is asked.

        θ' ← d θ' + (1 − d) θ  after each step,   d = decay, with warm-up at most n / (n + 1) after n steps

    decay: 0 ≤ decay < 1; the mean reaches back about 1 / (1 − decay) steps. 0.999 is the paper's, which takes 0.99 at first; for
        a training of a few hundred steps 0.99 or less. 0 is the student itself, which teaches nothing.
    warmup: begin with the plain mean of all weights so far, as the paper's code does, so that chance weights are soon forgotten.

    Mean teacher, Tarvainen and Valpola 2017, arXiv:1703.01780. Averaged weights answer better than the last ones, and more alike from
    step to step. Unlike the paper's it answers without dropout or noise of its own, like each of attar's sources, and takes the student's
    running statistics (BatchNorm) as they are. What makes the two differ is augmentation, dropout of the student, and time: give some of
    them. Labels have to be part of the objective, or both stay what chance made them.

    `distill` and `run` make one for each seed; its weights are in every checkpoint, and those of the shipping student's epoch are kept as
    the teacher that it is compared with. Controls: "labels", and "smooth". `taught` is a teacher of its own, learnt before.

    Raises TeacherError for a decay out of range, and if it is asked before it follows a student.

    >>> ema(decay=0.99)
    ema(decay=0.99, warmup=True)
    """
    if not 0 <= decay < 1:
        raise TeacherError(f"ema(decay={decay:g}): a share of the old weights, below 1", hint="0.99 looks back a hundred steps")
    return Ema(float(decay), warmup)


@dataclass(frozen=True)
class Ema:
    """See `ema`. A description; `of` makes one that follows a student."""

    decay: float = 0.999
    warmup: bool = True

    def __repr__(self) -> str:
        return say("ema", decay=self.decay, warmup=self.warmup)

    @property
    def fingerprint(self) -> str:
        return digest("ema", self.decay, self.warmup)

    def of(self, student: nn.Module) -> Following:
        """One that begins with the weights `student` has now, on its device, and follows it."""
        return Following(student, self.decay, self.warmup)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        raise TeacherError(f"{self!r} follows a student in training, and here none is trained", hint=HINT)

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        raise TeacherError(f"{self!r} follows a student in training, and here none is trained", hint=HINT)


class Following:
    """See `ema`. net: the averaged weights. `step` follows the student once; `state_dict` is what a checkpoint needs.

    >>> student = nn.Linear(1, 1, bias=False)
    >>> _ = student.weight.data.fill_(0.0)
    >>> teacher = ema(decay=0.9).of(student)
    >>> for value in (2.0, 4.0):
    ...     _ = student.weight.data.fill_(value)
    ...     teacher.step()
    >>> teacher.net.weight.item()  # the plain mean of 0, 2 and 4
    2.0
    """

    training_ids = None  # the student's; nobody wrote them down

    def __init__(self, student: nn.Module, decay: float, warmup: bool) -> None:
        self.decay, self.warmup, self.steps = decay, warmup, 0
        self.net = copy.deepcopy(student).eval().requires_grad_(False)
        self._source = module(self.net)
        theirs, ours = dict(student.named_parameters()), dict(self.net.named_parameters())
        self._weights = [ours[name].data for name in ours], [theirs[name] for name in ours]
        self._buffers = list(zip(self.net.buffers(), student.buffers(), strict=True))

    def __repr__(self) -> str:
        return say("ema", decay=self.decay, warmup=self.warmup)

    @property
    def fingerprint(self) -> str:
        return digest("ema", self.decay, self.warmup, digest_state(self.net))

    @property
    def size_bytes(self) -> int:
        return self._source.size_bytes

    @property
    def parameters(self) -> int:
        return self._source.parameters

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        return self._source(batch, taps)

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The forward alone, on inputs already read."""
        return self._source.prepare(batch)

    def step(self) -> None:
        """Take in the student's weights as they are now."""
        self.steps += 1
        decay = min(self.steps / (self.steps + 1), self.decay) if self.warmup else self.decay
        ours, theirs = self._weights
        with torch.no_grad():
            torch._foreach_lerp_(ours, [t.data for t in theirs], 1 - decay)  # pyright: ignore[reportPrivateImportUsage] as torch.optim does
            for own, their in self._buffers:
                own.copy_(their)
                if processes()[1] > 1:  # running statistics differ from process to process until DDP shares the first one's
                    torch.distributed.broadcast(own, 0)

    def state_dict(self) -> dict[str, Tensor]:
        return {**{f"net.{name}": value for name, value in self.net.state_dict().items()}, "steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.net.load_state_dict({name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")})
        self.steps = int(state["steps"])
