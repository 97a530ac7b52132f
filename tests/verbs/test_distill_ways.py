"""One after another, as a cohort or in processes: the same arms, resumed from each other's folders; and what was done is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from attar.errors import RunError, StudentError
from attar.loop import Signals, Stopped, fit
from attar.objective import balance, blend, hint, kl, labels, ramp
from attar.progress import Event, Listener, silent
from attar.sources import module
from attar.students import mlp
from attar.testing.small import SmallMLP, fitted, small_images, small_table
from attar.verbs.annotate import annotate
from attar.verbs.distill import Distilled, distill
from attar.verbs.distill import together as ways
from attar.verbs.distill.folder import Folder
from attar.verbs.distill.processes import shared

TABLE = small_table(600)
TEACHER = annotate(module(fitted(SmallMLP(TABLE.schema, width=32), TABLE, steps=40).eval()), TABLE, precision="float32")
STUDENT = mlp(width=8, depth=1)
CONTROLS = ("labels", "smooth", "hard", "shuffled")
FIT = fit(epochs=3, lr=0.01, batch=32, seeds=2, threads=1, way="cohort")


def gap(one: Distilled, other: Distilled) -> float:
    """The largest difference of weights."""
    return max(
        float((a - b).abs().max()) if len(a.reshape(-1)) else 0.0
        for mine, theirs in zip(one.arms, other.arms, strict=True)
        for a, b in zip(mine.model.state_dict().values(), theirs.model.state_dict().values(), strict=True)
    )


@pytest.fixture(scope="module")
def apart() -> Distilled:
    """Student and controls, one after another."""
    return distill(TEACHER, STUDENT, TABLE, fit=replace(FIT, way="one"), controls=CONTROLS)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Distilled, Path]:
    """The same as cohorts, and their folder."""
    out = tmp_path_factory.mktemp("ways") / "run"
    return distill(TEACHER, STUDENT, TABLE, fit=FIT, controls=CONTROLS, out=out), out


def test_arms_of_a_cohort_are_those_of_separate_training(apart: Distilled, together: tuple[Distilled, Path]) -> None:
    done, _ = together
    assert gap(apart, done) < 1e-5
    for mine, theirs in zip(done.arms, apart.arms, strict=True):
        assert (mine.name, mine.seed, mine.best_epoch) == (theirs.name, theirs.seed, theirs.best_epoch)
        assert dict(mine.valid) == pytest.approx(dict(theirs.valid), abs=1e-5)
        for ours, other in zip(mine.history, theirs.history, strict=True):
            assert ours.keys() - other.keys() == {"together"}
            assert ours["parts"].keys() == other["parts"].keys()
            assert ours["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert apart.way == ""
    assert done.way.startswith("as one tensor program")


def test_the_folder_of_a_cohort_is_that_of_separate_training(together: tuple[Distilled, Path]) -> None:
    done, out = together
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    by_arm = {(line["arm"], line["seed"], line["epoch"]): line for line in lines}
    assert len(by_arm) == len(lines) == sum(len(arm.history) for arm in done.arms)
    assert all(dict(line) == by_arm[arm.name, arm.seed, line["epoch"]] for arm in done.arms for line in arm.history)
    assert not list((out / "checkpoints").glob("*.pt"))
    again = distill(TEACHER, STUDENT, TABLE, fit=replace(FIT, way="one"), controls=CONTROLS, out=out, resume=True)
    assert gap(again, done) == 0  # nothing is trained again, whatever way is asked


def test_a_folder_of_separate_training_goes_on_as_a_cohort(apart: Distilled, tmp_path: Path) -> None:
    distill(TEACHER, STUDENT, TABLE, fit=replace(FIT, way="one", seeds=1), controls=CONTROLS, out=tmp_path)
    done = distill(TEACHER, STUDENT, TABLE, fit=replace(FIT, seeds=3), controls=CONTROLS, out=tmp_path, resume=True)
    assert all("together" not in arm.history[0] for arm in done.arms if arm.seed == 0)
    assert all("together" in arm.history[0] for arm in done.arms if arm.seed > 0)
    assert gap(replace(done, arms=tuple(arm for arm in done.arms if arm.seed < 2)), apart) < 1e-5


def test_a_cohort_that_a_signal_stopped_goes_on_bit_for_bit(together: tuple[Distilled, Path], tmp_path: Path) -> None:
    done, _ = together

    def stop(event: Event) -> None:
        if "together" in event.stage and event.done == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped, match=r"SIGTERM stopped distill \d+ students together in epoch 2"):
        distill(TEACHER, STUDENT, TABLE, fit=FIT, controls=CONTROLS, out=tmp_path, listen=stop)
    assert list((tmp_path / "checkpoints").glob("cohort-*.pt"))
    again = distill(TEACHER, STUDENT, TABLE, fit=replace(FIT, way=None), controls=CONTROLS, out=tmp_path, resume=True)
    assert gap(again, done) == 0
    assert again.way == done.way


def test_a_cohort_killed_while_its_arms_were_written_goes_on(together: tuple[Distilled, Path], tmp_path: Path, monkeypatch) -> None:
    from attar.verbs.distill.folder import Folder

    done, _ = together
    keep, kept = Folder.keep, [0]

    def twice(self: Folder, *of: object) -> None:
        if kept[0] == 2:
            raise KeyboardInterrupt
        kept[0] += 1
        keep(self, *of)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Folder, "keep", twice)
    monkeypatch.setattr("attar.cohort._PAUSE", 0.0)
    with pytest.raises(KeyboardInterrupt):
        distill(TEACHER, STUDENT, TABLE, fit=FIT, controls=CONTROLS, out=tmp_path)
    monkeypatch.undo()
    again = distill(TEACHER, STUDENT, TABLE, fit=FIT, controls=CONTROLS, out=tmp_path, resume=True)
    assert gap(again, done) == 0
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert len({(line["arm"], line["seed"], line["epoch"]) for line in lines}) == len(lines) == 3 * len(done.arms)


@pytest.mark.parametrize("named", [False, True], ids=["nowhere", "folder"])
def test_processes_give_the_same_bits(apart: Distilled, tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "cores", lambda: 2)
    events: list[Event] = []
    how = replace(FIT, way="processes")
    done = distill(TEACHER, STUDENT, TABLE, fit=how, controls=CONTROLS, out=tmp_path / "run" if named else None, listen=events.append)
    assert gap(done, apart) == 0
    assert done.way == "one after another in 2 processes"
    assert [event.done for event in events if event.stage == "distill students"][-1] == 3 * len(done.arms)
    for mine, theirs in zip(done.arms, apart.arms, strict=True):
        assert [dict(line) | {"seconds": 0} for line in mine.history] == [dict(line) | {"seconds": 0} for line in theirs.history]


def test_an_error_in_a_process_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.net, self.seed, self.steps = STUDENT(TABLE.schema, seed), seed, 0

        def forward(self, inputs):
            self.steps += self.training
            return self.net(inputs) * (torch.nan if self.seed == 1 and self.steps > 3 else 1.0)

    monkeypatch.setattr(ways, "cores", lambda: 2)
    with pytest.raises(StudentError, match=r"distill student seed 1: the loss is not finite in epoch 1, step 4") as caught:
        distill(TEACHER, lambda schema, seed: Breaking(seed), TABLE, fit=replace(FIT, way="processes"), controls=())
    assert "lower lr" in caught.value.hint


@pytest.mark.parametrize(
    ("student", "goal", "why"),
    [
        (mlp(width=8, depth=1, dropout=0.1), None, "chance inside the module"),
        (STUDENT, balance(every=3) * kl() + labels(), "balance() measures each student by itself"),
        (STUDENT, blend(kl(), labels()), None),
        (STUDENT, ramp(0, 1) * kl() + labels(), None),
    ],
    ids=repr,
)
def test_what_cannot_train_together_trains_one_by_one_and_why_is_said(student, goal, why: str | None) -> None:
    events: list[Event] = []
    how = replace(FIT, seeds=2, epochs=1)
    done = distill(TEACHER, student, TABLE, goal, fit=how, controls=(), listen=events.append)
    said = [event.text for event in events if event.stage == "distill" and not event.total]
    assert said == [f"2 students train {done.way}"]
    assert ("together" in done.arms[0].history[0]) == (why is None)
    if why is not None:
        assert why in done.way
        assert done.way.startswith("one after another")


def test_images_with_running_statistics_and_taps_train_together() -> None:
    from attar.students import cnn

    data = small_images(160)
    teacher = annotate(
        module(fitted(cnn(width=4, depth=1)(data.schema, 7), data, steps=20).eval()), data, precision="float32", taps=frozenset({"stage1"})
    )
    how = fit(epochs=2, lr=0.01, batch=20, seeds=2, threads=1, way="cohort")
    for goal in (kl() + labels(), kl() + hint("stage1", "stage1") + labels()):
        alone = distill(teacher, cnn(width=2, depth=1), data, goal, fit=replace(how, way="one"), controls=("shuffled",))
        done = distill(teacher, cnn(width=2, depth=1), data, goal, fit=how, controls=("shuffled",))
        assert gap(alone, done) < 1e-5, done.way


def test_the_fastest_way_that_was_measured_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from attar.cohort import Measured
    from attar.verbs.distill import training

    monkeypatch.setattr(training, "SHORT", 0.0)
    monkeypatch.setattr(ways, "cores", lambda: 1)
    for alone, together, chosen in ((1e-3, 1e-3, True), (1e-3, 3.9e-3, False), (1e-3, 9e-3, False)):
        monkeypatch.setattr(ways, "measure", lambda *of, alone=alone, together=together, **more: Measured(alone, together))
        done = distill(TEACHER, STUDENT, TABLE, fit=replace(FIT, way=None, epochs=1), controls=("hard",))
        assert ("together" in done.arms[0].history[0]) == chosen
        assert done.way.startswith("as one tensor program: 1 ms for a step of all, otherwise 4 ms" if chosen else "one after another: 4 ms")


def test_a_folder_that_is_removed_beneath_a_training_is_said_to_be_gone(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", resume=False)
    folder.begin()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunError, match=r"history\.jsonl is gone: the folder was removed"):
        folder.note({"epoch": 1})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_lost_though_every_piece_has_ended(number: signal.Signals) -> None:
    def piece(listen: Listener) -> int:
        with Signals():  # which notes what is passed on, and ends as if nothing had been
            os.kill(os.getppid(), number)
            time.sleep(0.5)
        return 1

    with pytest.raises(Stopped) as stopped:
        shared([piece], silent)
    assert stopped.value.signal == number


FORKED = """
import sys, torch
from torch import nn
from attar.verbs.distill.processes import can_fork
if sys.argv[1] == "attar":
    from attar.loop import before_tracing
    before_tracing()
torch.onnx.export(nn.Linear(2, 2), (torch.ones(1, 2),), dynamo=True, verbose=False)
torch.zeros((), requires_grad=True).backward()
print(can_fork())
"""


@pytest.mark.parametrize(("who", "can"), [("attar", "True"), ("another", "False")])
def test_what_is_forked_after_an_export_can_learn_where_differentiation_had_begun(who: str, can: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, who], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == can
