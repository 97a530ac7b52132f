"""The training loop: one module, one loss, one schedule; stops, resumes and repeats exactly."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from attar.errors import MissingExtra, RunError, StudentError
from attar.files import replacing
from attar.notation import say
from attar.progress import Event, Listener, silent

__all__ = [
    "AdamW",
    "Fit",
    "Follower",
    "Signals",
    "Stopped",
    "Trained",
    "alone",
    "averages",
    "before_tracing",
    "choose_threads",
    "copied",
    "device_of",
    "finite",
    "fit",
    "half",
    "order_of",
    "processes",
    "rate",
    "refuse_other",
    "train",
    "using_threads",
    "write_checkpoint",
]

Loss = Callable[[nn.Module, Tensor, int, float], tuple[Tensor, Mapping[str, Tensor]]]
"""(module, (B,) row positions, epoch counted from 1, progress 0..1) → (total (), parts by name, each ())."""


class Follower(Protocol):
    """What moves along with the module that trains, such as the mean of its weights."""

    def step(self) -> None:
        """The module has made a step."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object: ...


_FORMAT = 1  # of the checkpoint file
_WIDEST, _NARROWEST, _STEPS = 256, 16, 40  # of a step left open: rows at most, rows at least, steps in an epoch of fewer rows
_PAUSE = 1.0  # seconds: a finished epoch is not written more often than this
_AGREE = 16  # steps between two agreements of several processes on stopping


