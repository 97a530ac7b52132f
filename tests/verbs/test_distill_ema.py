"""A student taught by the mean of its own weights: made anew for each seed, resumed exactly, and kept for the certificate."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from attar.data import Data
from attar.errors import DataError, NotationError, RunError, StudentError, TeacherError
from attar.loop import Stopped, fit
from attar.objective import balance, blend, gate, kl, labels, mse
from attar.progress import Event
from attar.signal import IGNORE
from attar.sources import adjusted, corrected, ema, ensemble, hard, module
from attar.students import cnn, forest, mlp
from attar.testing.small import SmallCNN, SmallMLP, fitted, small_images, small_table
from attar.verbs.annotate import annotate
from attar.verbs.distill import Distilled, distill

TABLE = small_table(400)
STUDENT = mlp(width=8, depth=1, dropout=0.1)
GOAL = blend(kl(), labels(), weight=0.5)
FIT = fit(epochs=3, lr=0.01, batch=25, seeds=2, threads=1)


def state_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def net_of(done: Distilled) -> nn.Module:
    return done.teacher.net  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue] a module's source


def test_each_seed_has_a_teacher_of_its_own_and_the_controls_none() -> None:
    done = distill(ema(0.9), STUDENT, TABLE, GOAL, fit=FIT)
    assert [(a.name, a.seed) for a in done.arms] == [(n, s) for s in (0, 1) for n in ("student", "labels", "smooth")]
    assert done.conventions.ok
    assert "class order" not in {c.name for c in done.conventions.checks}
    assert done.arms[0].history[0]["parts"]["kl"] > 0
    assert not same(done.arms[0].model, done.arms[1].model)
    assert not same(done.student, net_of(done))
    again = distill(ema(0.9), STUDENT, TABLE, GOAL, fit=FIT)
    assert all(same(a.model, b.model) for a, b in zip(done.arms, again.arms, strict=True))
    assert same(net_of(done), net_of(again))


def test_the_teacher_is_the_mean_of_the_students_weights() -> None:
    """One step an epoch, no warm-up, the last epoch kept: the student after each step is that of a shorter training."""
    one_step = fit(epochs=1, lr=0.01, batch=1000, seeds=1, threads=1, warmup=0.0, weight_decay=0.0)
    net = SmallMLP(TABLE.schema)
    done = distill(ema(0.75, warmup=False), net, TABLE, GOAL, fit=one_step, controls=())
    for start, end, mean in zip(net.parameters(), done.student.parameters(), net_of(done).parameters(), strict=True):
        torch.testing.assert_close(mean, 0.75 * start + 0.25 * end)
        assert not torch.equal(start, end)


def test_running_statistics_are_the_students() -> None:
    data = small_images(160)
    done = distill(ema(0.9), cnn(width=2, depth=1), data, GOAL, fit=replace(FIT, seeds=1), controls=())
    statistics = [name for name, _ in done.student.named_buffers() if "running" in name]
    assert statistics
    for name in statistics:
        assert torch.equal(done.student.state_dict()[name], net_of(done).state_dict()[name])


def interrupted(out: Path, teacher: object, goal: object, at: str) -> Distilled:
    def stop(event: Event) -> None:
        if event.stage == at and event.done == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        distill(teacher, STUDENT, TABLE, goal, fit=FIT, out=out, listen=stop)  # pyright: ignore[reportArgumentType] as given
    return distill(teacher, STUDENT, TABLE, goal, fit=FIT, out=out, resume=True)  # pyright: ignore[reportArgumentType] as given


def test_a_signal_stops_it_and_resuming_gives_the_same_student_and_the_same_teacher(tmp_path: Path) -> None:
    whole = distill(ema(0.9), STUDENT, TABLE, GOAL, fit=FIT, out=tmp_path / "whole")
    for at in ("distill student seed 0", "distill student seed 1"):
        done = interrupted(tmp_path / at, ema(0.9), GOAL, at)
        assert all(same(a.model, b.model) for a, b in zip(whole.arms, done.arms, strict=True))
        assert same(net_of(whole), net_of(done))
    kept = load_file(tmp_path / "whole" / "teacher.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in net_of(whole).state_dict().items())


def test_a_stop_in_the_middle_of_an_epoch_is_resumed_exactly(tmp_path: Path) -> None:
    class Stopping(nn.Module):
        """A student that is told to stop in the step after so many."""

        def __init__(self, after: int) -> None:
            super().__init__()
            self.net, self.left = STUDENT(TABLE.schema, 0), after

        def forward(self, inputs: object) -> torch.Tensor:
            if self.training:
                self.left -= 1
                if not self.left:
                    signal.raise_signal(signal.SIGTERM)
            return self.net(inputs)

    goal = balance(ratio=2, every=3) * kl() + labels()
    one = replace(FIT, seeds=1)
    whole = distill(ema(0.9), Stopping(-1), TABLE, goal, fit=one, controls=(), out=tmp_path / "whole")
    with pytest.raises(Stopped, match="in epoch 2"):
        distill(ema(0.9), Stopping(6), TABLE, goal, fit=one, controls=(), out=tmp_path / "run")
    content = torch.load(tmp_path / "run" / "checkpoints" / "student-0.pt", weights_only=True)
    assert content["state"]["step"] == 2
    assert int(content["follower"]["steps"]) == 6
    done = distill(ema(0.9), Stopping(-1), TABLE, goal, fit=one, controls=(), out=tmp_path / "run", resume=True)
    assert same(whole.student, done.student)
    assert same(net_of(whole), net_of(done))


def test_a_balance_is_resumed_exactly(tmp_path: Path) -> None:
    teacher = module(fitted(SmallMLP(TABLE.schema), TABLE, steps=10).eval())
    goal = balance(ratio=3, every=3) * gate("teacher_confident", above=0.6) * kl() + labels()
    whole = distill(teacher, STUDENT, TABLE, goal, fit=FIT)
    done = interrupted(tmp_path / "run", teacher, goal, "distill student seed 0")
    assert all(same(a.model, b.model) for a, b in zip(whole.arms, done.arms, strict=True))


def test_finished_arms_bring_their_teacher_and_a_lost_one_is_named(tmp_path: Path) -> None:
    done = distill(ema(0.9), STUDENT, TABLE, GOAL, fit=FIT, out=tmp_path)
    again = distill(ema(0.9), STUDENT, TABLE, GOAL, fit=FIT, out=tmp_path, resume=True)
    assert same(net_of(done), net_of(again))
    (tmp_path / "teacher.safetensors").unlink()
    with pytest.raises(RunError, match=r"teacher\.safetensors is damaged or gone"):
        distill(ema(0.9), STUDENT, TABLE, GOAL, fit=FIT, out=tmp_path, resume=True)
    with pytest.raises(RunError, match="another training"):
        distill(ema(0.5), STUDENT, TABLE, GOAL, fit=FIT, out=tmp_path, resume=True)


def hidden(data: Data, split: str) -> Data:
    own = data.splits[split]
    assert own.labels is not None
    return replace(data, **{split: replace(own, labels=torch.full_like(own.labels, IGNORE))})


def test_what_a_teacher_made_of_the_student_cannot_do_is_refused_before_training() -> None:
    with pytest.raises(NotationError, match="another one for each student"):
        distill(ema(), STUDENT, TABLE, GOAL, fit=FIT, controls=("hard",))
    with pytest.raises(StudentError, match="has no weights that"):
        distill(ema(), forest(trees=3), TABLE, GOAL, fit=FIT)
    with pytest.raises(DataError, match="knows nothing but what the student was told"):
        distill(ema(), STUDENT, TABLE, kl() + mse(), fit=FIT)
    with pytest.raises(DataError, match="cannot judge it"):
        distill(ema(), STUDENT, hidden(TABLE, "valid"), GOAL, fit=FIT)
    with pytest.raises(TeacherError, match="nothing of it can be stored"):
        annotate(ema(), TABLE)
    for wrapped in (hard(ema()), ensemble(ema(), ema())):
        with pytest.raises(TeacherError, match="follows a student in training"):
            distill(wrapped, STUDENT, TABLE, GOAL, fit=FIT)


def test_teachers_that_are_told_of_the_training_rows_are_told_by_distill() -> None:
    teacher = module(SmallMLP(TABLE.schema, width=32))
    other = module(SmallMLP(TABLE.schema, 5))
    one = replace(FIT, seeds=1, epochs=1)
    for source in (corrected(teacher), adjusted(teacher), ensemble(teacher, other, weights="confidence")):
        live = distill(source, STUDENT, TABLE, GOAL, fit=one, controls=("hard",))
        by_hand = distill(source.told(TABLE.train), STUDENT, TABLE, GOAL, fit=one, controls=())
        stored = distill(annotate(source, TABLE, precision="float32"), STUDENT, TABLE, GOAL, fit=one, controls=())
        assert same(live.student, by_hand.student)
        for a, b in zip(live.student.parameters(), stored.student.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def one_of_two(rank: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="1")  # the store is a file
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    data, student = small_images(160), cnn(width=2, depth=1)
    one = replace(FIT, seeds=1, epochs=1)
    taught = distill(ema(0.9), student, data, GOAL, fit=one, controls=(), out=f"{folder}/ema")
    teacher = module(fitted(SmallCNN(data.schema), data, steps=20).eval())
    balanced = distill(teacher, student, data, balance(every=3) * kl() + labels(), fit=one, controls=(), out=f"{folder}/balance")
    nets = (taught.student, net_of(taught), balanced.student)
    torch.save([state_of(net) for net in nets], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
    os._exit(0)  # all is kept; torch's own threads have been seen to abort a process that was ending


def test_two_processes_have_one_student_one_teacher_and_one_balance(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]  # public
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    kept = load_file(tmp_path / "ema" / "teacher.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in first[1].items())


def test_a_whole_run_compares_the_student_with_the_mean_of_its_weights(tmp_path: Path) -> None:
    from attar.verbs.run import run  # not for the two processes above

    said: list[str] = []
    result = run(
        ema(decay=0.9),
        mlp(width=8, depth=1),
        TABLE,
        GOAL,
        fit=replace(FIT, epochs=2),
        out=tmp_path / "run",
        listen=lambda event: said.append(event.text),
    )
    assert result.certificate is not None
    assert "the teacher follows the student, so that nothing of it can be stored" in said
    assert not (tmp_path / "run" / "answers").exists()
    assert (tmp_path / "run" / "teacher.safetensors").exists()
    again = run(
        ema(decay=0.9), mlp(width=8, depth=1), TABLE, GOAL, fit=replace(FIT, epochs=2), out=tmp_path / "run", resume=True
    ).certificate
    assert again == result.certificate
