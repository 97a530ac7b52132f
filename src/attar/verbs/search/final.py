"""The final: a few candidates trained anew over seeds, exported and measured, and read again where that was done before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from attar.data import Data
from attar.errors import RunError
from attar.guards import Guard
from attar.identity import digest
from attar.progress import Event, Listener
from attar.searched import Trial
from attar.task import Task
from attar.verbs.distill.folder import save
from attar.verbs.distill.processes import shared
from attar.verbs.export import export
from attar.verbs.search.design import Design, Spaces
from attar.verbs.search.training import Candidate, Classroom

__all__ = ["Final", "name_of"]

Precision = Literal["float", "int8"]


def name_of(trial: Trial) -> str:
    """What a finalist is called: the number of its trial; who learnt from labels alone has another study, and is called by that."""
    return str(trial.number) if trial.arm == "student" else "labels"


@dataclass(frozen=True)
class Final:
    """Trains finalists in a folder. fit: of a whole training; of it each finalist has its own learning rate. processes: at a time."""

    folder: Path
    spaces: Spaces
    room: Classroom
    seeds: int
    epochs: int
    processes: int
    listen: Listener

    def train(self, trials: Sequence[Trial]) -> dict[str, list[nn.Module]]:
        """The students of each finalist, seed by seed; those that lie in the folder are read. One that fails is left out.

        What lies there of another training, as of who was the best on labels alone before more were tried, makes room.
        """
        waiting = [trial for trial in trials if not self._there(trial)]
        for trial in waiting:
            shutil.rmtree(self._file(trial, 0).parent, ignore_errors=True)
        deals = [deal for at in range(self.processes) if (deal := self._deal(waiting, at))]
        if len(deals) > 1:
            shared([lambda say, deal=deal: [piece(say) for piece in deal] for deal in deals], self.listen)
        else:
            for piece in (piece for deal in deals for piece in deal):
                piece(self.listen)
        return {name_of(trial): models for trial in trials if (models := self._read(trial)) is not None}

    def _deal(self, waiting: Sequence[Trial], at: int) -> list[Callable[[Listener], None]]:
        """What one process trains: of each finalist some of the seeds, for one finalist may take ten times as long as another."""
        shares = [[seed for seed in range(self.seeds) if (seed + turn) % self.processes == at] for turn in range(len(waiting))]
        return [self._piece(trial, seeds) for trial, seeds in zip(waiting, shares, strict=True) if seeds]

    def _piece(self, trial: Trial, seeds: Sequence[int]) -> Callable[[Listener], None]:
        def work(say: Listener) -> None:
            design = self.design(trial)
            outcomes = self.room.train([Candidate(design, seed) for seed in seeds], listen=say)
            folder = self._file(trial, 0).parent
            folder.mkdir(parents=True, exist_ok=True)
            about = {"epochs": design.fit.epochs}
            for seed, outcome in zip(seeds, outcomes, strict=True):
                if outcome.model is None:
                    alone = " on labels alone" * (trial.arm == "labels")  # both arms count from 0
                    say(Event("finalists", text=f"trial {trial.number}{alone} was trained anew and failed with seed {seed}: {outcome.why}"))
                    return
                save(outcome.model, self._file(trial, seed), {**about, "identity": self._identity(design, seed), "score": outcome.score})

        return work

    def design(self, trial: Trial) -> Design:
        """What a finalist is trained by: its point, for as many epochs as finalists have."""
        design = self.spaces.design(trial.point, trial.arm)
        return replace(design, fit=replace(design.fit, epochs=self.epochs))

    def _identity(self, design: Design, seed: int) -> str:
        return digest(self.room.data.fingerprint, self.room.answers.fingerprint, *design.form, repr(design.objective), design.fit.lr, seed)

    def epochs_there(self, trials: Sequence[Trial]) -> int | None:
        """For how many epochs those of `trials` that lie in the folder were trained, the most where they differ; None where none does."""
        found = [facts.get("epochs", 0) for trial in trials if (facts := self._facts(self._file(trial, 0)))]
        return max(found, default=0) or None

    def _there(self, trial: Trial) -> bool:
        """Whether the folder has every seed of a finalist, trained as it is to be trained now."""
        design = self.design(trial)
        facts = [self._facts(self._file(trial, seed)) for seed in range(self.seeds)]
        return all(each is not None and each["identity"] == self._identity(design, seed) for seed, each in enumerate(facts))

    def _facts(self, path: Path) -> dict[str, Any] | None:
        """What a file says of its training; None where there is none. Raises RunError for a damaged one."""
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                return json.loads(file.metadata()["attar"])
        except SafetensorError as error:
            raise RunError(f"{path} is damaged: {error}", hint="remove it, and --resume trains it again") from error

    def _read(self, trial: Trial) -> list[nn.Module] | None:
        if not self._there(trial):
            return None  # it failed with one of its seeds
        design = self.design(trial)
        models = []
        for seed in range(self.seeds):
            model = design.student(self.room.data.schema, seed)
            model.load_state_dict(load_file(self._file(trial, seed)))
            models.append(model.eval())
        return models

    def _file(self, trial: Trial, seed: int) -> Path:
        return self.folder / name_of(trial) / f"seed-{seed}.safetensors"

    def shipped(self, trial: Trial, model: nn.Module, data: Data, task: Task, deploy: Precision, guard: Guard | None) -> Path:
        """The folder of a finalist that would ship, its graph as that of a run: a guard's nodes cost time, too."""
        at = self.folder / name_of(trial) / "student"
        if not (at / "student.json").exists():
            teacher = None if guard is None else self.room.answers
            export(model, data, task, at=at, deploy=deploy, guard=guard, teacher=teacher, listen=self.listen)
        return at
