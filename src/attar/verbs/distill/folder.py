"""What a distillation leaves on disk, and finds there again after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import nn

from attar.errors import RunError
from attar.files import explain_disk, write_atomic, write_json
from attar.loop import processes
from attar.verbs.distill.together import ONE, Way

__all__ = ["Arm", "Folder"]


@dataclass(frozen=True)
class Arm:
    """One training: of the student, or of a control.

    name: "student", or the control's. model: with the weights of the best epoch, in evaluation mode, on the CPU.
    history: one mapping for each epoch. best_epoch: counted from 1. valid: every metric of the task on the validation rows.
    """

    name: str
    seed: int
    model: nn.Module = field(repr=False)
    history: tuple[Mapping[str, Any], ...] = field(repr=False)
    best_epoch: int
    valid: Mapping[str, float]
    seconds: float


class Folder:
    """What a distillation leaves on disk, and finds there again."""

    def __init__(self, out: Path, resume: bool) -> None:
        self.out, self.resume = out, resume
        self.history = out / "history.jsonl"
        self._writes = processes()[0] == 0

    def begin(self) -> None:
        """Refuse a folder that holds a training, unless it goes on; keep of the history what belongs to finished arms."""
        if not self._writes:
            return
        if not self.resume and (self.out / "arms").exists():
            raise RunError(f"{self.out} holds a training already", hint="--resume goes on with it; --out names another folder")
        with explain_disk(self.out):
            (self.out / "arms").mkdir(parents=True, exist_ok=True)
        for part in ("arms", "checkpoints"):
            for torn in (self.out / part).glob(".*.tmp"):  # what a kill left of a file that was being written
                torn.unlink(missing_ok=True)
        done = {(path.stem.rpartition("-")[0], int(path.stem.rpartition("-")[2])) for path in (self.out / "arms").glob("*-*.safetensors")}
        kept = [line for line in self._lines() if (line["arm"], line["seed"]) in done]
        write_atomic(self.history, "".join(json.dumps(line) + "\n" for line in kept))

    def threads(self) -> int | None:
        """As chosen when the training began: another number would change the last bits."""
        path = self.out / "checkpoints" / "threads.json"
        return json.loads(path.read_text())["threads"] if self.resume and path.exists() else None

    def keep_threads(self, threads: int) -> None:
        write_json(self.out / "checkpoints" / "threads.json", {"threads": threads})

    def begun(self) -> tuple[list[tuple[tuple[str, int], ...]], Way]:
        """Who was to train with whom, and in which way, when the training began; nobody where nothing was begun."""
        path = self.out / "checkpoints" / "way.json"
        if not self.resume or not path.exists():
            return [], ONE
        kept = json.loads(path.read_text())
        return [tuple((name, seed) for name, seed in job) for job in kept["jobs"]], Way(**kept["way"])

    def begin_jobs(self, jobs: Sequence[Sequence[tuple[str, int]]], way: Way) -> None:
        write_json(self.out / "checkpoints" / "way.json", {"jobs": jobs, "way": asdict(way)})

    def checkpoint(self, name: str, seed: int) -> Path:
        return self.out / "checkpoints" / f"{name}-{seed}.pt"

    def note(self, line: Mapping[str, Any]) -> None:
        """One line of history; it is synced with its arm, for a kill of the process does not lose what was written."""
        with self._there(), open(self.history, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @contextmanager
    def _there(self) -> Iterator[None]:
        """As `explain_disk`; and where the history is gone, so is whatever was complete."""
        try:
            with explain_disk(self.history):
                yield
        except FileNotFoundError as error:
            raise RunError(f"{self.history} is gone: the folder was removed while students trained", hint="start the run again") from error

    def keep(self, arm: Arm, identity: str) -> None:
        """The arm's file is written last: once it is there the arm is finished."""
        with self._there(), open(self.history, "rb+") as file:
            os.fsync(file.fileno())
        facts = {"identity": identity, "best_epoch": arm.best_epoch, "valid": dict(arm.valid), "seconds": arm.seconds}
        save(arm.model, self._arm(arm.name, arm.seed), facts)
        self.checkpoint(arm.name, arm.seed).unlink(missing_ok=True)

    def keep_student(self, model: nn.Module, text: str) -> None:
        save(model, self.out / "student.safetensors", {"student": text})

    def keep_teacher(self, model: nn.Module) -> None:
        """Of a teacher that was made of the student: written before the student's arm, so that a finished arm has it."""
        save(model, self._teacher, {})

    def teacher(self, model: nn.Module) -> nn.Module:
        """What `keep_teacher` kept, in `model`."""
        try:
            model.load_state_dict(load_file(self._teacher))
        except (SafetensorError, FileNotFoundError) as error:
            again = "remove arms/student-0.safetensors, and --resume trains both again"
            raise RunError(f"{self._teacher} is damaged or gone: {error}", hint=again) from error
        return model.eval()

    @property
    def _teacher(self) -> Path:
        return self.out / "teacher.safetensors"

    def finished(self, name: str, seed: int, identity: str, model: nn.Module) -> Arm | None:
        """The arm as it was kept, its weights in `model`; RunError where it is of another training."""
        path = self._arm(name, seed)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads(file.metadata()["attar"])
            state = load_file(path)
        except SafetensorError as error:
            raise RunError(f"{path} is damaged: {error}", hint="remove it, and --resume trains it again") from error
        if facts["identity"] != identity:
            raise RunError(
                f"{path} is of another training: data, teacher, student, objective or fit have changed",
                hint="--out names another folder",
            )
        model.load_state_dict(state)
        history = tuple(line for line in self._lines() if (line["arm"], line["seed"]) == (name, seed))
        return Arm(name, seed, model.eval(), history, facts["best_epoch"], facts["valid"], facts["seconds"])

    def _arm(self, name: str, seed: int) -> Path:
        return self.out / "arms" / f"{name}-{seed}.safetensors"

    def _lines(self) -> list[dict[str, Any]]:
        """The history so far; a kill may have torn the last line."""
        found = []
        for line in self.history.read_text(encoding="utf-8").splitlines() if self.history.exists() else ():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found


def save(model: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
    """The weights as safetensors, `facts` in the head; written whole or not at all."""
    state = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    write_atomic(path, serialised(state, metadata={"attar": json.dumps(facts)}))
