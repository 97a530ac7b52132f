"""The rows by which a graph is compared with its student, and their arrays by the names of the graph's inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from attar.data import Data
from attar.signal import Batch, Inputs

__all__ = ["HOLES", "named", "parity_rows", "take"]

ROWS = 1024  # at most; where the validation split is shorter, training rows are added up to ENOUGH
ENOUGH = 256
HOLES = 64  # rows of a table that are asked once more, with values missing and categories never seen


def parity_rows(data: Data) -> Batch:
    """Validation rows, training rows where these are few, and of a table some rows again with values missing."""
    batch = data.valid.batch(torch.arange(min(len(data.valid), ROWS)))
    if len(batch) < ENOUGH:
        more = data.train.batch(torch.arange(min(len(data.train), ENOUGH - len(batch))))
        batch = Batch(_joined(batch.inputs, more.inputs), schema=data.schema)
    if not isinstance(batch.inputs, Tensor):
        batch = Batch(_joined(batch.inputs, _with_holes(take(batch, slice(0, HOLES)).inputs)), schema=data.schema)
    return Batch(batch.inputs, schema=data.schema)


def _with_holes(inputs: Inputs) -> Inputs:
    """The rows with number i mod n and category i mod m missing in row i, and with nothing but missing values in the last."""
    assert not isinstance(inputs, Tensor)
    holed = {}
    for name, block in inputs.items():
        block = block.clone()
        rows = torch.arange(len(block))
        nothing = float("nan") if block.dtype.is_floating_point else 0
        block[rows, rows % block.shape[1]] = nothing
        block[-1] = nothing
        holed[name] = block
    return holed


def named(batch: Batch) -> dict[str, np.ndarray]:
    """A batch's arrays by the names and in the types of the graph's inputs."""
    if isinstance(batch.inputs, Tensor):
        array = batch.inputs.cpu().numpy()
        return {"pixels": array} if array.dtype == np.uint8 else {"inputs": array.astype(np.float32)}
    types = {"numbers": np.float32, "categories": np.int64}
    return {n: batch.inputs[n].cpu().numpy().astype(t) for n, t in types.items() if n in batch.inputs and batch.inputs[n].shape[1]}


def take(batch: Batch, rows: slice) -> Batch:
    inputs = batch.inputs
    taken = inputs[rows] if isinstance(inputs, Tensor) else {n: v[rows] for n, v in inputs.items()}
    return replace(batch, inputs=taken)


def _joined(a: Inputs, b: Inputs) -> Inputs:
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        return torch.cat((a, b))
    assert not isinstance(b, Tensor)
    return {n: torch.cat((a[n], b[n])) for n in a}
