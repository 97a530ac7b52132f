"""Students trained together come out as they do one by one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attar import cohort
from attar.cohort import Lesson, Member, bytes_for, measure, refusal
from attar.errors import RunError, StudentError
from attar.loop import Stopped, fit
from attar.loop import train as train_alone
from attar.objective import Distiller, kl, labels, ramp
from attar.progress import Event
from attar.signal import Batch, Schema, Signal
from attar.task import classification

ROWS = 200
CHANCE = torch.Generator().manual_seed(5)
X = torch.randn(ROWS, 6, generator=CHANCE)
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).long()
TEACHERS = torch.stack((X[:, 0] + X[:, 1] * X[:, 2], X[:, 0] - X[:, 3])).unsqueeze(-1) * torch.tensor([-1.0, 1.0])  # (arms, ROWS, 2)
TASK = classification().bind(Schema("tensor", classes=("no", "yes")))
FIT = fit(epochs=8, lr=0.01, batch=48, patience=8, clip=0.5)  # 40 steps of 40 rows


def net(seed: int, dtype: torch.dtype = torch.float32, *extra: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), *extra, nn.Linear(16, 2)).to(dtype)


def distiller(seed: int, weight: float = 0.9, temperature: float = 2.0, dtype: torch.dtype = torch.float32, *extra: nn.Module) -> Distiller:
    share = torch.tensor(weight, dtype=dtype)
    objective = share * kl(torch.tensor(temperature, dtype=dtype)) + 0.1 * labels()
    return Distiller(net(seed, dtype, *extra), objective, TASK).build(Batch(X[:8].to(dtype), Y[:8]), Signal(TEACHERS[0, :8].to(dtype)))


def loss(module: nn.Module, common: Mapping[str, Any], own: Mapping[str, Any], progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
    return module(Batch(common["inputs"], common["labels"], complete=True), Signal(own["output"]), progress)


def lesson(dtype: torch.dtype = torch.float32, **more: Any) -> Lesson:
    def common(index: Tensor, epoch: int) -> dict[str, Tensor]:
        return {"inputs": X[index].to(dtype), "labels": Y[index]}

    return Lesson(ROWS, loss, common, lambda arm, index, epoch: {"output": TEACHERS[arm, index].to(dtype)}, **more)


def accuracy(module: nn.Module) -> float:
    assert isinstance(module, Distiller)
    dtype = next(module.parameters()).dtype
    return -float(nn.functional.cross_entropy(module.student(X.to(dtype)), Y))


def by_hand(member: Member, how: Any, dtype: torch.dtype = torch.float32, validate: Any = accuracy) -> Any:
    """The same student by itself."""
    shown = lesson(dtype)

    def alone(module: nn.Module, index: Tensor, epoch: int, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        return loss(module, shown.common(index, epoch), shown.own(member.arm, index, epoch), progress)

    rate = how.lr if member.lr is None else member.lr
    return train_alone(member.module, alone, ROWS, fit=replace(how, lr=rate), seed=member.seed, validate=validate, stage=member.stage)


def six(dtype: torch.dtype = torch.float32, *, lrs: bool = True) -> list[Member]:
    """Two arms of three seeds; every other number of theirs is another one, too."""
    return [
        Member(
            distiller(seed, 0.5 + 0.1 * seed, 1.0 + seed + arm, dtype),
            seed,
            arm,
            0.005 * (1 + seed) if lrs else None,
            f"arm {arm} seed {seed}",
        )
        for seed in (3, 1, 2)
        for arm in (0, 1)
    ]


def gap(one: nn.Module, other: nn.Module) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def same(one: nn.Module, other: nn.Module) -> bool:
    return gap(one, other) == 0


@pytest.mark.parametrize(
    ("traced", "still", "dtype"),
    [
        (False, False, torch.float32),
        (False, False, torch.float64),
        (True, False, torch.float64),
        (True, True, torch.float32),
    ],
    ids=["mapped", "mapped, float64", "traced, float64", "tables"],
)
def test_each_student_is_what_it_becomes_by_itself(dtype: torch.dtype, traced: bool, still: bool) -> None:
    members, apart = six(dtype), six(dtype)
    assert gap(members[0].module, members[2].module) > 0.1
    done = cohort.train(members, lesson(dtype, period=int(still)), fit=FIT, validate=accuracy, traced=traced)
    for member, other, found in zip(members, apart, done, strict=True):
        expected = by_hand(other, FIT, dtype)
        assert gap(member.module, other.module) < (1e-5 if dtype == torch.float32 else 1e-12)
        assert (found.best_epoch, found.epochs) == (expected.best_epoch, expected.epochs)
        assert found.score == pytest.approx(expected.score, abs=1e-5)
        for mine, theirs in zip(found.history, expected.history, strict=True):
            assert mine.keys() == theirs.keys()
            assert (mine["stage"], mine["seed"], mine["epoch"], mine["lr"]) == tuple(theirs[n] for n in ("stage", "seed", "epoch", "lr"))
            assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            assert mine["parts"] == pytest.approx(theirs["parts"], abs=1e-5)


@pytest.mark.parametrize("traced", [False, True], ids=["mapped", "tables"])
def test_students_that_are_no_grid_of_arms_and_seeds_come_out_the_same(traced: bool) -> None:
    members, apart = six(lrs=False)[:-1], six(lrs=False)[:-1]
    cohort.train(members, lesson(period=int(traced)), fit=FIT, validate=accuracy, traced=traced)
    for member, other in zip(members, apart, strict=True):
        by_hand(other, FIT)
        assert gap(member.module, other.module) < 1e-5


def test_running_statistics_are_each_students_own() -> None:
    def made() -> list[Member]:
        return [Member(distiller(seed, 0.9, 2.0, torch.float32, nn.BatchNorm1d(16)), seed, arm) for arm in (0, 1) for seed in (1, 2)]

    members, apart = made(), made()
    assert refusal(members, lesson(), FIT) is None
    cohort.train(members, lesson(), fit=FIT, validate=accuracy)
    for member, other in zip(members, apart, strict=True):
        by_hand(other, FIT)
        assert gap(member.module, other.module) < 1e-5
    assert gap(members[0].module, members[1].module) > 1e-3


def test_a_weight_that_moves_with_the_training_moves_for_all() -> None:
    def made() -> list[Member]:
        built = [Distiller(net(s), ramp(0, 1) * kl() + labels(), TASK).build(Batch(X[:8], Y[:8]), Signal(TEACHERS[0, :8])) for s in (1, 2)]
        return [Member(module, seed) for seed, module in enumerate(built)]

    members, apart = made(), made()
    cohort.train(members, lesson(moving=True), fit=FIT, validate=accuracy, traced=True)  # which it then is not
    for member, other in zip(members, apart, strict=True):
        by_hand(other, FIT)
        assert gap(member.module, other.module) < 1e-5


def test_patience_ends_for_each_by_itself_and_the_rest_go_on() -> None:
    how = replace(FIT, epochs=30, patience=2, lr=0.1)

    def rough(module: nn.Module) -> float:
        return round(accuracy(module), 2)

    members, apart = six(lrs=False), six(lrs=False)
    done = cohort.train(members, lesson(), fit=how, validate=rough)
    expected = [by_hand(other, how, validate=rough) for other in apart]
    assert len({found.epochs for found in expected}) > 2
    assert [found.epochs for found in done] == [found.epochs for found in expected]
    for member, other in zip(members, apart, strict=True):
        assert gap(member.module, other.module) < 1e-4


@pytest.mark.parametrize("traced", [False, True], ids=["mapped", "tables"])
def test_a_stopped_cohort_goes_on_bit_for_bit(tmp_path: Path, traced: bool) -> None:
    how = replace(FIT, epochs=12, patience=2, lr=0.1)
    whole, parts = six(lrs=False), six(lrs=False)
    lines: list[tuple[str, int]] = []
    expected = cohort.train(whole, lesson(period=int(traced)), fit=how, traced=traced, validate=accuracy)
    stops = {2: False, max(found.epochs for found in expected) - 1: False}

    def stop(event: Event) -> None:
        if event.done in stops and not stops[event.done]:
            stops[event.done] = True
            signal.raise_signal(signal.SIGTERM)

    for _ in stops:
        with pytest.raises(Stopped, match="SIGTERM stopped cohort in epoch"):
            cohort.train(
                parts,
                lesson(period=int(traced)),
                fit=how,
                traced=traced,
                validate=accuracy,
                listen=stop,
                checkpoint=tmp_path / "a.pt",
                resume=True,
            )
        parts = six(lrs=False)
    done = cohort.train(
        parts,
        lesson(period=int(traced)),
        fit=how,
        traced=traced,
        validate=accuracy,
        checkpoint=tmp_path / "a.pt",
        resume=True,
        record=lambda member, line: lines.append((member.stage, line["epoch"])),
    )
    assert all(same(a.module, b.module) for a, b in zip(whole, parts, strict=True))
    assert [f.epochs for f in done] == [f.epochs for f in expected]
    assert len(lines) == len(set(lines)) == sum(f.epochs for f in done)
    with pytest.raises(RunError, match="of another training"):
        cohort.train(
            six(), lesson(period=int(traced)), fit=how, traced=traced, validate=accuracy, checkpoint=tmp_path / "a.pt", resume=True
        )


def test_a_signal_within_an_epoch_is_heeded_after_the_step(tmp_path: Path) -> None:
    whole, parts, steps = six(), six(), [0]
    cohort.train(whole, lesson(), fit=FIT, validate=accuracy)

    def stopping(module: nn.Module, common: Any, own: Any, progress: float) -> Any:
        steps[0] += 1
        if steps[0] == 9:
            signal.raise_signal(signal.SIGINT)
        return loss(module, common, own, progress)

    with pytest.raises(Stopped, match="in epoch 2"):
        cohort.train(parts, replace(lesson(), loss=stopping), fit=FIT, validate=accuracy, checkpoint=tmp_path / "a.pt")
    parts = six()
    cohort.train(parts, lesson(), fit=FIT, validate=accuracy, checkpoint=tmp_path / "a.pt", resume=True)
    assert all(same(a.module, b.module) for a, b in zip(whole, parts, strict=True))


def test_what_no_weight_touches_is_made_once_for_all_rows() -> None:
    """A step of students of one temperature is given the teacher's probabilities and the labels' gradient, not answers and labels."""

    def shown(still: bool) -> tuple[set[str], int]:
        members = [Member(Distiller(net(s), kl() + labels(), TASK).build(Batch(X[:8], Y[:8]), Signal(TEACHERS[0, :8])), s) for s in (1, 2)]
        replay = cohort._Stack(members, lesson(period=int(still)), FIT)._trace()  # pyright: ignore[reportPrivateUsage]
        assert replay is not None
        return {str(node.target) for node in replay.step.graph.nodes}, len(next(iter(replay.tables.values()), []))

    (live, none), (stored, some) = shown(False), shown(True)
    assert {"aten.exp.default", "aten.eq.Tensor"} <= live and none == 0
    assert not {"aten.exp.default", "aten.eq.Tensor", "aten.scatter.value"} & stored and some > 0
    assert "aten.baddbmm.default" in live & stored


def test_rows_that_come_again_after_some_epochs_have_a_table_for_each() -> None:
    """In epoch e a row is shown as its view e mod 3."""

    def common(index: Tensor, epoch: int) -> dict[str, Tensor]:
        return {"inputs": X[index] + epoch % 3, "labels": Y[index]}

    def made() -> list[Member]:
        return [Member(distiller(seed), seed, arm) for arm in (0, 1) for seed in (1, 2)]

    replay = cohort._Stack(made(), replace(lesson(period=3), common=common), FIT)._trace()  # pyright: ignore[reportPrivateUsage] else unseen
    assert replay is not None and replay.tabled  # tables that are wrong are found out, and the step then does without
    members, apart = made(), made()
    cohort.train(members, replace(lesson(period=3), common=common), fit=FIT, traced=True)
    cohort.train(apart, replace(lesson(), common=common), fit=FIT)
    assert max(gap(a.module, b.module) for a, b in zip(members, apart, strict=True)) < 1e-5


def test_tables_that_would_be_too_large_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    members, apart = six(lrs=False), six(lrs=False)
    monkeypatch.setattr(cohort, "_TABLE", 1000)
    replay = cohort._Stack(members, lesson(period=1), FIT)._trace()  # pyright: ignore[reportPrivateUsage]
    assert replay is not None and not replay.tabled
    cohort.train(members, lesson(period=1), fit=FIT, validate=accuracy, traced=True)
    for member, other in zip(members, apart, strict=True):
        by_hand(other, FIT)
        assert gap(member.module, other.module) < 1e-5


class Odd(nn.Module):
    """What a trace could take for what it is not: a product read transposed, a view of another form, a softmax over few and over many."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 9), nn.Linear(9, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        few, many = y.softmax(-1), y.repeat(1, 2).log_softmax(-1)[:, :9]
        turned = torch.relu(y.unflatten(1, (3, 3)).transpose(1, 2)).flatten(1)
        return self.second(few + many.exp() + turned + torch.ones_like(y) / 7) + x.softmax(0).mean(0)


