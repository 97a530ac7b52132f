"""Students of one architecture trained as one tensor program: the weights are those that training each by itself gives."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from attar.errors import StudentError
from attar.loop import (
    AdamW,
    Fit,
    Signals,
    Stopped,
    Trained,
    averages,
    before_tracing,
    copied,
    finite,
    order_of,
    rate,
    refuse_other,
    write_checkpoint,
)
from attar.objective.weights import Knob
from attar.progress import Event, Listener, silent

__all__ = ["Lesson", "Measured", "Member", "bytes_for", "measure", "refusal", "train"]

Tree = Mapping[str, Any]
"""Tensors by name, or such mappings by name; the first axis of each tensor is rows."""

_FORMAT = 1  # of the checkpoint file
_PAUSE = 1.0  # seconds: a finished epoch is not written more often than this
_TABLE = 1 << 26  # bytes of what is made of all rows beforehand, in a lesson that comes again
_CHUNK = 4096  # rows that are asked at once for such tables
_SHELF = 1 << 23  # bytes of rows that are brought at once, for several steps: more would leave the caches, less would be asked too often
_DROP = 0.75  # the stack is made anew when no more than this share of it still learns
_CLOSE = 1e-3  # of the largest gradient: how near both ways must come in the trial; rounding alone is a thousandth of that
_STEPS = 8  # timed at a time
_UNMAPPED = (RuntimeError, ValueError, TypeError, IndexError, KeyError)  # whatever torch says of what it cannot map or trace


@dataclass(frozen=True)
class Member:
    """One student of a cohort.

    module: what trains, such as a Distiller. seed: fixes the order of its rows, as in `attar.loop.train`.
    arm: which of `Lesson.own` it is shown. lr: its learning rate; None is that of the fit. stage, identity: as in `train`.
    """

    module: nn.Module = field(repr=False)
    seed: int
    arm: int = 0
    lr: float | None = None
    stage: str = "train"
    identity: str = ""


@dataclass(frozen=True)
class Lesson:
    """What the students of a cohort are shown, and what they are held to.

    rows: of the training split. loss: (module, common, own, progress 0..1) → (total (), parts by name, each ()); it is mapped over the
        students, so it may not look at values to decide what to do.
    common: (R,) positions, epoch → what students of one seed see alike: inputs, labels, weights.
    own: arm, (R,) positions, epoch → what one arm alone is shown: its teacher's answers.
    moving: whether the loss changes with `progress`.
    period: epochs after which rows and answers come again, so that what no weight touches can be made once for all of them; 0 is never.
    """

    rows: int
    loss: Callable[[nn.Module, Tree, Tree, float], tuple[Tensor, Mapping[str, Tensor]]]
    common: Callable[[Tensor, int], Tree]
    own: Callable[[int, Tensor, int], Tree] = lambda arm, index, epoch: {}
    moving: bool = False
    period: int = 0


@dataclass(frozen=True)
class Measured:
    """Seconds of a step of one student by itself, and of a step of all of them together."""

    alone: float
    together: float


def train(
    members: Sequence[Member],
    lesson: Lesson,
    *,
    fit: Fit,
    validate: Callable[[nn.Module], float] | None = None,
    listen: Listener = silent,
    record: Callable[[Member, Mapping[str, Any]], None] | None = None,
    stage: str = "cohort",
    checkpoint: Path | None = None,
    resume: bool = False,
    traced: bool = False,
    stop: Callable[[int, Mapping[int, float]], Collection[int]] | None = None,
    forgiving: bool = False,
) -> tuple[Trained, ...]:
    """Train all modules in place, each as `attar.loop.train` would: same rows in the same order, steps, schedule, best epoch, patience.

    Weights and moments are stacked, (S, ...), and one mapped program makes the step of all students; the sums are taken in another
    order, so that the weights agree up to rounding (1e-5 after a hundred steps of float32). A student whose patience has ended is
    kept as it was best and leaves the stack. `seconds` of a student is its share of the time of all that learnt beside it.

    validate: as in `attar.loop.train`, asked of each module after each epoch. record: told of the member whose line it is.
    checkpoint: of all together, written at the end of an epoch, at most once a second, and when a signal stops the training; with
        `resume` the training goes on from it bit for bit.
    traced: the program is traced once for each size of step and replayed, which saves half of small steps and costs a second or two;
        not for a loss that moves. Where the lesson has a `period`, what no weight touches is made once for all rows.
    stop: asked after each epoch but the last with (epoch, the score of each member that still learns, by its place in `members`); the
        members whose places it returns are done as those are whose patience has ended. It needs `validate`.
    forgiving: a member whose loss or score is not finite is done likewise, as it was best, and its score is NaN; the others go on.

    Raises StudentError for modules of different build and where a loss or score is not finite, RunError where the checkpoint is of
    another training, Stopped on SIGINT or SIGTERM.

    >>> x = torch.linspace(-1, 1, 64)[:, None]
    >>> lesson = Lesson(
    ...     64, lambda line, rows, own, progress: ((line(rows["x"]) - 3 * rows["x"]).square().mean(), {}), lambda i, e: {"x": x[i]}
    ... )
    >>> lines = [nn.Linear(1, 1) for _ in range(3)]
    >>> members = [Member(line, seed) for seed, line in enumerate(lines)]
    >>> done = train(members, lesson, fit=Fit(epochs=60, lr=0.1, batch=16))
    >>> [round(line.weight.item(), 1) for line in lines]
    [3.0, 3.0, 3.0]
    """
    return _Training(members, lesson, fit, validate, listen, record, stage, checkpoint, traced, stop, forgiving).run(resume)


def refusal(members: Sequence[Member], lesson: Lesson, fit: Fit) -> str | None:
    """Why these students cannot be trained together, in words, or None. It tries a step of both ways, and compares gradients and buffers.

    Refused are chance inside the module, such as dropout, for it cannot be drawn as it is for one; what cannot be mapped, such as
    a branch on values; and whatever comes out otherwise.
    """
    members = _copies(members)
    try:
        together = _Stack(members, lesson, fit)
    except StudentError as error:
        return error.message
    if together.chance:
        return "there is chance inside the module, such as dropout"
    at, shown = 0, next(together.steps(1, 0))
    alone = _copies(members)
    try:
        totals, _ = together.gradients(shown, 0.0)
    except _UNMAPPED as error:
        return f"its step cannot be mapped over students: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    for at, member in enumerate(alone):
        index = together.index(member.seed, 1)[0]
        total, _ = lesson.loss(member.module.train(), lesson.common(index, 1), lesson.own(member.arm, index, 1), 0.0)
        total.backward()
        if not _near(totals[at], total):
            return "its loss is another one when it is mapped over students"
        grads = {name: member.module.get_parameter(name).grad for name in together.names}
        scale = max((float(there.abs().max()) for there in grads.values() if there is not None), default=0.0)
        for name, mapped in zip(together.names, together.grads(), strict=True):
            there = grads[name]
            if (there is None) != (mapped is None) or (there is not None and mapped is not None and not _near(mapped[at], there, scale)):
                return f"the gradient of {name} is another one when the step is mapped over students"
        for name, value in zip(together.moved, together.held, strict=True):
            if not _near(value[at], dict(member.module.named_buffers())[name]):
                return f"the buffer {name} becomes another one when the step is mapped over students"
    return None


def bytes_for(member: Member, lesson: Lesson, fit: Fit) -> int:
    """What one more student needs while a cohort trains: weights, gradient, moments, a step, the best epoch, and twice what a step saves.

    Twice, for the gradients of what was saved are of its size.
    """
    (member,) = _copies([member])
    index = order_of(lesson.rows, _steps(lesson, fit), member.seed, 1)[0]
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.random.fork_rng(devices=[]):
        lesson.loss(member.module.train(), lesson.common(index, 1), lesson.own(member.arm, index, 1), 0.0)
    return 6 * sum(w.nbytes for w in member.module.state_dict().values()) + 2 * sum(saved.values())


def measure(
    members: Sequence[Member],
    lesson: Lesson,
    fit: Fit,
    *,
    traced: bool = False,
    together: bool = True,
    repeats: int = 3,
    steps: int = _STEPS,
) -> Measured:
    """Times a few steps of both ways on copies, in turn, so that what else the machine does meets both alike; medians.

    steps: at a time; the first of them finds the caches as the other way left them, which counts for less among many.
    together: False times the first student alone; the other figure is then NaN.
    """
    ways: list[_Alone | _Stack] = [_Alone(_copies(members[:1])[0], lesson, fit)]
    if together:
        ways.append(_Stack(_copies(members), lesson, fit))
    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(repeats + 1):
        for way, took in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            count = way.some(steps if turn else 1, traced)
            if turn:  # the first is a warm-up, and traces
                took.append((time.perf_counter() - start) / count)
    alone, *rest = [statistics.median(took) for took in seconds]
    return Measured(alone, rest[0] if rest else math.nan)


class _Alone:
    """Steps of one student as `attar.loop.train` makes them, to be timed."""

    def __init__(self, member: Member, lesson: Lesson, fit: Fit) -> None:
        self.member, self.lesson, self.fit = member, lesson, fit
        self.module = member.module.train()
        self.optimizer = AdamW([w for w in self.module.parameters() if w.requires_grad], fit.weight_decay)
        self.order = order_of(lesson.rows, _steps(lesson, fit), member.seed, 1)

    def some(self, count: int, traced: bool) -> int:
        lesson = self.lesson
        for index in self.order[:count]:
            total, _ = lesson.loss(self.module, lesson.common(index, 1), lesson.own(self.member.arm, index, 1), 0.0)
            total.backward()
            self.optimizer.step(1e-6)
        return min(count, len(self.order))


class _Call(nn.Module):
    """A module and its loss as one call, as `functional_call` wants it."""

    def __init__(self, module: nn.Module, lesson: Lesson) -> None:
        super().__init__()
        self.module, self.loss = module, lesson.loss

    def forward(self, common: Tree, own: Tree, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self.loss(self.module, common, own, progress)


class _Stack:
    """The weights of all members as one, (S, ...); the members' modules are views of them, so that each answers by itself.

    moved: buffers that a step changes, or in which members differ; `held` has them stacked. All others are one for all.
    chance: whether a step draws from the global generator.
    """

    def __init__(self, members: Sequence[Member], lesson: Lesson, fit: Fit, moments: _Moments | None = None) -> None:
        self.members, self.lesson, self.fit = tuple(members), lesson, fit
        self.all_steps = _steps(lesson, fit)
        modules = [member.module for member in members]
        _need_alike(modules)
        self.arms, self.seeds = sorted({m.arm for m in members}), sorted({m.seed for m in members})
        self.cells = [(self.arms.index(m.arm), self.seeds.index(m.seed)) for m in members]
        self.grid = len(self.arms) > 1 and self.cells == list(product(range(len(self.arms)), range(len(self.seeds))))
        self.names = [name for name, w in modules[0].named_parameters() if w.requires_grad]
        self.weights = [_stacked(modules, name).requires_grad_() for name in self.names]
        self.device = self.weights[0].device
        changed, self.chance = self._probed(modules[0])
        self.moved, self.shared = list[str](), dict[str, Tensor]()
        for name, value in _held(modules[0]).items():
            if name in changed or not all(torch.equal(value, _held(module)[name]) for module in modules[1:]):
                self.moved.append(name)
            else:
                self.shared[f"module.{name}"] = value.detach()
        self.held = [_stacked(modules, name) for name in self.moved]
        for at, module in enumerate(modules):
            there = dict(module.named_parameters()) | dict(module.named_buffers())
            for name, value in zip([*self.names, *self.moved], [*self.weights, *self.held], strict=True):
                there[name].data = value.detach()[at]
        self.call = _Call(copy.deepcopy(modules[0]), lesson).train()
        self.moments = moments or _Moments(self.weights)
        self.shifts, self.optimizer = self._optimizer()
        self.replays: dict[int, _Replayed | None] = {}
        self.ordered: tuple[int, list[tuple[Tensor, ...]]] = (0, [])

    # ---- steps

    def steps(self, epoch: int, done: int, until_step: int | None = None, *, traced: bool = False) -> Iterator[_Shown]:
        """What the steps of an epoch show, from the one after `done` to `until_step`: rows of several steps are brought at once."""
        orders = self._orders(epoch)
        at, reach, end = done, 1, self.all_steps if until_step is None else min(until_step, self.all_steps)
        while at < end:
            until = at + 1
            while until < min(at + reach, end) and len(orders[0][until]) == len(orders[0][at]):
                until += 1
            index = torch.stack([order[step] for step in range(at, until) for order in orders])
            index = index.unflatten(0, (until - at, len(self.seeds)))  # (M, K, B)
            replay = self._replay(index.shape[2]) if traced else None
            if replay is not None and replay.tabled:
                shelf = replay.look_up(index, epoch)
                yield from (_Shown({}, {}, replay, [value[step] for value in shelf]) for step in range(until - at))
                size = sum(value.nbytes for value in shelf)
            else:
                common, own = self._brought(index, epoch)
                for step in range(until - at):
                    its = [_each(tree, lambda value, step=step: value[step]) for tree in (common, own)]
                    yield _Shown(its[0], its[1], replay, [*_leaves(its[0]), *_leaves(its[1])] if replay is not None else [])
                size = _bytes(common) + _bytes(own)
            reach = max(1, _SHELF * (until - at) // max(1, size))
            at = until

    def _brought(self, index: Tensor, epoch: int) -> tuple[Tree, Tree]:
        """Rows and answers at the positions (M, K, B) of each seed: (M, K, B, ...) and (M, A, K, B, ...), or (M, S, B, ...) both."""
        shape = tuple(index.shape)
        common = _each(self.lesson.common(index.flatten(), epoch), lambda value: value.unflatten(0, shape))
        arms = [self.lesson.own(arm, index.flatten(), epoch) for arm in self.arms]
        own = _joined(arms, lambda values: torch.stack([value.unflatten(0, shape) for value in values], 1))
        if not self.grid:
            columns = torch.tensor([seed for _, seed in self.cells], device=self.device)
            places = torch.tensor([arm * len(self.seeds) + seed for arm, seed in self.cells], device=self.device)
            common = _each(common, lambda value: value.index_select(1, columns))
            own = _each(own, lambda value: value.flatten(1, 2).index_select(1, places))
        return common, own

    def _orders(self, epoch: int) -> list[tuple[Tensor, ...]]:
        """The order of each seed, kept for the epoch that is asked again and again while steps are timed."""
        if self.ordered[0] != epoch:
            self.ordered = (epoch, [self.index(seed, epoch) for seed in self.seeds])
        return self.ordered[1]

    def index(self, seed: int, epoch: int) -> tuple[Tensor, ...]:
        return order_of(self.lesson.rows, self.all_steps, seed, epoch)

    def some(self, count: int, traced: bool) -> int:
        """A few steps that are timed; the learning rate is too small to matter."""
        made = 0
        for shown in self.steps(1, 0, count, traced=traced):  # as an epoch's steps cost: no rows are brought that no step shows
            self.gradients(shown, 0.0)
            self.update(0, math.inf)
            made += 1
        return made

    def gradients(self, shown: _Shown, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Puts each weight's gradient on it; returns the totals, (S,), and their parts."""
        if shown.replay is not None:
            with torch.no_grad():
                found, totals, parts = shown.replay(self.held, shown.rows)
            for weight, its in zip(self.weights, found, strict=True):
                weight.grad = None if its is None else its.contiguous()  # fused AdamW goes by memory, not by strides
            return totals, parts
        totals, parts = self._program(self.weights, self.held, shown.common, shown.own, progress)
        totals.sum().backward()
        return totals.detach(), {name: part.detach() for name, part in parts.items()}

    def grads(self) -> list[Tensor | None]:
        return [weight.grad for weight in self.weights]

    def update(self, done: int, all_steps: float) -> list[float]:
        """The optimiser's step; returns the learning rate of each member."""
        if self.fit.clip is not None:
            self._clip(self.fit.clip)
        rates = [
            rate(replace(self.fit, lr=self._lr(member)), done, int(all_steps)) if all_steps < math.inf else 1e-6 for member in self.members
        ]
        if self.shifts is None:
            self.optimizer.step(rates[0])
            return rates
        moving = [(weight, shift) for weight, shift in zip(self.weights, self.shifts, strict=True) if weight.grad is not None]
        for weight, shift in moving:
            shift.grad, weight.grad = weight.grad, None
        self.optimizer.step(1.0)
        own = torch.tensor(rates, device=self.device, dtype=torch.float64)
        with torch.no_grad():
            for weight, shift in moving:
                each = own.to(weight.dtype).reshape(-1, *[1] * (weight.dim() - 1))
                weight.mul_(1 - self.fit.weight_decay * each).addcmul_(shift, each)
                shift.zero_()
        return rates

    def keep(self, stay: Sequence[int]) -> _Stack:
        """The stack of some members, by position; what they learnt goes on."""
        at = torch.tensor(stay, device=self.device)
        moments = _Moments(self.weights)
        moments.means = [value.index_select(0, at) for value in self.moments.means]
        moments.squares = [value.index_select(0, at) for value in self.moments.squares]
        moments.steps = [value.clone() for value in self.optimizer.steps]
        return _Stack([self.members[i] for i in stay], self.lesson, self.fit, moments)

    def state_dict(self) -> dict[str, Any]:
        moments = {"means": self.moments.means, "squares": self.moments.squares, "steps": self.optimizer.steps}
        return {"weights": [w.detach() for w in self.weights], "held": self.held, **moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """In place: the members' modules and the optimisers are views."""
        ours = [w.detach() for w in self.weights] + self.held + self.moments.means + self.moments.squares
        theirs = [*state["weights"], *state["held"], *state["means"], *state["squares"]]
        for mine, other in zip(ours, theirs, strict=True):
            mine.copy_(other)
        self.moments.steps = list(state["steps"])
        self.shifts, self.optimizer = self._optimizer()

    # ---- inside

    def _program(
        self, weights: Sequence[Tensor], held: Sequence[Tensor], common: Tree, own: Tree, progress: float
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        def one(weights: list[Tensor], held: list[Tensor], common: Tree, own: Tree) -> tuple[Tensor, Mapping[str, Tensor]]:
            return self._one(weights, held, common, own, progress)

        totals, parts = self._mapped(one, weights, held, common, own)
        return totals.flatten(), {name: part.flatten() for name, part in parts.items()}

    def _one(
        self, weights: list[Tensor], held: list[Tensor], common: Tree, own: Tree, progress: float
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of one student by its weights."""
        named = dict(zip([f"module.{name}" for name in (*self.names, *self.moved)], [*weights, *held], strict=True))
        return functional_call(self.call, {**self.shared, **named}, (common, own, progress))

    def _mapped(self, one: Callable[..., Any], weights: Sequence[Tensor], held: Sequence[Tensor], common: Tree, own: Tree) -> Any:
        """`one` of each student: (S, ...) or (arms, seeds, ...)."""
        if not self.grid:
            return vmap(one)(list(weights), list(held), common, own)
        # Arms outside, seeds inside: what no weight touches, such as reading rows, is then done once for each seed and not for each arm.
        shape = (len(self.arms), len(self.seeds))
        stacks = [[value.unflatten(0, shape) for value in values] for values in (weights, held)]
        return vmap(vmap(one), in_dims=(0, 0, None, 0))(*stacks, common, own)

    def _replay(self, rows: int) -> _Replayed | None:
        """What `_trace` made for steps of so many rows."""
        if rows not in self.replays:
            step = next(step for step, index in enumerate(self._orders(1)[0]) if len(index) == rows)
            self.replays[rows] = self._trace(step)
        return self.replays[rows]

    def _trace(self, step: int = 0) -> _Replayed | None:
        """The step as a flat list of kernels, without the look-ups of modules, of the mapping and of automatic differentiation.

        None where it cannot be traced, or comes out otherwise than the step itself. step: of the first epoch, whose rows it is tried on.
        """
        before_tracing()
        from torch.fx.experimental.proxy_tensor import make_fx  # its import takes most of a second

        def one(weights: list[Tensor], held: list[Tensor], common: Tree, own: Tree) -> Any:
            return grad_and_value(self._one, has_aux=True)(weights, held, common, own, 0.0)  # all as arguments: a captured buffer is fixed

        def flat(*values: Tensor) -> tuple[Any, Tensor, Mapping[str, Tensor]]:
            common, own = _filled(trees[0], iter(values[ends[1] : ends[2]])), _filled(trees[1], iter(values[ends[2] :]))
            grads, (totals, parts) = self._mapped(one, list(values[: ends[0]]), list(values[ends[0] : ends[1]]), common, own)
            flat = [each.flatten(0, 1) if self.grid else each for each in grads]
            named = {name: part.flatten() for name, part in parts.items()}
            return [each if there else None for each, there in zip(flat, used, strict=True)], totals.flatten(), named

        sizes = [len(index) for index in self._orders(1)[0]]
        at = [step, *[other for other, size in enumerate(sizes) if size == sizes[step] and other != step][:2]]
        index = [torch.stack([order[which] for order in self._orders(1)]).unsqueeze(0) for which in at]
        brought = [self._brought(its, 1) for its in index]
        tried = [(_each(common, lambda value: value[0]), _each(own, lambda value: value[0])) for common, own in brought]
        trees = tried[0]
        leaves = [_leaves(tree) for tree in trees]
        weights = [w.detach().clone() for w in self.weights]
        ends = [len(weights), len(weights) + len(self.held), len(weights) + len(self.held) + len(leaves[0])]
        used = [g is not None for g in self._untraced(*trees)[2]]
        try:
            traced = make_fx(flat)(*weights, *[value.clone() for value in self.held], *leaves[0], *leaves[1])
        except _UNMAPPED:
            return None
        for tabled in (True, False) if self.lesson.period else (False,):
            try:
                replay = _Replayed(self, copy.deepcopy(traced), (len(leaves[0]), len(leaves[1])), tabled)
                if all(self._agrees(replay, *batch) for batch in zip(index, tried, strict=True)):  # other rows, too: what the
                    return replay  # trace took for a constant must not be of the rows
            except _UNMAPPED:
                continue
        return None

    def _agrees(self, replay: _Replayed, index: Tensor, trees: tuple[Tree, Tree]) -> bool:
        totals, held, wanted = self._untraced(*trees)
        tried = [value.clone() for value in self.held]
        rows = [value[0] for value in replay.look_up(index, 1)] if replay.tabled else [*_leaves(trees[0]), *_leaves(trees[1])]
        with torch.no_grad():
            grads, found, _ = replay(tried, rows)
        pairs = [(found, totals), *zip(tried, held, strict=True), *((g, w) for g, w in zip(grads, wanted, strict=True) if w is not None)]
        scale = max(float(w.abs().max()) for w in wanted if w is not None)
        return all(_near(one, other, scale) for one, other in pairs)

    def _untraced(self, common: Tree, own: Tree) -> tuple[Tensor, list[Tensor], tuple[Tensor | None, ...]]:
        """Totals, buffers and gradients of a step as the mapping makes them, which leaves no trace on the stack."""
        held = [value.clone() for value in self.held]
        leaves = [w.detach().clone().requires_grad_() for w in self.weights]
        totals, _ = self._program(leaves, held, common, own, 0.0)
        return totals, held, torch.autograd.grad(totals.sum(), leaves, allow_unused=True)

    def _optimizer(self) -> tuple[list[nn.Parameter] | None, AdamW]:
        """Where all learn at one rate, one on the weights. Else one that steps at rate one, without decay, from zeros: each member then
        goes its own share of that way, which is one fused step for all of them and not one for each rate.
        """
        shifts = None
        if len({self._lr(member) for member in self.members}) > 1:
            shifts = [nn.Parameter(torch.zeros_like(weight)) for weight in self.weights]
        stepped = cast("list[nn.Parameter]", self.weights) if shifts is None else shifts
        optimizer = AdamW(stepped, self.fit.weight_decay if shifts is None else 0.0)
        optimizer.means, optimizer.squares = list(self.moments.means), list(self.moments.squares)
        optimizer.steps = [step.clone() for step in self.moments.steps]
        return shifts, optimizer

    def _lr(self, member: Member) -> float:
        return self.fit.lr if member.lr is None else member.lr

    def _clip(self, most: float) -> None:
        """As `clip_grad_norm_`, for each student by itself."""
        grads = [weight.grad for weight in self.weights if weight.grad is not None]
        norm = torch.stack([each.flatten(1).norm(dim=1) for each in grads]).norm(dim=0)  # (S,)
        factor = (most / (norm + 1e-6)).clamp(max=1.0)
        for each in grads:
            each.mul_(factor.reshape(-1, *[1] * (each.dim() - 1)))

    def _probed(self, module: nn.Module) -> tuple[set[str], bool]:
        """Which buffers a step changes, and whether it draws from the global generator."""
        trial = copy.deepcopy(module).train()
        before = {name: value.clone() for name, value in trial.named_buffers()}
        member = self.members[0]
        index = self.index(member.seed, 1)[0]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            state = torch.get_rng_state()
            self.lesson.loss(trial, self.lesson.common(index, 1), self.lesson.own(member.arm, index, 1), 0.0)
            chance = not torch.equal(state, torch.get_rng_state())
        return {name for name, value in trial.named_buffers() if not torch.equal(value, before[name])}, chance


@dataclass(frozen=True)
class _Shown:
    """What a step shows: rows and answers as the lesson has them, or, in the order that a replay wants, `rows`."""

    common: Tree
    own: Tree
    replay: _Replayed | None = None
    rows: Sequence[Tensor] = ()


class _Replayed:
    """A traced step of a stack, and what it is given of each row where that was made for all of them: `tables`.

    leaves: how many tensors of rows, and how many of answers, the step was traced with.
    """

    def __init__(self, stack: _Stack, traced: Any, leaves: tuple[int, int], tabled: bool) -> None:
        from attar.replay import Replay  # with what it needs of torch it takes a second, and a cohort that is not traced does without

        lead = 3 if stack.grid else 2
        self.stack = stack
        self.step = Replay(traced, [w.detach() for w in stack.weights], len(stack.held), [2] * leaves[0] + [lead] * leaves[1], tabled)
        lesson = stack.lesson
        self.leaves, self.tabled = leaves, bool(self.step.by_row)
        if tabled and not 0 < self.step.row_bytes * lesson.rows * len(stack.arms) * lesson.period <= _TABLE:
            raise ValueError("there is nothing to make tables of, or they would be too large")
        self.tables: dict[int, list[tuple[bool, Tensor]]] = {}  # by epoch of a period: of rows (R, ...), or, True, of answers (A R, ...)

    def _tables(self, epoch: int) -> list[tuple[bool, Tensor]]:
        lesson, of = self.stack.lesson, epoch % self.stack.lesson.period
        if of not in self.tables:
            every = torch.arange(lesson.rows, device=self.stack.device).split(_CHUNK)
            with torch.no_grad():
                common = self._made([_leaves(lesson.common(index, epoch)) for index in every], 0)
                own = [self._made([_leaves(lesson.own(arm, index, epoch)) for index in every], self.leaves[0]) for arm in self.stack.arms]
            self.tables[of] = [
                (False, common[place]) if place in common else (True, torch.cat([each[place] for each in own]))
                for place in range(len(self.step.entering))
            ]
        return self.tables[of]

    def __call__(self, held: Sequence[Tensor], rows: Sequence[Tensor]) -> Any:
        return self.step(held, rows)

    def _made(self, chunks: Sequence[Sequence[Tensor]], first: int) -> dict[int, Tensor]:
        return self.step.tables({first + at: torch.cat(parts) for at, parts in enumerate(zip(*chunks, strict=True))})

    def look_up(self, index: Tensor, epoch: int) -> list[Tensor]:
        """Of the rows at the positions (M, K, B) of each seed, for the steps; see `_Stack._brought`."""
        stack, rows = self.stack, self.stack.lesson.rows
        if stack.grid:
            arms = torch.arange(len(stack.arms), device=index.device).reshape(1, -1, 1, 1)
            answers = index.unsqueeze(1) + arms * rows  # (M, A, K, B)
        else:
            index = index.index_select(1, torch.tensor([seed for _, seed in stack.cells], device=index.device))  # (M, S, B)
            answers = index + torch.tensor([arm for arm, _ in stack.cells], device=index.device).reshape(1, -1, 1) * rows
        return [
            table.index_select(0, at.flatten()).unflatten(0, tuple(at.shape))
            for at, table in ((answers if own else index, table) for own, table in self._tables(epoch))
        ]


class _Moments:
    """Of AdamW, stacked as the weights are."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.means = [torch.zeros_like(w, requires_grad=False) for w in weights]
        self.squares = [torch.zeros_like(w, requires_grad=False) for w in weights]
        self.steps = [torch.zeros((), device=w.device) for w in weights]


@dataclass
class _Standing:
    """Where one member stands; what the checkpoint holds of it beside weights and optimiser."""

    best_epoch: int = 0
    best_score: float = -math.inf
    best: dict[str, Tensor] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    done: bool = False
    lost: bool = False  # its loss or score was not finite


class _Training:
    """One call of `train`."""

    def __init__(
        self,
        members: Sequence[Member],
        lesson: Lesson,
        fit: Fit,
        validate: Callable[[nn.Module], float] | None,
        listen: Listener,
        record: Callable[[Member, Mapping[str, Any]], None] | None,
        stage: str,
        checkpoint: Path | None,
        traced: bool,
        stop: Callable[[int, Mapping[int, float]], Collection[int]] | None,
        forgiving: bool,
    ) -> None:
        if lesson.rows < 1:
            raise StudentError(f"{stage}: there are no rows to train on", hint="look at the training split")
        self.asked = list(members)
        # Arms outside, seeds inside, as the mapped program has them.
        self.members = sorted(members, key=lambda m: (m.arm, m.seed))
        self.lesson, self.fit, self.validate, self.listen, self.record = lesson, fit, validate, listen, record
        self.stage, self.checkpoint, self.traced = stage, checkpoint, traced and not lesson.moving
        self.stop, self.forgiving = stop, forgiving
        self.steps = _steps(lesson, fit)
        self.epoch, self.step = 0, 0  # finished
        self.standings = [_Standing() for _ in self.members]
        self.live = list(range(len(self.members)))  # whose rows of the stack these are
        self.totals: list[Tensor] = []  # (S,) of each step of the epoch
        self.parts: list[Mapping[str, Tensor]] = []
        self.stack = _Stack(self.members, lesson, fit)

    def run(self, resume: bool) -> tuple[Trained, ...]:
        for member in self.members:
            member.module.eval()  # they answer on validation rows; a copy of one of them learns
        if resume:
            self._load()
        self.saved = time.monotonic()
        with Signals() as signals:
            while self.epoch < self.fit.epochs and not all(standing.done for standing in self.standings):
                self._epoch(signals)
                self._heed(signals)
        for at in self.live:
            self._leave(at)
        return tuple(self._trained(self.members.index(member)) for member in self.asked)

    def _epoch(self, signals: Signals) -> None:
        epoch, start = self.epoch + 1, time.perf_counter()
        all_steps = self.fit.epochs * self.steps
        rates: list[float] = []
        for shown in self.stack.steps(epoch, self.step, traced=self.traced):
            done = (epoch - 1) * self.steps + self.step
            totals, parts = self.stack.gradients(shown, done / all_steps)
            rates = self.stack.update(done, all_steps)
            self.totals.append(totals)  # read once an epoch
            self.parts.append(parts)
            self.step += 1
            if signals.caught:
                self._share(time.perf_counter() - start)
                self._heed(signals)
        totals = torch.stack(self.totals).float().cpu()  # (T, S)
        parts = {name: torch.stack([part[name] for part in self.parts]).float().cpu() for name in self.parts[0]}
        lines: list[tuple[int, dict[str, Any]]] = []
        for row, at in enumerate(self.live):
            standing, member = self.standings[at], self.members[at]
            if standing.done:
                continue
            own = {name: values[:, row] for name, values in parts.items()}
            if self.forgiving and not bool(totals[:, row].isfinite().all()):
                standing.done = standing.lost = True
                continue
            loss, means = averages(totals[:, row], own, stage=member.stage, epoch=epoch, checkpoint=self.checkpoint)
            score = self._score(member, epoch)
            if score is not None and not math.isfinite(score):
                standing.done = standing.lost = True
                continue
            if score is not None and score >= standing.best_score:
                standing.best_epoch, standing.best_score = epoch, score
                standing.best = copied(member.module.state_dict())
            line = {"stage": member.stage, "seed": member.seed, "epoch": epoch, "loss": loss, "parts": means, "valid": score}
            lines.append((at, line | {"lr": rates[row]}))
        self._share(time.perf_counter() - start)
        self.epoch, self.step, self.totals, self.parts = epoch, 0, [], []
        self._note(lines)
        self._drop()
        if time.monotonic() - self.saved >= _PAUSE:
            self._save()

    def _score(self, member: Member, epoch: int) -> float | None:
        if self.validate is None:
            return None
        with torch.no_grad():
            score = float(self.validate(member.module))
        return score if self.forgiving else finite(score, stage=member.stage, epoch=epoch)

    def _share(self, seconds: float) -> None:
        learning = [standing for standing in self.standings if not standing.done]
        for standing in learning:
            standing.seconds += seconds / len(learning)

    def _note(self, lines: Sequence[tuple[int, dict[str, Any]]]) -> None:
        for at, line in lines:
            line["seconds"] = round(self.standings[at].seconds, 3)
            self.standings[at].history.append(line)
            if self.record:
                self.record(self.members[at], line)
        if not lines:
            return
        numbers = {"loss": statistics.mean(line["loss"] for _, line in lines)}
        if self.validate is not None:
            numbers["valid"] = statistics.mean(line["valid"] for _, line in lines)
        self.listen(Event(self.stage, self.epoch, self.fit.epochs, numbers=numbers))

    def _drop(self) -> None:
        """Marks whose patience has ended, and makes the stack anew where many have gone."""
        if self.validate is None:
            return
        for standing in self.standings:
            standing.done = standing.done or self.epoch - standing.best_epoch >= self.fit.patience
        self._ask_to_stop()
        stay = [row for row, at in enumerate(self.live) if not self.standings[at].done]
        if not stay or len(stay) > _DROP * len(self.live):
            return
        for row, at in enumerate(self.live):
            if row not in stay:
                self._leave(at)
        self.stack = self.stack.keep(stay)
        self.live = [self.live[row] for row in stay]

    def _ask_to_stop(self) -> None:
        if self.stop is None or self.epoch == self.fit.epochs:
            return
        learning = [at for at in self.live if not self.standings[at].done]
        places = {self.asked.index(self.members[at]): at for at in learning}
        for place in self.stop(self.epoch, {place: self.standings[at].history[-1]["valid"] for place, at in places.items()}):
            self.standings[places[place]].done = True

    def _leave(self, at: int) -> None:
        """Gives a member its weights back, those of its best epoch."""
        module, best = self.members[at].module, self.standings[at].best
        for value in (*module.parameters(), *module.buffers()):
            value.data = value.detach().clone()
        if best is not None:
            module.load_state_dict(best)

    def _trained(self, at: int) -> Trained:
        standing, epochs = self.standings[at], len(self.standings[at].history)
        best = standing.best_epoch if self.validate else epochs
        score = standing.best_score if self.validate and not standing.lost else math.nan
        return Trained(tuple(standing.history), best, score, epochs, standing.seconds)

    def _heed(self, signals: Signals) -> None:
        if signals.caught:
            self._save()
            raise Stopped(self.stage, self.epoch + (self.step > 0), signals.caught, self.checkpoint)

    def _identity(self) -> dict[str, Any]:
        shape = [f"{name} {tuple(value.shape)}" for name, value in self.members[0].module.state_dict().items()]
        alike = repr(self.fit.alike)
        members = [(m.stage, m.seed, m.arm, m.lr, m.identity) for m in self.members]
        return {"fit": alike, "rows": self.lesson.rows, "weights": shape, "members": members}

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.checkpoint is None:
            return
        content = {"format": _FORMAT, "identity": self._identity(), "stack": self.stack.state_dict()}
        content |= {"standings": [vars(standing) for standing in self.standings], "live": self.live}
        content |= {"epoch": self.epoch, "step": self.step, "totals": self.totals, "parts": self.parts}
        write_checkpoint(content, self.checkpoint)

    def _load(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        content = torch.load(self.checkpoint, map_location=self.stack.device, weights_only=True)
        ours, theirs = {"format": _FORMAT, **self._identity()}, {"format": content["format"], **content["identity"]}
        refuse_other(self.checkpoint, ours, theirs)
        self.standings = [_Standing(**standing) for standing in content["standings"]]
        self.epoch, self.step, self.totals, self.parts = (content[name] for name in ("epoch", "step", "totals", "parts"))
        if content["live"] != self.live:
            for at in sorted(set(self.live) - set(content["live"])):
                self._leave(at)
            self.stack, self.live = self.stack.keep(content["live"]), content["live"]
        self.stack.load_state_dict(content["stack"])
        if self.record:
            for member, standing in zip(self.members, self.standings, strict=True):
                for line in standing.history:
                    self.record(member, line)


def _need_alike(modules: Sequence[nn.Module]) -> None:
    """Raise StudentError unless all modules differ in the values of tensors alone."""
    first = _form(modules[0])
    if not first[0]:
        raise StudentError("the module has no weights to train", hint="requires_grad is False for all of them")
    for at, module in enumerate(modules[1:], 1):
        if _form(module) != first:
            raise StudentError(
                f"student {at} is of another build than student 0",
                hint="what differs from student to student is a tensor: kl(temperature=torch.tensor(2.0))",
            )


def _form(module: nn.Module) -> tuple[list[str], str]:
    """Weights to train by name and shape, and the text of a module whose knobs are all turned to 1."""
    plain = copy.deepcopy(module)
    for part in plain.modules():
        if isinstance(part, Knob):
            part.value.fill_(1.0)
    shapes = [f"{name} {tuple(value.shape)} {value.dtype}" for name, value in _held(plain).items()]
    weights = [f"{name} {tuple(w.shape)} {w.dtype}" for name, w in plain.named_parameters() if w.requires_grad]
    return weights, "\n".join([repr(plain), *shapes])


def _held(module: nn.Module) -> dict[str, Tensor]:
    """What a module has beside the weights to train: buffers, and weights that are frozen."""
    frozen = {name: w for name, w in module.named_parameters() if not w.requires_grad}
    return frozen | dict(module.named_buffers())


def _stacked(modules: Sequence[nn.Module], name: str) -> Tensor:
    return torch.stack([(dict(m.named_parameters()) | dict(m.named_buffers()))[name].detach() for m in modules])


def _copies(members: Sequence[Member]) -> list[Member]:
    return [replace(member, module=copy.deepcopy(member.module)) for member in members]


def _steps(lesson: Lesson, fit: Fit) -> int:
    return math.ceil(lesson.rows / fit.rows_a_step(lesson.rows))


def _near(one: Tensor, other: Tensor, scale: float = 0.0) -> bool:
    """scale: of what rounding is measured by, where that is more than the largest number itself."""
    if one.shape != other.shape:
        return False
    largest = max(scale, float(other.detach().abs().max()) if other.numel() else 0.0)
    return bool(((one - other).detach().abs() <= _CLOSE * largest).all())


def _each(tree: Tree, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {name: change(value) if isinstance(value, Tensor) else _each(value, change) for name, value in tree.items()}


def _joined(trees: Sequence[Tree], join: Callable[[list[Tensor]], Tensor]) -> dict[str, Any]:
    """One tree of several of the same names."""
    first = trees[0]
    return {
        name: join([tree[name] for tree in trees]) if isinstance(value, Tensor) else _joined([tree[name] for tree in trees], join)
        for name, value in first.items()
    }


def _bytes(tree: Tree) -> int:
    return sum(value.nbytes if isinstance(value, Tensor) else _bytes(value) for value in tree.values())


def _leaves(tree: Tree) -> list[Tensor]:
    return [leaf for value in tree.values() for leaf in ([value] if isinstance(value, Tensor) else _leaves(value))]


def _filled(tree: Tree, leaves: Iterator[Tensor]) -> dict[str, Any]:
    """A tree of the same names, with these leaves."""
    return _each(tree, lambda value: next(leaves))
