"""The loop repeats, resumes and stops exactly, and leaves the world as it was."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attar.errors import RunError, StudentError
from attar.loop import Stopped, choose_threads, device_of, fit, train, using_threads

ROWS = 50
X = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(5))
Y = (X @ torch.tensor([1.0, -2.0, 0.5]))[:, None]


def small(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def square(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
    loss = (module(X[index]) - Y[index]).square().mean()
    return loss, {"mse": loss.detach()}


def error(module: nn.Module) -> float:
    return -float((module(X) - Y).square().mean())


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


FIT = fit(epochs=6, lr=0.02, batch=16, patience=6)


def test_the_same_seed_trains_the_same_weights_and_another_seed_others() -> None:
    modules = [small(), small(), small()]
    for module, seed in zip(modules, (1, 1, 2), strict=True):
        train(module, square, ROWS, fit=FIT, seed=seed, validate=error)
    assert same(modules[0], modules[1])
    assert not same(modules[0], modules[2])


def test_global_chance_is_left_alone() -> None:
    before = torch.get_rng_state()
    train(small(), square, ROWS, fit=FIT, seed=1, validate=error)
    assert torch.equal(before, torch.get_rng_state())


def test_global_chance_changes_nothing() -> None:
    one, other = small(), small()
    train(one, square, ROWS, fit=FIT, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        train(other, square, ROWS, fit=FIT, seed=1)
    assert same(one, other)


def test_it_equals_a_loop_written_by_hand() -> None:
    def build() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return nn.Linear(3, 1)

    orders: list[Tensor] = []

    def noting(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        orders.append(index)
        return square(module, index, epoch, progress)

    ours, theirs = build(), build()
    chosen = fit(epochs=3, lr=0.05, batch=16, warmup=0.25, weight_decay=0.1, clip=0.5)
    train(ours, noting, ROWS, fit=chosen, seed=0)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.05, weight_decay=0.1)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 3, total_iters=2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[3])
    assert len(orders) == 12
    for index in orders:
        optimizer.zero_grad()
        square(theirs, index, 0, 0.0)[0].backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        schedule.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_weight_that_has_no_part_in_a_step_stays_as_it_is() -> None:
    module = nn.ModuleDict({"used": nn.Linear(3, 1), "now and then": nn.Linear(3, 1)})
    seen: list[Tensor] = []

    def loss(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(module, nn.ModuleDict)
        seen.append(next(module["now and then"].parameters()).detach().clone())
        answer = module["used"](X[index])
        return (answer if epoch == 1 else answer + module["now and then"](X[index])).square().mean(), {}

    train(module, loss, ROWS, fit=fit(epochs=2, lr=0.1, batch=25), seed=0)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[2], seen[3])


def test_an_epoch_shows_each_row_once_in_steps_of_nearly_equal_size() -> None:
    seen: dict[int, list[Tensor]] = {}

    def noting(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        seen.setdefault(epoch, []).append(index)
        return square(module, index, epoch, progress)

    train(small(), noting, ROWS, fit=fit(epochs=2, batch=16), seed=0)
    for steps in seen.values():
        assert sorted(len(s) for s in steps) == [12, 12, 13, 13]
        assert sorted(torch.cat(steps).tolist()) == list(range(ROWS))
    assert torch.cat(seen[1]).tolist() != torch.cat(seen[2]).tolist()


def test_a_batch_larger_than_the_data_is_one_step() -> None:
    done = train(small(), square, ROWS, fit=fit(epochs=2, batch=10_000), seed=0)
    assert done.epochs == 2


def test_progress_runs_from_zero_towards_one() -> None:
    seen: list[float] = []

    def noting(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(progress)
        return square(module, index, epoch, progress)

    train(small(), noting, ROWS, fit=fit(epochs=2, batch=16), seed=0)
    assert seen == [i / 8 for i in range(8)]


def test_the_best_epoch_is_kept_and_patience_ends_the_training() -> None:
    scores = iter([1.0, 3.0, 3.0, 2.0, 2.5, 2.9, 9.0])  # of equals the later one
    snapshots: list[dict[str, Tensor]] = []

    def validate(module: nn.Module) -> float:
        assert not module.training
        assert not torch.is_grad_enabled()
        snapshots.append({k: v.clone() for k, v in module.state_dict().items()})
        return next(scores)

    module = small()
    done = train(module, square, ROWS, fit=fit(epochs=7, batch=16, patience=3), seed=0, validate=validate)
    assert (done.best_epoch, done.score, done.epochs) == (3, 3.0, 6)
    assert all(torch.equal(v, snapshots[2][k]) for k, v in module.state_dict().items())
    assert not module.training


def test_history_has_a_line_for_each_epoch_with_means_over_its_steps() -> None:
    totals: list[float] = []

    def noting(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = square(module, index, epoch, progress)
        totals.append(loss.item())
        return loss, parts

    lines: list[object] = []
    done = train(small(), noting, ROWS, fit=fit(epochs=2, batch=16), seed=4, validate=error, stage="here", record=lines.append)
    assert lines == list(done.history)
    assert [(h["stage"], h["seed"], h["epoch"]) for h in done.history] == [("here", 4, 1), ("here", 4, 2)]
    assert done.history[1]["loss"] == pytest.approx(sum(totals[4:]) / 4)
    assert done.history[1]["parts"]["mse"] == pytest.approx(sum(totals[4:]) / 4)
    assert {"valid", "lr", "seconds"} <= done.history[0].keys()


class _After:
    """A loss that sends a signal to this process at its n-th call."""

    def __init__(self, calls: int, number: int) -> None:
        self.left, self.number = calls, number

    def __call__(self, module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return square(module, index, epoch, progress)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("calls", [1, 6, 8, 9, 24])  # in the first step, within an epoch, at its last step, at its first, at the end
def test_a_signal_stops_cleanly_and_the_training_resumes_bit_for_bit(tmp_path: Path, calls: int, number: int) -> None:
    whole, parted = small(), small()
    expected = train(whole, square, ROWS, fit=FIT, seed=1, validate=error)
    checkpoint = tmp_path / "there" / "stopped.pt"
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=signal.Signals(number).name) as stopped:
        train(parted, _After(calls, number), ROWS, fit=FIT, seed=1, validate=error, checkpoint=checkpoint)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert stopped.value.checkpoint == checkpoint
    again = small(seed=77)  # other weights: all of them have to come from the checkpoint
    lines: list[object] = []
    done = train(again, square, ROWS, fit=FIT, seed=1, validate=error, checkpoint=checkpoint, resume=True, record=lines.append)
    assert same(whole, again)
    assert (done.best_epoch, done.score) == (expected.best_epoch, expected.score)
    assert [{**h, "seconds": 0} for h in done.history] == [{**h, "seconds": 0} for h in expected.history]
    assert len(lines) == 6


def test_a_checkpoint_of_another_training_is_refused_with_both_values(tmp_path: Path) -> None:
    checkpoint = tmp_path / "stopped.pt"
    with pytest.raises(Stopped):
        train(small(), _After(5, signal.SIGTERM), ROWS, fit=FIT, seed=1, validate=error, checkpoint=checkpoint)
    with pytest.raises(RunError, match="seed: 1 there, 2 here"):
        train(small(), square, ROWS, fit=FIT, seed=2, validate=error, checkpoint=checkpoint, resume=True)


def test_resuming_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    one, other = small(), small()
    train(one, square, ROWS, fit=FIT, seed=1)
    train(other, square, ROWS, fit=FIT, seed=1, checkpoint=tmp_path / "none.pt", resume=True)
    assert same(one, other)


def test_a_loss_that_is_not_finite_names_epoch_step_and_parts() -> None:
    def bad(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _ = square(module, index, epoch, progress)
        term = torch.tensor(math.nan if progress == 6 / 24 else 1.0)
        return loss + term, {"mse": loss, "other": term}

    with pytest.raises(StudentError, match=r"epoch 2, step 3 of 4: total nan, mse [\d.]+, other nan"):
        train(small(), bad, ROWS, fit=FIT, seed=1)


def test_a_score_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(StudentError, match="validation score of epoch 1 is nan"):
        train(small(), square, ROWS, fit=FIT, seed=1, validate=lambda module: math.nan)


def test_nothing_to_train_is_said() -> None:
    with pytest.raises(StudentError, match="no rows"):
        train(small(), square, 0, fit=FIT, seed=1)
    with pytest.raises(StudentError, match="no weights"):
        train(nn.ReLU(), square, ROWS, fit=FIT, seed=1)


@pytest.mark.parametrize(
    "bad",
    [{"epochs": 0}, {"batch": 0}, {"seeds": 0}, {"lr": 0.0}, {"lr": math.nan}, {"warmup": 1.5}, {"weight_decay": -1.0}, {"clip": 0.0}],
)
def test_a_fit_out_of_range_is_refused_with_its_value(bad: dict[str, float]) -> None:
    ((name, value),) = bad.items()
    with pytest.raises(StudentError, match=rf"fit\({name}={value}\)"):
        fit(**bad)  # pyright: ignore[reportArgumentType]  # wrong on purpose


def test_bfloat16_trains_too() -> None:
    module = small()
    done = train(module, square, ROWS, fit=fit(epochs=30, lr=0.02, batch=16, precision="bfloat16"), seed=0, validate=error)
    assert done.score > -1.0
    assert next(module.parameters()).dtype == torch.float32


def test_a_device_that_torch_does_not_know_is_refused_at_once() -> None:
    with pytest.raises(StudentError, match="'cudaa'"):
        fit(device="cudaa")


def test_an_unknown_device_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(StudentError, match="no such device"):
        device_of(fit(device="cuda:3"))


def test_choosing_threads_leaves_the_setting_alone() -> None:
    with using_threads(2):
        assert choose_threads(lambda: X @ X.T) in (1, 2)
        assert torch.get_num_threads() == 2
    with using_threads(1):
        assert choose_threads(lambda: X @ X.T) == 1


def _one_of_two(rank: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="1")  # the store is a file
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    module = plain()
    done = train(module, square, ROWS, fit=FIT, seed=1, validate=error, checkpoint=Path(folder) / "checkpoint.pt")
    torch.save({"weights": module.state_dict(), "best": done.best_epoch}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
    os._exit(0)  # all is kept; torch's own threads have been seen to abort a process that was ending


def plain() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path),), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]  # public
    one = plain()
    expected = train(one, square, ROWS, fit=FIT, seed=1, validate=error)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["best"] == expected.best_epoch
        for name, value in one.state_dict().items():
            torch.testing.assert_close(found["weights"][name], value, rtol=1e-4, atol=1e-5)


def test_a_signal_between_setting_a_handler_and_the_next_line_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    set_handler = signal.signal
    inherited = set_handler(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would the test

    def eager(number: int, handler: signal.Handlers | int | None) -> object:
        before = set_handler(number, handler)
        if number == signal.SIGINT and handler is not before and before is signal.default_int_handler:
            os.kill(os.getpid(), signal.SIGINT)
        return before

    monkeypatch.setattr(signal, "signal", eager)
    try:
        with pytest.raises(Stopped):
            train(small(), square, ROWS, fit=FIT, seed=1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        set_handler(signal.SIGINT, inherited)