@pytest.mark.parametrize("still", [False, True])
def test_a_step_of_odd_layers_is_traced_as_it_is(still: bool) -> None:
    def made() -> list[Member]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return [Member(distiller(s, 0.9, 2.0, torch.float32, Odd()), s, arm) for arm in (0, 1) for s in (1, 2)]

    members, apart = made(), made()
    assert cohort._Stack(made(), lesson(period=int(still)), FIT)._trace() is not None  # pyright: ignore[reportPrivateUsage]
    cohort.train(members, lesson(period=int(still)), fit=FIT, validate=accuracy, traced=True)
    for member, other in zip(members, apart, strict=True):
        by_hand(other, FIT)
        assert gap(member.module, other.module) < 1e-5


def test_what_cannot_be_trained_together_is_refused_in_words() -> None:
    def why(loss: Any = loss, *extra: nn.Module) -> str:
        members = [Member(distiller(seed, 0.9, 2.0, torch.float32, *extra), seed) for seed in (1, 2)]
        return refusal(members, replace(lesson(), loss=loss), FIT) or ""

    def branching(module: nn.Module, common: Any, own: Any, progress: float) -> Any:
        total, parts = loss(module, common, own, progress)
        return (total * 2 if bool(total > 0.3) else total), parts

    def remembering(module: nn.Module, common: Any, own: Any, progress: float, seen: list[int] = []) -> Any:  # noqa: B006 - it shall remember
        total, parts = loss(module, common, own, progress)
        seen.append(1)
        return total * len(seen), parts

    assert why() == ""
    assert "chance" in why(loss, nn.Dropout(0.1))
    assert "cannot be mapped" in why(branching)
    assert "another one when it is mapped" in why(remembering)
    built = [Member(distiller(1), 0), Member(distiller(2, 0.9, 2.0, torch.float32, nn.Identity()), 1)]
    assert "another build" in (refusal(built, lesson(), FIT) or "")
    floats = [
        Member(Distiller(net(1), kl(t), TASK).build(Batch(X[:8], Y[:8]), Signal(TEACHERS[0, :8])), 0) for t in (2.0, 4.0)
    ]  # only a tensor may differ
    assert "another build" in (refusal(floats, lesson(), FIT) or "")
    with pytest.raises(StudentError, match="another build"):
        cohort.train(floats, lesson(), fit=FIT)


