"""Small data and students to test with: they are made in milliseconds, and have every kind of column."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from attar.data.base import Data, Memory, assemble
from attar.signal import Column, Inputs, Schema

Net = TypeVar("Net", bound=nn.Module)

__all__ = ["SmallCNN", "SmallMLP", "fitted", "small_images", "small_table"]


def small_table(rows: int = 800, *, kind: str = "classification", seed: int = 0) -> Data:
    """A table of 4 numbers (with missing values), a boolean and 2 categories, a quarter in each split.

    kind: "classification" of "no" and "yes", "multilabel" of 3 labels, "regression".
    """
    rng = np.random.default_rng(seed)
    numbers = (rng.normal(size=(rows, 5)) * [1, 10, 100, 1, 1] + [0, 5, 300, 0, 0]).astype(np.float32)
    numbers[:, 4] = numbers[:, 4] > 0
    numbers[rng.random(numbers.shape) < 0.05] = np.nan
    codes = np.stack([rng.integers(0, 4, rows), rng.integers(1, 3, rows)], 1)
    score = np.nan_to_num(numbers[:, 0]) + np.nan_to_num(numbers[:, 1] - 5) / 10 + codes[:, 0] - 1.5 + rng.normal(size=rows)
    names = ("age", "days", "amount", "ratio")
    there = [numbers[:, i][~np.isnan(numbers[:, i])] for i in range(5)]
    columns = tuple(
        Column(n, "number", mean=float(v.mean()), std=float(v.std()), median=float(np.median(v)))
        for n, v in zip(names, there[:4], strict=True)
    )
    columns = (
        columns[0],
        Column("colour", "category", categories=("blue", "green", "red")),
        *columns[1:],
        Column("member", "boolean", mean=float(there[4].mean()), std=float(there[4].std())),
        Column("city", "category", categories=("Oslo", "Rome")),
    )
    labels: Tensor
    if kind == "classification":
        labels, classes = torch.from_numpy((score > 0).astype(np.int64)), ("no", "yes")
    elif kind == "multilabel":
        labels, classes = torch.from_numpy(np.stack([score > 0, score > 1, codes[:, 1] > 1], 1).astype(np.int64)), ("a", "b", "c")
    else:
        labels, classes = torch.from_numpy(score.astype(np.float32)), ()
    schema = Schema("table", columns, classes=classes, label="outcome", label_mean=float(score.mean()), label_std=float(score.std()))
    return _data(schema, kind, labels, {"numbers": torch.from_numpy(numbers), "categories": torch.from_numpy(codes)})


def small_images(rows: int = 400, *, seed: int = 0) -> Data:
    """Images of 1 × 8 × 8 pixels in three classes: bright above, bright below, bright at the left; a quarter in each split."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    pixels = rng.integers(0, 120, (rows, 1, 8, 8))
    for i, (top, left) in enumerate(((slice(0, 4), slice(None)), (slice(4, 8), slice(None)), (slice(None), slice(0, 4)))):
        pixels[labels == i, :, top, left] += 100
    schema = Schema("images", shape=(1, 8, 8), pixel_mean=(110.0,), pixel_std=(60.0,), classes=("above", "below", "left"), label="where")
    return _data(schema, "classification", torch.from_numpy(labels), torch.from_numpy(pixels.astype(np.uint8)))


class SmallMLP(nn.Module):
    """One hidden layer over standardised numbers and embedded categories, as attar's own `mlp` in miniature."""

    median: Tensor
    mean: Tensor
    std: Tensor
    first: Tensor

    def __init__(self, schema: Schema, seed: int = 0, *, width: int = 16, outcomes: tuple[int, ...] = ()) -> None:
        super().__init__()
        numbers, sizes = schema.numbers, [len(c.categories) + 1 for c in schema.categories]
        self.outcomes = outcomes or (max(1, len(schema.classes)),)
        self.register_buffer("median", torch.tensor([c.median for c in numbers]))
        self.register_buffer("mean", torch.tensor([c.mean for c in numbers]))
        self.register_buffer("std", torch.tensor([c.std for c in numbers]))
        self.register_buffer("first", torch.tensor([0, *np.cumsum(sizes)[:-1]]) if sizes else torch.zeros(0, dtype=torch.long))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.embed = nn.Embedding(max(1, sum(sizes)), 2)
            self.hidden = nn.Linear(len(numbers) + 2 * len(sizes), width)
            self.head = nn.Linear(width, int(np.prod(self.outcomes)))

    def forward(self, inputs: Inputs) -> Tensor:
        assert not isinstance(inputs, Tensor)
        blocks = []
        if "numbers" in inputs:
            x = inputs["numbers"]
            blocks.append((torch.where(x.isnan(), self.median, x) - self.mean) / self.std)
        if "categories" in inputs:
            blocks.append(self.embed(inputs["categories"] + self.first).flatten(1))
        output = self.head(torch.relu(self.hidden(torch.cat(blocks, 1))))
        return output if len(self.outcomes) == 1 else output.unflatten(1, self.outcomes)


class SmallCNN(nn.Module):
    """Two convolutions with batch normalisation, a mean over the image, a linear layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, schema: Schema, seed: int = 0) -> None:
        super().__init__()
        channels = schema.shape[0]
        self.register_buffer("mean", torch.tensor(schema.pixel_mean).reshape(1, channels, 1, 1))
        self.register_buffer("std", torch.tensor(schema.pixel_std).reshape(1, channels, 1, 1))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            parts = [nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)]
            parts += [nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
            self.body = nn.Sequential(*parts, nn.Linear(32, len(schema.classes)))

    def forward(self, inputs: Inputs) -> Tensor:
        assert isinstance(inputs, Tensor)
        return self.body((inputs.float() - self.mean) / self.std)


def fitted(model: Net, data: Data, *, steps: int = 60, lr: float = 0.02) -> Net:
    """The model after a few full-batch steps on the training labels: enough that its answers differ from row to row."""
    batch = data.train.batch(torch.arange(len(data.train)))
    assert batch.labels is not None
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        output = model(batch.inputs)
        if data.kind == "regression":
            loss = nn.functional.mse_loss(output[:, 0], batch.labels)
        else:
            loss = nn.functional.cross_entropy(output.movedim(-1, 1), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def _data(schema: Schema, kind: str, labels: Tensor, inputs: Inputs) -> Data:
    rows = len(labels)
    return assemble(
        schema=schema,
        kind=kind,  # pyright: ignore[reportArgumentType] one of the three, as the callers above say
        ids=np.arange(rows),
        labels=labels,
        weight=None,
        part=np.arange(rows) % 4,
        rows=lambda at: Memory(inputs).take(at),
    )
