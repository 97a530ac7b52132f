"""Every builder of students keeps the contract; the contract notices builders that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attar.data import Data, arrays
from attar.signal import Inputs, Schema, Student
from attar.students import cnn, mlp
from attar.task import Task, classification, multilabel, regression
from attar.testing.export import check_export
from attar.testing.small import fitted, small_images, small_table
from attar.testing.students import check_answers, check_builder, check_monotone, check_seed, check_trains

TABLE, MANY, NUMBER, IMAGES = small_table(400), small_table(400, kind="multilabel"), small_table(400, kind="regression"), small_images(200)
TENSORS = arrays(torch.randn(200, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 9 + 5, torch.arange(200) % 3).read()

CASES: list[tuple[Student, Data, Task]] = [
    (mlp(width=8, depth=2), TABLE, classification()),
    (mlp(width=8, depth=1, dropout=0.3, embed=2), TABLE, classification()),
    (mlp(width=8, depth=2), MANY, multilabel()),
    (mlp(width=8, depth=2), NUMBER, regression()),
    (mlp(width=8, depth=2), IMAGES, classification()),
    (mlp(width=8, depth=2), TENSORS, classification()),
    (cnn(width=4, depth=2), IMAGES, classification()),
    (cnn(width=4, depth=2), TENSORS, classification()),
]
NAMES = [f"{builder!r} on {data.kind} of {data.schema.kind}" for builder, data, _ in CASES]


@pytest.mark.parametrize(("builder", "data", "task"), CASES, ids=NAMES)
def test_a_builder_keeps_the_contract(builder: Student, data: Data, task: Task) -> None:
    check_builder(builder, data, task)


@pytest.mark.parametrize(("builder", "data", "task"), [CASES[0], CASES[3], CASES[6]], ids=[NAMES[i] for i in (0, 3, 6)])
def test_a_student_exports(builder: Student, data: Data, task: Task, tmp_path: Path) -> None:
    check_export(fitted(builder(data.schema, 0), data, steps=20).eval(), data, task, tmp_path / "student")


def test_more_width_and_depth_are_more_weights() -> None:
    check_monotone([mlp(width=w) for w in (4, 8, 16)], TABLE)
    check_monotone([mlp(depth=d) for d in (1, 2, 3)], TABLE)
    check_monotone([mlp(embed=e) for e in (1, 2, 4)], TABLE)
    check_monotone([cnn(width=w) for w in (4, 8, 16)], IMAGES)
    check_monotone([cnn(depth=d) for d in (1, 2, 3)], IMAGES)


class Bad(nn.Module):
    """A linear layer that breaks one rule."""

    def __init__(self, schema: Schema, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.linear = nn.Linear(64, len(schema.classes))
        self.idle = nn.Linear(2, 2) if fault == "idle" else None

    def forward(self, inputs: Inputs) -> Tensor:
        assert isinstance(inputs, Tensor)
        x = inputs.flatten(1).float() / 255
        if self.fault == "batch":
            x = x - x.mean(0)
        if self.fault == "changes":
            inputs[:, :, 0, 0] = 0
        if self.fault == "chance":
            x = x + torch.rand(1)
        return self.linear(x)


def bad(fault: str) -> Student:
    def build(schema: Schema, seed: int) -> nn.Module:
        if fault == "global chance":
            torch.manual_seed(seed)
            return Bad(schema, fault)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if fault == "no seed" else seed)
            return Bad(schema, fault)

    return build


def seed(builder: Student) -> None:
    check_seed(builder, IMAGES)


def answers(builder: Student) -> None:
    check_answers(builder, IMAGES, classification())


def trains(builder: Student) -> None:
    check_trains(builder, IMAGES, classification())


@pytest.mark.parametrize(
    ("fault", "check"),
    [("global chance", seed), ("no seed", seed), ("batch", answers), ("changes", answers), ("chance", answers), ("idle", trains)],
)
def test_the_contract_notices(fault: str, check: Callable[[Student], None]) -> None:
    state = torch.get_rng_state()
    check(bad("none"))
    with pytest.raises(AssertionError):
        check(bad(fault))
    torch.set_rng_state(state)
