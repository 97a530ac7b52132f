"""The battery of student builders: what every builder must keep, whatever it builds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attar.data import Data
from attar.signal import Inputs, Student, Texts
from attar.task import Task

__all__ = ["check_answers", "check_builder", "check_monotone", "check_seed", "check_trains"]

ROWS = 33  # an odd number, so that nothing passes by being a multiple of something


def check_builder(builder: Student, data: Data, task: Task) -> None:
    """Assert the whole contract of a builder on `data`, but for its export, which `attar.testing.export.check_export` tests."""
    check_seed(builder, data)
    check_answers(builder, data, task)
    check_trains(builder, data, task)


def check_seed(builder: Student, data: Data) -> None:
    """A seed gives the same weights whatever global chance is, another seed others; the module is fresh, and global chance left alone."""
    before = torch.get_rng_state()
    one = builder(data.schema, 3)
    assert torch.equal(before, torch.get_rng_state()), "building moved the global generator"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        again = builder(data.schema, 3)
    other = builder(data.schema, 4)
    assert one is not again, "the builder hands out one module twice"
    assert isinstance(one, nn.Module), f"{builder!r} built a {type(one).__name__}"
    assert _same(one, again), "the same seed gave other weights"
    assert not _same(one, other), "another seed gave the same weights"


def check_answers(builder: Student, data: Data, task: Task) -> None:
    """In evaluation mode: logits in a form the task knows, each row answered by itself, the same twice, and inputs left as they were."""
    task = task.bind(data.schema)
    model = builder(data.schema, 0).eval()
    inputs = data.train.batch(torch.arange(ROWS)).inputs
    kept = _each(inputs, lambda value: value.clone() if isinstance(value, Tensor) else Texts(value.tolist()))
    with torch.no_grad():
        output = model(inputs)
        answer = task.canonical(output)
        assert answer.dtype == torch.float32, f"logits are {answer.dtype}"
        assert bool(answer.isfinite().all()), "a fresh student answers NaN or infinity"
        assert torch.equal(model(inputs), output), "the same rows were answered otherwise the second time"
        alone = task.canonical(model(_each(inputs, lambda value: value[:1])))
    torch.testing.assert_close(alone[0], answer[0], rtol=1e-4, atol=1e-5)
    pairs = [(inputs, kept)] if isinstance(inputs, Tensor) or isinstance(kept, Tensor) else [(inputs[n], kept[n]) for n in kept]
    for now, then in pairs:
        if isinstance(now, Texts):
            assert now == then
            continue
        assert isinstance(now, Tensor)
        assert isinstance(then, Tensor)
        torch.testing.assert_close(now, then, rtol=0, atol=0, equal_nan=True)


def check_trains(builder: Student, data: Data, task: Task) -> None:
    """A gradient reaches every weight, and a few steps on labels lower the loss."""
    task = task.bind(data.schema)
    model = builder(data.schema, 0).train()
    batch = data.train.batch(torch.arange(min(len(data.train), 128)))
    assert batch.labels is not None
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        for step in range(30):
            loss = task.label_loss(model(batch.inputs), batch.labels).mean()
            optimizer.zero_grad()
            loss.backward()
            if step == 1:
                idle = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
                assert not idle, f"no gradient reaches {idle}"
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0], f"30 steps took the loss from {losses[0]:.3g} to {losses[-1]:.3g}"


def check_monotone(builders: Sequence[Student], data: Data) -> None:
    """Builders in the order of a size argument, smallest first, build modules of more and more weights."""
    sizes = [sum(p.numel() for p in builder(data.schema, 0).parameters()) for builder in builders]
    assert sizes == sorted(set(sizes)), f"numbers of weights do not grow: {sizes}"


def _same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def _each(inputs: Inputs, change: Callable[[Any], Any]) -> Inputs:
    return change(inputs) if isinstance(inputs, Tensor) else {name: change(value) for name, value in inputs.items()}
