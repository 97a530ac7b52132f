from __future__ import annotations

import torch

from attar.signal import Batch, Column, Schema, Signal, Source


def test_a_batch_is_as_long_as_its_rows() -> None:
    assert len(Batch(torch.zeros(5, 3))) == 5
    assert len(Batch({"categories": torch.zeros(4, 2, dtype=torch.int64)})) == 4


def test_a_batch_moves_whole() -> None:
    schema = Schema("table")
    batch = Batch({"numbers": torch.zeros(2, 1)}, labels=torch.tensor([0, 1]), ids=torch.tensor([7, 8]), schema=schema).to("meta")
    assert not isinstance(batch.inputs, torch.Tensor)
    assert batch.inputs["numbers"].device.type == "meta"
    assert batch.labels is not None
    assert batch.labels.device.type == "meta"
    assert batch.weight is None
    assert batch.schema is schema


def test_columns_are_dealt_into_two_blocks_in_their_order() -> None:
    schema = Schema("table", columns=(Column("a", "number"), Column("b", "category", ("x",)), Column("c", "boolean")))
    assert [c.name for c in schema.numbers] == ["a", "c"]
    assert [c.name for c in schema.categories] == ["b"]


def test_whoever_answers_is_a_source() -> None:
    class Constant:
        fingerprint = "constant"

        def __call__(self, batch: Batch, taps: frozenset[str] = frozenset()) -> Signal:
            return Signal(torch.zeros(len(batch), 2))

        def prepare(self, batch: Batch):
            return lambda: None

    assert isinstance(Constant(), Source)
    assert not isinstance(torch.nn.Linear(1, 1), Source)
