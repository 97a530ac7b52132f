"""The rows by which a graph is compared with its student, and their arrays by the names of the graph's inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from attar.data import Data
from attar.reading import TextFeed, TextModel
from attar.signal import Batch, Inputs, Texts

__all__ = ["HOLES", "Feed", "parity_rows", "take"]

ROWS = 1024  # at most; where the validation split is shorter, training rows are added up to ENOUGH
ENOUGH = 256
ODD_TEXTS = ("", " ", "né 漢字 🙂 ﬁ", "a" * 300, "again and " * 300)
HOLES = 64  # rows of a table that are asked once more, with values missing and categories never seen


def parity_rows(data: Data) -> Batch:
    """Validation rows, training rows where these are few; of a table some rows again with values missing, of text a few odd ones."""
    batch = data.valid.batch(torch.arange(min(len(data.valid), ROWS)))
    if len(batch) < ENOUGH:
        more = data.train.batch(torch.arange(min(len(data.train), ENOUGH - len(batch))))
        batch = Batch(_joined(batch.inputs, more.inputs), schema=data.schema)
    if data.schema.kind == "text":
        batch = Batch(_joined(batch.inputs, {name: Texts(ODD_TEXTS) for name in data.schema.texts}))
    elif not isinstance(batch.inputs, Tensor):
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


@dataclass(frozen=True)
class Feed:
    """A batch → the arrays of a graph's inputs by name, piece by piece, and the graph's answers → rows again. text: of a text model."""

    text: TextFeed | None = None

    @classmethod
    def of(cls, model: nn.Module) -> Feed:
        """As this student reads."""
        return cls(model.feed if isinstance(model, TextModel) else None)

    def pieces(self, batch: Batch) -> list[Tensor]:
        """Positions of rows, as many at a time as the exported folder is going to be asked."""
        return [torch.arange(len(batch))] if self.text is None else self.text.pieces(batch.inputs)

    def arrays(self, batch: Batch) -> dict[str, np.ndarray]:
        """The arrays, in the types of the graph's inputs."""
        if self.text is not None:
            return self.text.arrays(batch.inputs)
        if isinstance(batch.inputs, Tensor):
            array = batch.inputs.cpu().numpy()
            return {"pixels": array} if array.dtype == np.uint8 else {"inputs": array.astype(np.float32)}
        types = {"numbers": np.float32, "categories": np.int64}
        return {n: batch.inputs[n].cpu().numpy().astype(t) for n, t in types.items() if n in batch.inputs and batch.inputs[n].shape[1]}

    def answers(self, raw: np.ndarray, batch: Batch) -> np.ndarray:
        """What the graph answers → one answer for each row of the batch."""
        return raw if self.text is None else self.text.spread(torch.from_numpy(raw), batch.inputs).numpy()


def take(batch: Batch, rows: slice | Tensor) -> Batch:
    inputs = batch.inputs
    taken = inputs[rows] if isinstance(inputs, Tensor) else {n: v[rows] for n, v in inputs.items()}
    return replace(batch, inputs=taken)


def _joined(a: Inputs, b: Inputs) -> Inputs:
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        return torch.cat((a, b))
    assert not isinstance(b, Tensor)
    return {n: Texts([*a[n], *b[n]]) if isinstance(a[n], Texts) else torch.cat((a[n], b[n])) for n in a}