def test_a_loss_that_is_not_finite_names_its_student() -> None:
    members = six()
    with torch.no_grad():
        next(members[3].module.parameters()).fill_(torch.nan)
    with pytest.raises(StudentError, match=rf"{members[3].stage}: the loss is not finite in epoch 1, step 1 of 5"):
        cohort.train(members, lesson(), fit=FIT)


def test_both_ways_are_timed_and_nothing_is_left_changed() -> None:
    members, before = six(), six()
    found = measure(members, lesson(), FIT)
    assert 0 < found.alone < 10 * found.together < 100
    assert refusal(members, lesson(), FIT) is None
    assert bytes_for(members[0], lesson(), FIT) > 5 * 4 * (6 * 16 + 16 + 16 * 2 + 2)
    assert all(same(a.module, b.module) for a, b in zip(members, before, strict=True))


def test_running_statistics_are_traced_as_well() -> None:
    members = [Member(distiller(seed, 0.9, 2.0, torch.float32, nn.BatchNorm1d(16)), seed) for seed in (1, 2)]
    apart = [Member(distiller(seed, 0.9, 2.0, torch.float32, nn.BatchNorm1d(16)), seed) for seed in (1, 2)]
    cohort.train(members, lesson(), fit=FIT, traced=True)
    cohort.train(apart, lesson(), fit=FIT)
    assert max(gap(a.module, b.module) for a, b in zip(members, apart, strict=True)) < 1e-5
    stack = cohort._Stack(members, lesson(), FIT)  # pyright: ignore[reportPrivateUsage] whether it was traced at all
    assert stack._trace() is not None  # pyright: ignore[reportPrivateUsage]


