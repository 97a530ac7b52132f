"""Teach a teacher: K members, each without one fold of the training rows, or one of all of them, kept as one file."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attar.data import Data, Split
from attar.errors import DataError, RunError, TeacherError
from attar.files import replacing, write_atomic
from attar.loop import Fit, choose_threads, device_of, train, using_threads
from attar.progress import Event, Listener, silent
from attar.signal import Batch, Signal, Source
from attar.sources.boosting import Growing, can_grow, grow, merge
from attar.sources.module import evaluating
from attar.sources.taught import (
    Folds,
    Record,
    Taught,
    TaughtNets,
    TaughtTrees,
    keep_nets,
    keep_trees,
    named,
    open_taught,
    record_of,
)
from attar.sources.trees import LightGBM
from attar.task import Task, task_for

__all__ = ["teach"]

STAGES = 24  # into which the rounds of trees are cut when validation rows choose how many to keep
CHUNK = 1024  # rows in one question
PROOF = 1e-9  # relative: rounding of the sum over a few hundred trees in another order stays far below


def teach(
    teacher: Taught,
    data: Data,
    task: Task | None = None,
    *,
    at: str | Path | None = None,
    fit: Fit | None = None,
    resume: bool = False,
    listen: Listener = silent,
) -> Source:
    """Teach `teacher` on the labelled training rows, cross-fitted if it has folds, and return it ready to be asked.

    at: the file to keep it in; left out, `teacher.at`. If the same teacher of the same data lies there already, it is opened.
    fit: of nets; trees do not need one. Left out, the teacher's own, or `fit()`.
    resume: go on after a kill: members that are finished are kept, and a net goes on from its checkpoint.

    Validation rows choose how many boosting rounds, the same number for each member, or which epoch, by the label loss. The merged
    booster is compared with the mean of its members before it counts. Events carry the teacher's metrics on validation rows.

    Raises RunError, which says what differs, if another teacher lies at `at`; DataError if training rows are also evaluation rows or no
    row has a label; TeacherError if a builder cannot learn this task.
    """
    task = (task or task_for(data.schema, data.kind)).bind(data.schema)
    at = Path(at if at is not None else teacher.at)
    grows = isinstance(teacher.builder, Growing)
    fit = fit or teacher.fit or Fit()
    record = Record(
        builder=named(teacher.builder),
        folds=teacher.folds,
        seed=teacher.seed,
        data=data.fingerprint,
        kind=task.kind,
        fit="" if grows else repr(replace(fit, seeds=1, device="auto", threads=None)),
    )
    if record_of(at).exists():
        _same(record, Record.read(record_of(at)), at)
        shutil.rmtree(_desk_of(at), ignore_errors=True)  # of a teaching that was killed after its last word
        listen(Event("teach", text=f"{at} was taught before: opened"))
        return open_taught(teacher, data.schema, task, at)
    return _Teaching(teacher, data, task, at, fit, record, listen).run(resume)


def _same(wanted: Record, there: Record, at: Path) -> None:
    if differences := there.differences(wanted):
        raise RunError(f"another teacher lies at {at}:\n  " + "\n  ".join(differences), hint="remove it, or choose another file with at=")


def _desk_of(at: Path) -> Path:
    """The folder of members that are finished while others are not."""
    return at.with_name(at.name + ".members")


@dataclass
class _Teaching:
    """One call of `teach` that has something to teach."""

    teacher: Taught
    data: Data
    task: Task
    at: Path
    fit: Fit
    record: Record
    listen: Listener

    def run(self, resume: bool) -> Source:
        if isinstance(self.teacher.builder, Growing):
            can_grow(self.task, self.data.schema)
        known = self._known(self.data.train)
        folds = Folds.deal(self.teacher.folds, self.teacher.seed, self.data.train.ids[known])
        self._no_leak(folds)
        fold = folds.of(self.data.train.ids[known])
        parts = [known[fold != k] for k in range(folds.count)] if folds.count > 1 else [known]
        if short := [k for k, part in enumerate(parts) if len(part) == 0]:
            raise DataError(
                f"{len(known)} labelled training rows are too few for {folds.count} folds", hint=f"fold {short[0]} holds them all"
            )
        self._desk(resume)
        source = self._trees(parts, folds) if isinstance(self.teacher.builder, Growing) else self._nets(parts, folds)
        shutil.rmtree(self.desk)
        return source

    # ------------------------------------------------------------------------------------------------------------------ before

    @property
    def desk(self) -> Path:
        return _desk_of(self.at)

    def _desk(self, resume: bool) -> None:
        """An empty desk, or on resuming the one that is there, if it is of the same teacher."""
        if self.at.exists() and not self.desk.exists():
            raise RunError(f"{self.at} is in the way: it was not taught here", hint="move it away, or choose another file with at=")
        if self.desk.exists() and resume and record_of(self.desk / "plan").exists():
            there = Record.read(record_of(self.desk / "plan"))
            _same(self.record, there, self.desk)
            self.record = replace(self.record, threads=there.threads)
            return
        shutil.rmtree(self.desk, ignore_errors=True)
        self.desk.mkdir(parents=True)
        self.record.write(record_of(self.desk / "plan"))

    def _known(self, split: Split) -> Tensor:
        """(n,) positions of the rows with a label."""
        if split.labels is None:
            return torch.zeros(0, dtype=torch.int64)
        known = self.task.known(split.labels).reshape(len(split), -1).any(1)
        return known.nonzero().squeeze(1)

    def _no_leak(self, folds: Folds) -> None:
        if not len(folds.ids):
            raise DataError("no training row has a label", hint="a teacher from elsewhere can label them; attar cannot teach one without")
        for split in (self.data.valid, self.data.calibration, self.data.test):
            both = int(torch.isin(split.ids, folds.ids).sum())
            if both:
                raise DataError(f"{both} {split.name} rows are also training rows", hint="equal rows must lie in one split")

    # ------------------------------------------------------------------------------------------------------------------- trees

    def _trees(self, parts: list[Tensor], folds: Folds) -> Source:
        builder = self.teacher.builder
        assert isinstance(builder, Growing)
        rounds = max(1, round(builder.trees / folds.count))
        texts = []
        for k, part in enumerate(parts):
            path = self.desk / f"{k}.txt"
            if not path.exists():
                asked = self.data.train.batch(part)
                write_atomic(path, grow(builder, rounds, self.task, self.data.schema, asked, seed=self.teacher.seed + k))
            texts.append(path.read_text(encoding="utf-8"))
            self.listen(Event("teach", k + 1, folds.count, f"member {k + 1} of {folds.count}: {len(part):,} rows"))
        members = [LightGBM.parse(text, f"member {k}") for k, text in enumerate(texts)]
        rounds = self._rounds(members, rounds)
        text, counts = merge(texts, rounds)
        source = TaughtTrees(self.teacher, LightGBM.parse(text, str(self.at)), folds, tuple(counts))
        self._prove(source, members)
        valid = self._valid(source)
        keep_trees(self.at, text, folds, replace(self.record, rounds=tuple(counts), valid=valid))
        return open_taught(self.teacher, self.data.schema, self.task, self.at)

    def _rounds(self, members: list[LightGBM], most: int) -> int:
        """How many rounds of each member make the mean best on validation rows; all of them where no label is known there."""
        known = self._known(self.data.valid)
        if not len(known):
            return most
        asked = self.data.valid.batch(known)
        rows = members[0].matrix(asked)
        best, kept, start, total = float("inf"), most, 0, np.zeros(0)
        ends = np.unique(np.linspace(0, most, STAGES + 1).round().astype(int))
        for end in ends[ends > 0].tolist():  # no rounds at all would be a range that LightGBM takes for all of them
            grown = [m.raw(rows, asked, start, end - start) for m in members if m.booster.current_iteration() > start]
            total = np.sum(grown, 0) / len(members) + (total if total.size else 0.0) if grown else total
            loss = self._loss(members[0].logits(total, asked), asked)
            if loss < best:
                best, kept = loss, end
            start = end
        self.listen(
            Event("teach", text=f"{kept} of {most} rounds of each member are best on validation rows", numbers={"valid loss": best})
        )
        return kept

    def _prove(self, source: TaughtTrees, members: list[LightGBM]) -> None:
        """The merged booster answers as the mean of its members, and each of its ranges as the member; else it is a TeacherError."""
        asked = self.data.train.batch(torch.arange(min(CHUNK, len(self.data.train))))
        rows = source.model.matrix(asked)
        each = np.stack([m.raw(rows, asked, 0, n) for m, n in zip(members, source.rounds, strict=True)])
        pairs = [(source.raw(rows, asked, -1), each.mean(0))] + [(source.raw(rows, asked, k), own) for k, own in enumerate(each)]
        worst = max(float((np.abs(got - want) / (1 + np.abs(want))).max()) for got, want in pairs)
        if not worst < PROOF:
            raise TeacherError(
                f"the merged booster differs from the mean of its members by {worst:.3g}", hint="report this as a defect of attar"
            )

    # -------------------------------------------------------------------------------------------------------------------- nets

    def _nets(self, parts: list[Tensor], folds: Folds) -> Source:
        if not self.record.threads:
            self.record = replace(self.record, threads=self.fit.threads or choose_threads(self._step(parts[0])))
            self.record.write(record_of(self.desk / "plan"))
        states = []
        with using_threads(self.record.threads):
            for k, part in enumerate(parts):
                path = self.desk / f"{k}.safetensors"
                if not path.exists():
                    self._train(k, part, path)
                states.append(load_file(path))
                self.listen(Event("teach", k + 1, folds.count, f"member {k + 1} of {folds.count}: {len(part):,} rows"))
            members = tuple(self._net(k) for k in range(folds.count))
            for net, state in zip(members, states, strict=True):
                net.load_state_dict(state)
            valid = self._valid(TaughtNets(self.teacher, members, folds, self.task, ""))
        keep_nets(self.at, states, folds, replace(self.record, valid=valid))
        return open_taught(self.teacher, self.data.schema, self.task, self.at)

    def _net(self, member: int) -> nn.Module:
        builder = self.teacher.builder
        assert not isinstance(builder, Growing)
        return builder(self.data.schema, self.teacher.seed + member)

    def _train(self, member: int, part: Tensor, path: Path) -> None:
        checkpoint = path.with_suffix(".checkpoint")
        net = self._net(member).to(device_of(self.fit))
        validate = self._score if len(self._known(self.data.valid)) else None
        train(
            net,
            self._objective(part),
            len(part),
            fit=self.fit,
            seed=self.teacher.seed + member,
            validate=validate,
            listen=self.listen,
            stage=f"teach member {member + 1} of {self.teacher.folds}",
            checkpoint=checkpoint,
            resume=checkpoint.exists(),  # an old desk was swept away, unless it is to be resumed
        )
        state = {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}
        with replacing(path) as temporary:
            save_file(state, temporary)
        checkpoint.unlink(missing_ok=True)

    def _objective(self, part: Tensor) -> Callable[[nn.Module, Tensor, int, float], tuple[Tensor, Mapping[str, Tensor]]]:
        """The weighted mean label loss of (B,) positions in `part`; where data are augmented, each epoch sees a view of its own."""
        split, device = self.data.train, device_of(self.fit)

        def loss(net: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
            views = torch.full_like(index, epoch) if self.data.views else None
            asked = split.batch(part[index], views)
            return self._mean_loss(net, asked.to(device)), {}

        return loss

    def _mean_loss(self, net: nn.Module, asked: Batch) -> Tensor:
        assert asked.labels is not None
        each = self.task.label_loss(self.task.canonical(net(asked.inputs)), asked.labels)  # (B,) or (B, L), 0 where unknown
        share = self._share(asked)
        return (each * share).sum() / share.sum().clamp(min=torch.finfo(share.dtype).tiny)

    def _share(self, asked: Batch) -> Tensor:
        """(B,) or (B, L) the weight of each known label, 0 for unknown ones."""
        assert asked.labels is not None
        share = self.task.known(asked.labels).float()
        if asked.weight is not None:
            share = share * (asked.weight if share.ndim == 1 else asked.weight[:, None])
        return share

    def _score(self, net: nn.Module) -> float:
        """Minus the mean label loss on validation rows."""
        known, device = self._known(self.data.valid), device_of(self.fit)
        total = weight = 0.0
        with torch.no_grad(), evaluating(net):
            for index in known.split(CHUNK):
                asked = self.data.valid.batch(index).to(device)
                share = float(self._share(asked).sum())
                total += float(self._mean_loss(net, asked)) * share
                weight += share
        return -total / weight

    def _step(self, part: Tensor) -> Callable[[], object]:
        """A training step on something that is thrown away, for the choice of threads."""
        net = copy.deepcopy(self._net(0)).to(device_of(self.fit)).train()
        loss, index = self._objective(part), torch.arange(min(self.fit.rows_a_step(len(part)), len(part)))

        def step() -> None:
            with torch.random.fork_rng(devices=[]):
                loss(net, index, 1, 0.0)[0].backward()

        return step

    # ----------------------------------------------------------------------------------------------------------------- figures

    def _loss(self, output: Tensor, asked: Batch) -> float:
        assert asked.labels is not None
        share = self._share(asked)
        return float((self.task.label_loss(output, asked.labels) * share).sum() / share.sum())

    def _valid(self, source: Source) -> dict[str, float]:
        """The teacher's metrics on validation rows, told to the listener; empty where no label is known."""
        known = self._known(self.data.valid)
        if not len(known):
            return {}
        answers: list[Signal] = [source(self.data.valid.batch(index)) for index in known.split(CHUNK)]
        asked = self.data.valid.batch(known)
        assert asked.labels is not None
        found = self.task.measure(torch.cat([a.output for a in answers]), asked.labels, asked.weight)
        numbers = {f"valid {name}": value for name, value in found.items() if np.isfinite(value)}
        main = next(iter(numbers.items()), ("", 0.0))
        self.listen(Event("teach", text=f"taught: {main[0]} {main[1]:.4f}", numbers=numbers))
        return {name: value for name, value in found.items() if np.isfinite(value)}
