"""A teacher that attar teaches: cross-fitted, so that it answers each of its own training rows by a member that has not seen it."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attar.errors import TapError, TeacherError
from attar.files import replacing, write_atomic, write_json
from attar.identity import digest, digest_file, uniform
from attar.loop import Fit
from attar.notation import OutPath, say
from attar.signal import NOTHING, Batch, Schema, Signal, Student
from attar.sources.answers import as_logits, home_of, no_taps, take
from attar.sources.boosting import Growing
from attar.sources.ensemble import mean_answer
from attar.sources.module import evaluating, module, spelled
from attar.sources.trees import LightGBM
from attar.tap import observe
from attar.task import Kind, Task

__all__ = ["Folds", "Record", "Taught", "TaughtNets", "TaughtTrees", "Teachable", "keep_nets", "keep_trees", "open_taught", "taught"]

FORMAT = 1


@runtime_checkable
class Teachable(Protocol):
    """A source whose model can be taught further: `timm(..., weights=...)`. builder: what builds it, and what `taught` teaches."""

    @property
    def builder(self) -> Student: ...


def taught(builder: Growing | Student | Teachable, at: OutPath, folds: int | None = None, seed: int = 0, fit: Fit | None = None) -> Taught:
    """A teacher that is still to be taught, by `attar.teach` or the first step of a run, and is then kept in the file `at`.

    builder: `lightgbm(...)`, or a student builder such as `mlp(...)` or `cnn(...)`: one that is too large to ship; or a pretrained model,
        `timm("tf_efficientnet_lite0", weights="…", freeze=True)`, which is fine-tuned.
    at: the file, "teacher.txt" for LightGBM (one plain booster, which LightGBM alone reads), "teacher.safetensors" for nets. Beside it
        lie `.json` (what it was taught, and on what) and `.ids.npy` (the training rows).
    folds: K members, each taught without the rows of one fold; left out, 5 for trees and 3 for nets. 1, for nets alone: one net, taught
        on all training rows. It costs a third and can be tapped, which K nets cannot, for each has insides of its own; but it answers
        its training rows as one that has seen their labels, and the certificate says so. Choose it for objectives of taps.
    seed: of the folds, the initial weights and the order of rows. The same seed gives the same teacher.
    fit: how long and how fast nets learn, `fit(epochs=3, lr=2e-4, batch=32)`; left out, `fit()`, which is made for nets that begin at
        random. One that was trained before wants a lower rate and few epochs. Trees need none.

    A training row is answered out of fold, by the one member that has not seen it; any other row by all of them. Without that a student
    would learn the teacher's memory of its training labels. A row's fold is a hash of its content, so that equal rows share one.
    Trees answer the mean of the members' raw scores (log-odds), because that again is a single booster; nets the log of their mean
    probability, as `ensemble` does. The two differ where members disagree: the mean of log-odds is the sharper one.

    Raises TeacherError for fewer folds than that, or a ready-made module: that one is `module(net)`.
    """
    if isinstance(builder, nn.Module):
        raise TeacherError(
            f"taught({type(builder).__name__}(…)): a ready-made module", hint="module(net) asks it; a builder makes new ones"
        )
    if isinstance(builder, Teachable):
        builder = builder.builder
    grows = isinstance(builder, Growing)
    if folds is not None and folds < (2 if grows else 1):
        least = "at least 2 are needed" if grows else "at least 1 is needed, and 1 answers training rows in fold"
        raise TeacherError(f"taught(folds={folds}): {least}", hint="leave it out: 5 for trees, 3 for nets")
    if not at or (not grows and not at.endswith(".safetensors")):
        raise TeacherError(f'taught(at="{at}"): nets are kept in a .safetensors file', hint='at="teacher.safetensors"')
    if grows and fit is not None:
        raise TeacherError("taught(fit=…) of trees, which learn without steps", hint="lightgbm(trees=600, learning_rate=0.02)")
    return Taught(builder, at, folds or (5 if grows else 3), seed, fit)


@dataclass(frozen=True)
class Taught:
    """See `taught`. Asked before it has been taught it refuses."""

    builder: Growing | Student
    at: str
    folds: int
    seed: int = 0
    fit: Fit | None = None

    training_ids = None

    def __repr__(self) -> str:
        return say("taught", self.builder, at=self.at, folds=self.folds, seed=self.seed, fit=self.fit)

    @property
    def fingerprint(self) -> str:
        return digest("untaught", named(self.builder), self.folds, self.seed, "" if self.fit is None else repr(self.fit))

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        raise self._untaught()

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        raise self._untaught()

    def refuse(self, taps: frozenset[str]) -> None:
        """Raise TapError, before anything is taught, if the teacher that it will be could not be tapped."""
        if not taps:
            return
        if isinstance(self.builder, Growing):
            no_taps(taps, "a taught lightgbm")
        if self.folds > 1:
            raise TapError(
                f"{self!r} is {self.folds} nets, each with insides of its own: no one value lies at {sorted(taps)}",
                hint=f"{replace(self, folds=1)!r} is one net, which answers its training rows in fold",
            )

    def _untaught(self) -> TeacherError:
        return TeacherError(f"{self} has not been taught", hint="attar.teach(teacher, data) teaches it and returns the teacher to ask")


def named(builder: Growing | Student) -> str:
    """A builder as text: a word's own, a function's name with a digest of its source."""
    if inspect.isfunction(builder):
        return f"{builder.__module__}.{builder.__qualname__} {digest(spelled(builder), size=4)}"
    return repr(builder)


# -------------------------------------------------------------------------------------------------------------------------- folds


@dataclass(frozen=True, eq=False)
class Folds:
    """Which member has not seen which row. count: K. seed: of the deal. ids: (N,) int64, sorted and unique, of the training rows."""

    count: int
    seed: int
    ids: Tensor

    @classmethod
    def deal(cls, count: int, seed: int, ids: Tensor) -> Folds:
        """K folds of these rows; equal rows count once."""
        return cls(count, seed, ids.unique())

    def of(self, ids: Tensor) -> Tensor:
        """(B,) ids → (B,) the fold that a row of these ids lies in, training row or not: fixed by id, seed and K alone."""
        return torch.from_numpy((uniform(ids.cpu().numpy(), f"taught fold {self.seed}") * self.count).astype(np.int64))

    def unseen(self, batch: Batch) -> Tensor:
        """(B,) the member that has not seen each row; −1: none has, or there is one alone. Raises TeacherError without ids."""
        if batch.ids is None:
            raise TeacherError(
                "a batch without ids: nobody knows which of these rows the teacher was taught on",
                hint="batches of attar's data have them; for rows that are surely new: Batch(..., ids=torch.full((n,), -1))",
            )
        ids = batch.ids.cpu()
        if not len(self.ids) or self.count == 1:
            return torch.full_like(ids, -1)
        place = torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        return torch.where(self.ids[place] == ids, self.of(ids), -1)


# ------------------------------------------------------------------------------------------------------------------------- sources


@dataclass(frozen=True, eq=False)
class TaughtTrees:
    """One LightGBM made of K: `rounds[k]` boosting rounds from `start(k)` on are member k's, each leaf divided by K."""

    name: Taught
    model: LightGBM
    folds: Folds
    rounds: tuple[int, ...]

    def __repr__(self) -> str:
        return repr(self.name)

    @property
    def fingerprint(self) -> str:
        return digest("taught trees", self.model.fingerprint, self.folds.count, self.folds.seed, self.folds.ids.numpy(), self.rounds)

    @property
    def training_ids(self) -> Tensor:
        return self.folds.ids

    @property
    def size_bytes(self) -> int:
        return self.model.size_bytes

    @property
    def parameters(self) -> int | None:
        return self.model.parameters

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, "a taught lightgbm")
        rows, member = self.model.matrix(batch), self.folds.unseen(batch).numpy()
        first = {k: self.raw(rows[member == k], batch, k) for k in np.unique(member).tolist()}
        raw = np.zeros((len(batch), *next(iter(first.values()), np.zeros(0)).shape[1:]))
        for k, answers in first.items():
            raw[member == k] = answers
        return Signal(self.model.logits(raw, batch))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The whole booster's predict: what a new row costs."""
        return self.model.prepare(batch)

    def raw(self, rows: np.ndarray, batch: Batch, member: int) -> np.ndarray:
        """(n, F) → raw scores of one member alone; −1: of the whole."""
        if member < 0:
            return self.model.raw(rows, batch)
        start = sum(self.rounds[:member])
        return self.folds.count * self.model.raw(rows, batch, start, self.rounds[member])