def test_a_gradient_written_in_place_may_lie_otherwise() -> None:
    def layers(seed: int) -> Distiller:
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
        return Distiller(made, 0.9 * kl(2.0) + 0.1 * labels(), TASK).build(Batch(X[:8], Y[:8]), Signal(TEACHERS[0, :8]))

    with torch.random.fork_rng(devices=[]):
        stack = cohort._Stack([Member(layers(seed), seed) for seed in (1, 2, 3)], lesson(), FIT)  # pyright: ignore[reportPrivateUsage]
    assert stack._trace() is not None  # pyright: ignore[reportPrivateUsage]


class Picks(nn.Module):
    """Adds some of its columns once more: which ones is a constant that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.at = torch.tensor([0, 2, 5])

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.pad(x.index_select(1, self.at), (0, x.shape[1] - 3))


def test_a_constant_that_is_no_buffer_is_traced_as_well() -> None:
    members = [Member(distiller(seed, 0.9, 2.0, torch.float32, Picks()), seed) for seed in (1, 2)]
    apart = [Member(distiller(seed, 0.9, 2.0, torch.float32, Picks()), seed) for seed in (1, 2)]
    cohort.train(members, lesson(), fit=FIT, traced=True)
    cohort.train(apart, lesson(), fit=FIT)
    assert max(gap(a.module, b.module) for a, b in zip(members, apart, strict=True)) < 1e-5
    stack = cohort._Stack(members, lesson(), FIT)  # pyright: ignore[reportPrivateUsage] whether it was traced at all
    assert stack._trace() is not None  # pyright: ignore[reportPrivateUsage]


class Twice(nn.Module):
    """A layer whose product has two readers: a ReLU written over it would change what the other one reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        product = self.linear(x)
        return torch.relu(product) + torch.relu(-product) * 0.5


