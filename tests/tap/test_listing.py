"""The names of a model as lines to read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attar.reading import TextModel
from attar.signal import Batch, Column, Schema
from attar.students import mlp
from attar.tap import listing, observe
from attar.testing.texts import small_pairs, small_text_model

TABLE = Schema("table", (Column("age", "number"), Column("debt", "number")), classes=("no", "yes"))


def test_blocks_alike_are_one_line_and_columns_are_aligned() -> None:
    net, batch = mlp(width=6, depth=3)(TABLE, 0).eval(), Batch({"numbers": torch.zeros(3, 2)})
    assert listing(net, lambda taps: observe(net, batch, taps), 3) == [
        "hidden               (B, 6)  hidden",
        "hidden.0             (B, 2)  hidden:in",
        "hidden.1 … hidden.3  (B, 6)  hidden.*",
        "embedding            (B, 6)  head:in",
    ]


class Reader(nn.Module):
    def __init__(self, times: int = 1) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
        kinds = {1: ("bert", sizes), 2: ("bert", sizes), 0: ("modernbert", sizes | special)}
        kind, how = kinds[times]
        self.net, self.times = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **how)).eval(), times

    def forward(self, ids: Tensor) -> Tensor:
        answers = [self.net(input_ids=ids, attention_mask=(ids > 0).long())[0][:, 0] for _ in range(self.times or 1)]
        return answers[-1]


IDS = torch.tensor([[1, 2, 3, 4, 0], [4, 5, 6, 0, 0], [7, 8, 9, 9, 9]])


def test_tokens_have_a_letter_and_what_is_computed_has_its_sources() -> None:
    net = Reader()
    lines = listing(net, lambda taps: observe(net, Batch(IDS), taps), 3)
    assert "attention.1 … attention.2  (B, 2, L, L)  net.encoder.layer.*.attention.self.{query, key}" in lines
    assert "hidden.1 … hidden.2        (B, L, 16)    net.encoder.layer.*" in lines


def test_what_cannot_be_read_has_its_reason_once_for_all_blocks() -> None:
    net = Reader(times=2)
    lines = listing(net, lambda taps: observe(net, Batch(IDS), taps), 3)
    assert "hidden.1 … hidden.2        'net.encoder.layer.0' is run 2 times for one answer" in lines
    net = Reader(times=0)
    assert listing(net, lambda taps: observe(net, Batch(IDS), taps), 3)[-1].startswith("attention            q kᵀ/√d is not the attention")


def test_two_texts_of_a_row_that_are_read_by_themselves_are_two_times_as_many() -> None:
    class Told(TextModel):
        def tap_names(self) -> dict[str, str]:
            return {"embedding": "net.head:in"}

    data = small_pairs(40)
    plain = small_text_model(data.schema)
    model = Told(plain.reading, plain.net, data.schema.texts, each=True).eval()
    batch = data.train.batch(torch.arange(3))
    assert listing(model, lambda taps: observe(model, batch, taps), 3) == ["embedding  (2B, 12)  net.head:in"]