@dataclass(frozen=True, eq=False)
class TaughtNets:
    """K nets: the log of their mean probability, of a regression their mean; of several a training row is answered by one alone."""

    name: Taught
    members: tuple[nn.Module, ...]
    folds: Folds
    task: Task
    digest: str

    def __repr__(self) -> str:
        return repr(self.name)

    @property
    def fingerprint(self) -> str:
        return digest("taught nets", self.digest, named(self.name.builder), self.folds.count, self.folds.seed, self.folds.ids.numpy())

    @property
    def training_ids(self) -> Tensor:
        return self.folds.ids

    @property
    def in_fold(self) -> bool:
        """Whether training rows are answered by a net that has seen their labels: of one net they are."""
        return self.folds.count == 1

    @property
    def size_bytes(self) -> int:
        return module(nn.ModuleList(self.members)).size_bytes  # what members share counts once

    @property
    def parameters(self) -> int:
        return module(nn.ModuleList(self.members)).parameters

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        if taps:
            return self._tapped(batch, taps)
        member = self.folds.unseen(batch)
        output: Tensor | None = None
        for k in member.unique().tolist():
            index = (member == k).nonzero().squeeze(1)
            asked = batch if len(index) == len(batch) else take(batch, index.to(home_of(batch)))
            answer = self.answer(asked, self.members if k < 0 else (self.members[k],))
            output = answer.new_zeros(len(batch), *answer.shape[1:]) if output is None else output
            output[index.to(answer.device)] = answer
        return Signal(self.answer(batch, self.members) if output is None else output)

    def _tapped(self, batch: Batch, taps: frozenset[str]) -> Signal:
        self.name.refuse(taps)
        (net,) = self.members
        with torch.no_grad(), evaluating(net):
            signal = observe(net, batch, taps)
        return replace(signal, output=as_logits(self.task.canonical(signal.output), batch, repr(self.name)))

    def answer(self, batch: Batch, members: Sequence[nn.Module]) -> Tensor:
        """The mean answer of some members, (B, C)."""
        answers = []
        for net in members:
            with torch.no_grad(), evaluating(net):
                answers.append(as_logits(self.task.canonical(net(batch.inputs)), batch, repr(self.name)))
        return answers[0] if len(answers) == 1 else mean_answer(answers, (1 / len(answers),) * len(answers))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """All members' cheapest calls: what a new row costs."""
        calls = [module(net).prepare(batch) for net in self.members]
        return lambda: [call() for call in calls]