@dataclass(frozen=True)
class Fit:
    """How long and how fast to train; see the word `fit`."""

    epochs: int = 40
    lr: float = 5e-3
    batch: int | None = None
    seeds: int = 5
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float | None = None
    patience: int = 20
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    threads: int | None = None
    way: Literal["one", "cohort", "processes"] | None = None

    @property
    def alike(self) -> Fit:
        """Without what changes no student but for rounding: how many there are, threads, and the way that they train together."""
        return replace(self, seeds=1, threads=None, way=None)

    def __repr__(self) -> str:
        return say("fit", **{name: getattr(self, name) for name in self.__dataclass_fields__})

    def rows_a_step(self, rows: int) -> int:
        """How many of `rows` training rows make a step: `batch`, or where that is left open, what the word `fit` says."""
        return self.batch if self.batch is not None else min(_WIDEST, max(_NARROWEST, rows // _STEPS))


def fit(
    *,
    epochs: int = 40,
    lr: float = 5e-3,
    batch: int | None = None,
    seeds: int = 5,
    weight_decay: float = 0.01,
    warmup: float = 0.05,
    clip: float | None = None,
    patience: int = 20,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    threads: int | None = None,
    way: Literal["one", "cohort", "processes"] | None = None,
) -> Fit:
    """AdamW with linear warm-up and a cosine to zero; the epoch with the best validation score is kept.

    epochs: passes over the training rows, at most.
    lr: learning rate at the top of the schedule. Measured for small nets that begin at random; one that was trained before wants less,
        1e-4 to 1e-3.
    batch: rows in a step, at most: an epoch is cut into equal steps, so that no tiny rest is left. Left out, it is 256, less for fewer
        than 10,000 rows: few steps leave a student half taught, so that an epoch has 40 of them, of 16 rows at least.
    seeds: students trained for each arm, each with its own initial weights and data order.
    weight_decay: decoupled (Loshchilov and Hutter, arXiv:1711.05101), on all weights.
    warmup: share of the steps in which the learning rate rises, 0..1.
    clip: the greatest norm of the whole gradient; left out, nothing is clipped.
    patience: epochs without an equal or better validation score before training stops. Of equal scores the later epoch is kept, for its
        learning rate is lower.
    precision: "auto" takes bfloat16 where an accelerator has it, float32 elsewhere.
    device: "auto" takes the accelerator where there is one; else a name such as "cpu" or "cuda:1".
    threads: of the CPU; left out, a short measurement chooses between one and all.
    way: of training many students: "one" after another, as a "cohort", which is one tensor program for all of one architecture, or one
        after another in as many "processes" as there are cores. Left out, a short measurement chooses, and may choose cohorts in
        processes; what cannot be trained so is trained one after another, and which way was taken is said. "one" and "processes" give
        the same bits, a cohort the same weights up to rounding.

    `python benchmarks/defaults.py` compares rates of 1, 3, 5 and 8 · 10⁻³ on validation rows, 3 seeds each, distilled: credit-card
    customers (mlp 64 × 3, AUROC) .7879, .7886, .7887, .7890; MNIST-5k (cnn 16 × 3, accuracy) .951, .972, .976, .979. The last two are alike
    on the first, and the lower one is the safer for students of other kinds.

    Raises StudentError for a value out of range.

    >>> fit(epochs=3, lr=0.01)
    fit(epochs=3, lr=0.01, seeds=5, weight_decay=0.01, warmup=0.05, patience=20, precision="auto", device="auto")
    """
    for name, value in (("epochs", epochs), ("batch", batch), ("seeds", seeds), ("patience", patience), ("threads", threads)):
        if value is not None and value < 1:
            raise StudentError(f"fit({name}={value}): at least 1 is needed", hint=f"{name}=1 is the smallest")
    if not (lr > 0 and math.isfinite(lr)):
        raise StudentError(f"fit(lr={lr}): a learning rate is a positive number", hint="5e-3 suits small students")
    if not 0 <= warmup <= 1:
        raise StudentError(f"fit(warmup={warmup}): a share of training lies between 0 and 1", hint="0.05 is the default")
    if not (weight_decay >= 0 and math.isfinite(weight_decay)):
        raise StudentError(f"fit(weight_decay={weight_decay}): not negative, please", hint="0.01 is the default, 0 switches it off")
    if clip is not None and not clip > 0:
        raise StudentError(f"fit(clip={clip}): a greatest norm is a positive number", hint="leave clip out to clip nothing")
    if device != "auto":
        try:
            torch.device(device)
        except RuntimeError:
            raise StudentError(f"fit(device={device!r}): no device of torch", hint='"auto", "cpu", or one such as "cuda:1"') from None
    return Fit(epochs, lr, batch, seeds, weight_decay, warmup, clip, patience, precision, device, threads, way)


@dataclass(frozen=True)
class Trained:
    """What came of a training; the weights themselves are in the module.

    history: one mapping for each epoch: stage, seed, epoch, loss, parts, valid, lr, seconds.
    best_epoch: whose weights were kept, counted from 1; the last one where nothing was validated.
    score: of the best epoch; NaN where nothing was validated.
    epochs: run in all, fewer than asked where patience ended.
    seconds: of wall time, over all starts.
    """

    history: tuple[Mapping[str, Any], ...]
    best_epoch: int
    score: float
    epochs: int
    seconds: float


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM came; the step was finished and, where a checkpoint was named, everything was written to it."""

    def __init__(self, stage: str, epoch: int, number: int, checkpoint: Path | None) -> None:
        kept = f"; {checkpoint} goes on from here" if checkpoint else ""
        super().__init__(f"{signal.Signals(number).name} stopped {stage}{f' in epoch {epoch}' if epoch else ''}{kept}")
        self.stage = stage
        self.epoch = epoch
        self.signal = number
        self.checkpoint = checkpoint

    def __reduce__(self) -> tuple[Any, ...]:
        return Stopped, (self.stage, self.epoch, self.signal, self.checkpoint)


def train(
    module: nn.Module,
    loss: Loss,
    rows: int,
    *,
    fit: Fit,
    seed: int,
    validate: Callable[[nn.Module], float] | None = None,
    listen: Listener = silent,
    record: Callable[[Mapping[str, Any]], None] | None = None,
    stage: str = "train",
    checkpoint: Path | None = None,
    identity: str = "",
    resume: bool = False,
    follower: Follower | None = None,
) -> Trained:
    """Train `module` in place on its own device; at the end it holds the weights of the best epoch, in evaluation mode.

    loss: answers for (B,) positions below `rows`; it is given the module that trains, which several processes have wrapped.
    seed: with the epoch's number it fixes the order of rows and whatever chance is in the module; global chance is left alone.
    validate: the score of the module after an epoch, higher is better, without gradients; left out, the last epoch is kept.
    record: called with each epoch's line of history, on resuming with those of the checkpoint first.
    checkpoint: written at the end of an epoch, at most once a second, and when a signal stops the training. With `resume` the
        training goes on from it, bit for bit at the same number of threads; without a file there it begins anew.
    identity: of rows, loss and initial weights: a checkpoint of another one is refused.
    follower: told of each step; it is part of the checkpoint, and at the end as it was when the best epoch had ended.

    Raises StudentError where the loss or the score is not finite, RunError where the checkpoint is of another training,
    Stopped on SIGINT or SIGTERM (in the main thread only).

    >>> line = nn.Linear(1, 1)
    >>> x = torch.linspace(-1, 1, 64)[:, None]
    >>> def loss(module, index, epoch, progress):
    ...     return (module(x[index]) - 3 * x[index]).square().mean(), {}
    >>> done = train(line, loss, rows=64, fit=fit(epochs=60, lr=0.1, batch=16), seed=0)
    >>> round(line.weight.item(), 1), done.epochs
    (3.0, 60)
    """
    if rows < 1:
        raise StudentError(f"{stage}: there are no rows to train on", hint="look at the training split")
    return _Training(module, loss, rows, fit, seed, validate, listen, record, stage, checkpoint, identity, follower).run(resume)


def choose_threads(step: Callable[[], object], *, repeats: int = 7) -> int:
    """1 or all threads of this process, whichever does `step` faster by at least a tenth; the setting itself is left as it was.

    step: one training step on something that nobody needs afterwards.
    More threads can be many times slower for small models on a busy machine; bitwise repeatability holds at one count only.
    """
    most = torch.get_num_threads()
    if most == 1:
        return 1
    seconds: dict[int, list[float]] = {1: [], most: []}
    try:
        for _ in range(repeats):  # in turn, so that what else the machine does meets both alike
            for count, taken in seconds.items():
                torch.set_num_threads(count)
                step()  # wakes the pool
                start = time.perf_counter()
                step()
                taken.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(most)
    return most if statistics.median(seconds[most]) < 0.9 * statistics.median(seconds[1]) else 1


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """The CPU threads of torch within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_of(fit: Fit) -> torch.device:
    """Where `fit` asks to train: of several processes each has its own accelerator."""
    if fit.device == "auto":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
    device = torch.device(fit.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise StudentError(f"fit(device={fit.device!r}): this machine has no such device", hint='device="auto" takes what there is')
    return device


def half(fit: Fit, device: torch.device) -> bool:
    """Whether `fit` asks for bfloat16 there."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return fit.precision == "bfloat16" or (fit.precision == "auto" and able)


def order_of(rows: int, steps: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The rows of an epoch in the order of its steps, each row once: positions (B,) of sizes that differ by one at most."""
    generator = torch.Generator().manual_seed(_number("order", seed, epoch))
    return torch.randperm(rows, generator=generator).tensor_split(steps)


_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


def processes() -> tuple[int, int]:
    """(rank of this process, how many train together), as torchrun tells them; (0, 1) within `alone()`."""
    if _ALONE.get():
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process trains by itself, though torchrun started several: for what only one of them does."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


@dataclass
class _State:
    """Where a training stands; what a checkpoint holds beside weights and optimiser."""

    epoch: int = 0  # finished
    step: int = 0  # finished in the epoch after it
    best_epoch: int = 0
    best_score: float = -math.inf
    best: dict[str, Tensor] | None = None
    followed: dict[str, Tensor] | None = None  # the follower's state beside `best`
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    totals: list[Tensor] = field(default_factory=list)  # of the epoch's steps, each ()
    parts: list[Mapping[str, Tensor]] = field(default_factory=list)
    chance: Tensor | None = None  # state of the generator, in the middle of an epoch only


class _Training:
    """One call of `train`."""

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        rows: int,
        fit: Fit,
        seed: int,
        validate: Callable[[nn.Module], float] | None,
        listen: Listener,
        record: Callable[[Mapping[str, Any]], None] | None,
        stage: str,
        checkpoint: Path | None,
        identity: str,
        follower: Follower | None,
    ) -> None:
        self.follower = follower
        self.module, self.loss, self.rows, self.fit, self.seed = module, loss, rows, fit, seed
        self.validate, self.listen, self.record, self.stage, self.checkpoint = validate, listen, record, stage, checkpoint
        self.identity = identity
        self.weights = [p for p in module.parameters() if p.requires_grad]
        if not self.weights:
            raise StudentError(f"{stage}: the module has no weights to train", hint="requires_grad is False for all of them")
        self.device = self.weights[0].device
        self.steps = math.ceil(rows / fit.rows_a_step(rows))
        self.rank, self.world = processes()
        self.half = half(fit, self.device)
        self.optimizer = AdamW(self.weights, fit.weight_decay)
        self.state = _State()

    def run(self, resume: bool) -> Trained:
        if resume:
            self._load()
        trained = _wrapped(self.module, self.device) if self.world > 1 else self.module
        self.saved = time.monotonic()
        with Signals() as signals:
            while self.state.epoch < self.fit.epochs and self.state.epoch - self.state.best_epoch < self._patience():
                self._epoch(trained, signals)
                self._agree(signals, force=True)
        if self.state.best is not None:
            self.module.load_state_dict(self.state.best)
            if self.follower is not None and self.state.followed is not None:
                self.follower.load_state_dict(self.state.followed)
        self.module.eval()
        best = self.state.best_epoch if self.validate else self.state.epoch
        score = self.state.best_score if self.validate else math.nan
        return Trained(tuple(self.state.history), best, score, self.state.epoch, self.state.seconds)

    def _patience(self) -> float:
        return self.fit.patience if self.validate else math.inf

    def _epoch(self, trained: nn.Module, signals: Signals) -> None:
        state, epoch = self.state, self.state.epoch + 1
        start = time.perf_counter()
        before = state.seconds
        trained.train()
        with _chance(self.device, self.seed, epoch, self.rank):
            if state.chance is not None:
                _set_chance(self.device, state.chance)
                state.chance = None
            for index in order_of(self.rows, self.steps, self.seed, epoch)[state.step :]:
                self._step(trained, index, epoch)
                if signals.caught or self.world > 1:
                    state.seconds = before + time.perf_counter() - start
                    self._agree(signals, force=False)
            loss, parts = self._averages(epoch)
            score = self._score(epoch)
        state.seconds = before + time.perf_counter() - start
        state.epoch, state.step = epoch, 0
        state.totals, state.parts = [], []
        if score is not None and score >= state.best_score:
            state.best_epoch, state.best_score = epoch, score
            state.best = copied(self.module.state_dict())
            state.followed = None if self.follower is None else copied(self.follower.state_dict())
        line = {"stage": self.stage, "seed": self.seed, "epoch": epoch, "loss": loss, "parts": parts, "valid": score}
        self._note(line | {"lr": self.optimizer.lr, "seconds": round(state.seconds, 3)})
        if time.monotonic() - self.saved >= _PAUSE:
            self._save()

    def _step(self, trained: nn.Module, index: Tensor, epoch: int) -> None:
        """One step. Each microsecond here is a hundredth of a small student's: hence no context that does nothing, no look-up twice."""
        state, optimizer, all_steps = self.state, self.optimizer, self.fit.epochs * self.steps
        done = (epoch - 1) * self.steps + state.step
        whole = len(index)
        if self.world > 1:
            index = index[self.rank :: self.world]
        if self.half:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                total, parts = self.loss(trained, index, epoch, done / all_steps)
        else:
            total, parts = self.loss(trained, index, epoch, done / all_steps)
        if self.world > 1:  # the mean over processes is then the mean over rows, though one process may have a row more
            total = total * (len(index) * self.world / whole)
        total.backward()
        if self.fit.clip is not None:
            nn.utils.clip_grad_norm_(self.weights, self.fit.clip)
        optimizer.step(rate(self.fit, done, all_steps))
        if self.follower is not None:
            self.follower.step()
        state.totals.append(total.detach())  # read once an epoch: reading makes an accelerator wait
        state.parts.append({name: part.detach() for name, part in parts.items()})
        state.step += 1

    def _averages(self, epoch: int) -> tuple[float, dict[str, float]]:
        totals = torch.stack(self.state.totals).float().cpu()
        names = self.state.parts[0]
        parts = {name: torch.stack([p[name] for p in self.state.parts]).float().cpu() for name in names}
        return averages(totals, parts, stage=self.stage, epoch=epoch, checkpoint=self.checkpoint)

    def _score(self, epoch: int) -> float | None:
        if self.world > 1:
            for buffer in self.module.buffers():  # running statistics differ from process to process
                torch.distributed.broadcast(buffer, 0)
        if self.validate is None:
            return None
        self.module.eval()
        with torch.no_grad():
            score = float(self.validate(self.module)) if self.rank == 0 else 0.0
        score = _same(score, self.device) if self.world > 1 else score
        return finite(score, stage=self.stage, epoch=epoch)

    def _note(self, line: dict[str, Any]) -> None:
        self.state.history.append(line)
        if self.rank > 0:
            return
        if self.record:
            self.record(line)
        numbers = {"loss": line["loss"], **line["parts"]} | ({} if line["valid"] is None else {"valid": line["valid"]})
        self.listen(Event(self.stage, line["epoch"], self.fit.epochs, numbers=numbers))

    def _agree(self, signals: Signals, *, force: bool) -> None:
        """Stop where a signal came to any of the processes: all of them after the same step."""
        caught = signals.caught
        if self.world > 1:
            if not force and self.state.step % _AGREE:
                return
            caught = int(_same(float(caught), self.device, largest=True))
        if caught:
            if self.state.step:
                self.state.chance = _get_chance(self.device)
            self._save()
            raise Stopped(self.stage, self.state.epoch + (self.state.step > 0), caught, self.checkpoint)

    def _identity(self) -> dict[str, Any]:
        """What has to be the same for a checkpoint to go on; threads may differ, at the price of the last bits."""
        shape = [f"{name} {tuple(value.shape)}" for name, value in self.module.state_dict().items()]
        alike = repr(self.fit.alike)
        parts = {"stage": self.stage, "fit": alike, "seed": self.seed, "rows": self.rows, "processes": self.world}
        return parts | {"weights": shape, "identity": self.identity}

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.checkpoint is None or self.rank > 0:
            return
        content = {"format": _FORMAT, "identity": self._identity(), "state": dict(vars(self.state))}
        content |= {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        content |= {} if self.follower is None else {"follower": dict(self.follower.state_dict())}
        write_checkpoint(content, self.checkpoint)

    def _load(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        content = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        ours, theirs = {"format": _FORMAT, **self._identity()}, {"format": content["format"], **content["identity"]}
        refuse_other(self.checkpoint, ours, theirs)
        self.module.load_state_dict(content["module"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.follower is not None:
            self.follower.load_state_dict(content["follower"])
        self.state = _State(**content["state"])
        if self.state.chance is not None:
            self.state.chance = self.state.chance.cpu()
        if self.record and self.rank == 0:
            for line in self.state.history:
                self.record(line)


def averages(
    totals: Tensor, parts: Mapping[str, Tensor], *, stage: str, epoch: int, checkpoint: Path | None
) -> tuple[float, dict[str, float]]:
    """The means of an epoch's steps, (T,) and (T,) by name; StudentError names the first step whose loss is not finite."""
    if not bool(totals.isfinite().all()):
        step = int((~totals.isfinite()).nonzero()[0])
        shown = ", ".join([f"total {totals[step]:g}", *(f"{name} {values[step]:g}" for name, values in parts.items())])
        kept = f"what was finished before is kept in {checkpoint}; " if checkpoint and checkpoint.exists() else ""
        raise StudentError(
            f"{stage}: the loss is not finite in epoch {epoch}, step {step + 1} of {len(totals)}: {shown}",
            hint=kept + "look for NaN or infinity in the rows and in the teacher's answers, or lower lr, or set clip=1.0",
        )
    return float(totals.mean()), {name: float(values.mean()) for name, values in parts.items()}


def finite(score: float, *, stage: str, epoch: int) -> float:
    """The validation score of an epoch; StudentError where there is none."""
    if not math.isfinite(score):
        raise StudentError(
            f"{stage}: the validation score of epoch {epoch} is {score}",
            hint="does the validation split have rows of every class?",
        )
    return score


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Whole or not at all; the error of a full disk is that of the system."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # PyTorch buries "no space left" under an error of its own
                raise error.__context__ from None
            raise


def refuse_other(checkpoint: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise RunError where a checkpoint says of itself what this training does not."""
    if differ := [f"{k}: {theirs.get(k)} there, {v} here" for k, v in ours.items() if theirs.get(k) != v]:
        raise RunError(
            f"{checkpoint} is of another training\n" + "\n".join(differ),
            hint="resume with the same recipe, or start anew in another folder",
        )


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy that the next step does not change."""
    return {name: value.detach().clone() for name, value in state.items()}


def before_tracing() -> None:
    """Starts automatic differentiation, as the first backward of a process does.

    Tracing and exporting register devices that are not there; where differentiation starts after that, it takes them for real, and what is
    forked from the process can no longer learn.
    """
    torch.zeros((), requires_grad=True).backward()


class AdamW:
    """PyTorch's fused AdamW (arXiv:1711.05101), and the gradients gone afterwards.

    Fused is three times faster on a CPU, too: 0.04 against 0.13 (foreach) and 0.15 ms (plain) for an MLP of 4 layers. By its functional
    form, for hooks, groups and notes for a profiler in the class cost such a student another 9 % of its step, and importing what the
    class imports a second; the numbers are the same.
    """

    def __init__(self, weights: list[nn.Parameter], decay: float) -> None:
        self.weights, self.decay, self.lr = weights, decay, 0.0
        self.means = [torch.zeros_like(w) for w in weights]
        self.squares = [torch.zeros_like(w) for w in weights]
        self.steps = [torch.zeros((), device=w.device) for w in weights]

    def step(self, lr: float) -> None:
        """One step with the gradients that lie on the weights; a weight without one stays as it is."""
        self.lr = lr
        weights, grads, means, squares, steps = self.weights, [w.grad for w in self.weights], self.means, self.squares, self.steps
        there = [g for g in grads if g is not None]
        if len(there) < len(weights):
            used = [i for i, g in enumerate(grads) if g is not None]
            weights, means, squares, steps = ([each[i] for i in used] for each in (weights, means, squares, steps))
        with torch.no_grad():
            adamw(
                list[Tensor](weights),
                there,
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=lr,
                weight_decay=self.decay,
                eps=1e-8,
                maximize=False,
            )
        for weight in self.weights:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"lr": self.lr, "means": self.means, "squares": self.squares, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.lr, self.means, self.squares, self.steps = (state[name] for name in ("lr", "means", "squares", "steps"))


class Signals:
    """Notes SIGINT and SIGTERM instead of dying of them; a second one of the same kind acts as it did before."""

    def __init__(self) -> None:
        self.caught = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
            # Known before the first is set: a signal may come between setting a handler and hearing what it was before.
            self._before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}
            for number in self._before:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        signal.signal(number, self._before[number])


def rate(fit: Fit, done: int, steps: int) -> float:
    """The learning rate of the step after `done`: a line up, then half a cosine down to zero (arXiv:1608.03983, one period)."""
    rise = round(fit.warmup * steps)
    if done < rise:
        return fit.lr * (done + 1) / rise
    return fit.lr * 0.5 * (1 + math.cos(math.pi * (done - rise) / max(1, steps - rise)))


def _number(*parts: str | int) -> int:
    """A seed of 63 bits from what is named: a generator by counter, which has no state to keep."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


@contextmanager
def _chance(device: torch.device, seed: int, epoch: int, rank: int) -> Iterator[None]:
    """The global generators seeded by (seed, epoch, process) within the block and as they were after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        number = _number("chance", seed, epoch, rank)
        torch.default_generator.manual_seed(number)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield


def _get_chance(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_chance(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _wrapped(module: nn.Module, device: torch.device) -> nn.Module:
    """The module as several processes train it. Accelerate is not asked for one: its wrapping costs a small model a fifth of a step."""
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingExtra("accelerate", "scale") from error
    return Accelerator(cpu=device.type == "cpu").prepare(module)


def _same(value: float, device: torch.device, *, largest: bool = False) -> float:
    """The first process's value, or the largest, in all processes."""
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    if largest:
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    else:
        torch.distributed.broadcast(shared, 0)
    return shared.item()