@pytest.mark.parametrize(
    ("layer", "readers"), [(lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU()), 1), (Twice, 2)], ids=["one reader", "two readers"]
)
def test_a_trace_writes_over_a_product_that_has_one_reader(layer: Callable[[], nn.Module], readers: int) -> None:
    def made(seed: int) -> Distiller:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return distiller(seed, 0.9, 2.0, torch.float32, layer())

    members, apart = ([Member(made(seed), seed) for seed in (1, 2)] for _ in range(2))
    cohort.train(members, lesson(), fit=FIT, traced=True)
    cohort.train(apart, lesson(), fit=FIT)
    assert max(gap(a.module, b.module) for a, b in zip(members, apart, strict=True)) < 1e-5
    stack = cohort._Stack(members, lesson(), FIT)  # pyright: ignore[reportPrivateUsage]
    replay = stack._trace()  # pyright: ignore[reportPrivateUsage]
    assert replay is not None
    there = [str(node.target) for node in replay.step.graph.nodes]
    assert ("aten.relu_.default" in there) == (readers == 1)
    assert ("aten.threshold_backward.grad_input" in there) == (readers == 1)


class Idle(nn.Module):
    """Has a layer that nobody asks, whose weights have no gradient: an optimiser leaves them as they are, decay and all."""

    def __init__(self) -> None:
        super().__init__()
        self.unasked = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("traced", [False, True], ids=["mapped", "traced"])
def test_each_goes_at_its_own_rate_and_what_nobody_asks_stays(traced: bool) -> None:
    def made(seed: int) -> Distiller:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return distiller(seed, 0.9, 2.0, torch.float32, Idle())

    how = replace(FIT, weight_decay=0.5)
    members, apart = ([Member(made(seed), seed, lr=0.02 / seed) for seed in (1, 2, 3)] for _ in range(2))
    before = [member.module.get_parameter("student.2.unasked.weight").clone() for member in members]
    cohort.train(members, lesson(), fit=how, traced=traced)
    for member, other, idle in zip(members, apart, before, strict=True):
        by_hand(other, how, validate=None)
        assert gap(member.module, other.module) < 1e-5
        assert torch.equal(member.module.get_parameter("student.2.unasked.weight"), idle)