# --------------------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Record:
    """What lies beside a taught teacher, as JSON: what it was taught, on what, and how well it did on validation rows.

    builder, folds, seed, data, kind, fit: what fixes the teacher; `identity` compares them. rounds: of trees, for each member.
    """

    builder: str
    folds: int
    seed: int
    data: str
    kind: Kind
    fit: str = ""
    rounds: tuple[int, ...] = ()
    threads: int = 0
    digest: str = ""
    ids_digest: str = ""
    valid: dict[str, float] | None = None
    format: int = FORMAT

    def differences(self, other: Record) -> list[str]:
        """Sentences about what differs between a teacher on disk and the one that is wanted."""
        fields = ("builder", "folds", "seed", "data", "kind", "fit", "format")
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in fields]
        return [f"{name}: there {was!r}, wanted {now!r}" for name, was, now in pairs if was != now]

    @classmethod
    def read(cls, path: Path) -> Record:
        """The record in a JSON file; raises TeacherError if it is not one."""
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**held, "rounds": tuple(held["rounds"])})
        except (ValueError, TypeError, KeyError) as error:
            raise TeacherError(f"{path} is not the record of a taught teacher: {error}", hint="remove it, and teach anew") from error

    def write(self, path: Path) -> None:
        """As JSON, at once."""
        write_json(path, {name: getattr(self, name) for name in self.__dataclass_fields__})


def record_of(at: Path) -> Path:
    """Where the record of the teacher at `at` lies."""
    return at.with_name(at.name + ".json")


def ids_of(at: Path) -> Path:
    """Where the training rows of the teacher at `at` lie."""
    return at.with_name(at.name + ".ids.npy")


def keep_trees(at: Path, text: str, folds: Folds, record: Record) -> None:
    """Write a merged booster, its training rows and, last, its record: without that it counts as unfinished."""
    write_atomic(at, text)
    _keep(at, folds, record)


def keep_nets(at: Path, states: Sequence[dict[str, Tensor]], folds: Folds, record: Record) -> None:
    """The same for the weights of nets, member k's under "k.<name>"."""
    with replacing(at) as temporary:
        save_file({f"{k}.{name}": value for k, state in enumerate(states) for name, value in state.items()}, temporary)
    _keep(at, folds, record)


def _keep(at: Path, folds: Folds, record: Record) -> None:
    content = io.BytesIO()
    np.save(content, folds.ids.numpy(), allow_pickle=False)
    write_atomic(ids_of(at), content.getvalue())
    replace(record, digest=digest_file(at), ids_digest=digest_file(ids_of(at))).write(record_of(at))


def open_taught(name: Taught, schema: Schema, task: Task, at: Path) -> TaughtTrees | TaughtNets:
    """The teacher that was taught into the file `at`; raises TeacherError if that, or what lies beside it, is damaged or missing."""
    record = Record.read(record_of(at))
    for path, wanted in ((at, record.digest), (ids_of(at), record.ids_digest)):
        if not path.exists() or digest_file(path) != wanted:
            fate = "is damaged" if path.exists() else "is missing"
            raise TeacherError(f"{path} {fate}: it is not what {record_of(at).name} describes", hint=f"remove {at}* and teach anew")
    folds = Folds(record.folds, record.seed, torch.from_numpy(np.load(ids_of(at), allow_pickle=False)))
    if isinstance(name.builder, Growing):
        return TaughtTrees(name, LightGBM.read(str(at)), folds, record.rounds)
    tensors = load_file(at)
    members = []
    for k in range(record.folds):
        net = name.builder(schema, record.seed + k)
        net.load_state_dict({n.removeprefix(f"{k}."): value for n, value in tensors.items() if n.startswith(f"{k}.")})
        members.append(net.eval())
    return TaughtNets(name, tuple(members), folds, task, record.digest)
