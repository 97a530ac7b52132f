"""A student of text ships with what reads its texts, and the folder answers raw strings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attar.data import Data
from attar.data.base import assemble
from attar.errors import TeacherError
from attar.guards import guard
from attar.reading import Bags, TextModel, Tokens
from attar.signal import Batch, Schema, Texts
from attar.sources.onnx import onnx
from attar.task import task_for
from attar.testing.export import check_export
from attar.verbs.export import export
from attar.verbs.export.graph import quiet

WORDS = ["good", "bad", "film", "plot", "never", "again", "a", "fine", "mess", "and", "so", "on"]


class Mean(nn.Module):
    """The mean of token vectors, then a layer."""

    def __init__(self, vocabulary: int, outcomes: int) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(vocabulary, 8), nn.Linear(8, outcomes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask.unsqueeze(-1).float()
        return self.head((self.table(input_ids) * real).sum(1) / real.sum(1).clamp(min=1))


def tokens(max_length: int = 16) -> Tokens:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1} | {w: i + 2 for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return Tokens(made.to_str(), max_length)


def sentences(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 9))) + f" {i}" for i in range(count)]


def data(names: tuple[str, ...] = ("text",), embeds: bool = False) -> Data:
    count, random = 200, np.random.default_rng(0)
    columns = {name: Texts(sentences(count, seed)) for seed, name in enumerate(names)}
    schema = Schema("text", texts=names, classes=() if embeds else ("no", "yes"), embeds=embeds)
    labels = torch.from_numpy(random.random(count).astype(np.float32)) if embeds else torch.from_numpy(random.integers(0, 2, count))
    part = np.arange(count) % 4
    rows = lambda at: lambda index: {n: c[torch.from_numpy(at)][index] for n, c in columns.items()}  # noqa: E731 one line of plumbing
    kind = "embedding" if embeds else "classification"
    return assemble(schema=schema, kind=kind, ids=np.arange(count), labels=labels, weight=None, part=part, rows=rows)


@pytest.mark.parametrize("reading", [tokens(), Bags(buckets=50)], ids=["tokens", "bags"])
def test_a_classifier_of_text_keeps_the_contract(reading: Tokens | Bags, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = data()
    model = TextModel(reading, Mean(64, 2))
    exported = check_export(model, rows, task_for(rows.schema), tmp_path / "student")
    assert {p.name for p in exported.folder.iterdir()} - {"tokenizer.json"} == {*exported.files, "student.json"}


def test_two_texts_are_read_as_a_pair(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = data(("premise", "claim"))
    check_export(TextModel(tokens(), Mean(64, 2), ("premise", "claim")), rows, task_for(rows.schema), tmp_path / "student")


def test_an_encoder_answers_each_text_and_zeros_where_there_is_none(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = data(("one", "two"), embeds=True)
    model = TextModel(tokens(), Mean(64, 5), ("one", "two"), each=True)
    exported = check_export(model, rows, task_for(rows.schema, "embedding"), tmp_path / "student")
    asked = Batch({"one": Texts(["good film", "bad"]), "two": Texts(["", "never again"])}, schema=rows.schema)
    answer = exported.source(asked).output
    assert answer.shape == (2, 2, 5)
    assert not answer[0, 1].any()
    torch.testing.assert_close(answer, model(asked.inputs), atol=1e-5, rtol=1e-5)


def test_many_texts_are_answered_by_pieces_as_they_are_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    rows = data(("one", "two"), embeds=True)
    model = TextModel(tokens(), Mean(64, 5), ("one", "two"), each=True).eval()
    texts = {
        "one": Texts([" ".join(WORDS[: 1 + i % 9]) for i in range(300)]),
        "two": Texts(["" if i % 3 else "bad plot" for i in range(300)]),
    }
    at_once = model.feed.spread(model.net(**model.tensors(texts)), texts)
    torch.testing.assert_close(model(texts), at_once)
    with torch.no_grad():
        torch.testing.assert_close(model(texts), at_once)
    source = export(model, rows, at=tmp_path / "student").source
    asked = Batch(texts, schema=rows.schema)
    torch.testing.assert_close(source(asked).output, at_once.detach(), atol=1e-5, rtol=1e-5)
    counts: list[int] = []
    answer = source._answer
    monkeypatch.setattr(source, "_answer", lambda arrays: (counts.append(len(arrays["input_ids"])), answer(arrays))[1])
    call = source.prepare(asked)
    torch.testing.assert_close(call(), at_once.detach(), atol=1e-5, rtol=1e-5)
    assert len(counts) > 1, "a cost is measured of other questions than are asked"
    nothing = Batch({"one": Texts([""]), "two": Texts([""])}, schema=rows.schema)
    assert source(nothing).output.shape == (1, 2, 5)
    assert not source(nothing).output.any()


def test_a_tokenizer_changed_after_export_is_refused(tmp_path: Path) -> None:
    rows = data()
    folder = export(TextModel(tokens(), Mean(64, 2)), rows, at=tmp_path / "student").folder
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("good", "evil"))
    with pytest.raises(TeacherError, match=r"tokenizer\.json was changed after export"):
        onnx(str(folder))
    path.unlink()
    with pytest.raises(TeacherError, match=r"tokenizer\.json is missing"):
        onnx(str(folder))


def test_other_texts_than_the_student_was_made_for_are_refused(tmp_path: Path) -> None:
    source = export(TextModel(tokens(), Mean(64, 2)), data(), at=tmp_path / "student").source
    other = data(("body",))
    with pytest.raises(TeacherError, match="reads the texts text, the data have body"):
        source(other.test.batch(torch.arange(2)))


def test_a_graph_of_token_states_is_pooled_over_real_tokens(tmp_path: Path) -> None:
    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(64, 4)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.table(input_ids) * attention_mask.unsqueeze(-1).clamp(min=1)  # padded tokens answer too

    torch.manual_seed(0)
    net, reading = States().eval(), tokens()
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", min=2)}
    arrays = reading.arrays([("good film",), ("bad",)])
    given = tuple(torch.from_numpy(a) for a in arrays.values())
    with quiet():
        program = torch.onnx.export(net, given, dynamo=True, dynamic_shapes=(free, free), input_names=list(arrays), verbose=False)
    assert program is not None
    program.save(tmp_path / "encoder.onnx")
    (tmp_path / "tokenizer.json").write_text(reading.definition)
    source = onnx(str(tmp_path / "encoder.onnx"), tokenizer=str(tmp_path))
    asked = Batch({"text": Texts(["good film", "bad"])}, schema=Schema("text", texts=("text",), embeds=True))
    expected = torch.stack([net.table.weight[2] + net.table.weight[4], 2 * net.table.weight[3]]).unsqueeze(1) / 2
    torch.testing.assert_close(source(asked).output, expected.detach(), atol=1e-6, rtol=1e-6)
    assert source.fingerprint != onnx(str(tmp_path / "encoder.onnx"), tokenizer=str(tmp_path), max_length=4).fingerprint


def test_what_a_text_costs_includes_reading_it(tmp_path: Path) -> None:
    rows = data()
    source = export(TextModel(tokens(), Mean(64, 2)), rows, at=tmp_path / "student").source
    batch = rows.test.batch(torch.arange(3))
    call = source.prepare(batch)
    reading = source._text.reading  # type: ignore[union-attr]  # the one that tokenises
    assert isinstance(reading, Tokens)
    reading._memo.clear()
    torch.testing.assert_close(call(), source(batch).output)
    reading._memo.clear()
    call()
    assert not reading._memo, "what was read before is used again"
    assert source.size_bytes == sum(p.stat().st_size for p in source.file.parent.iterdir() if p.name in ("student.onnx", "tokenizer.json"))
    assert json.loads((source.file.parent / "student.json").read_text())["text"]["names"] == ["text"]


def test_a_guard_answers_texts_in_their_order_however_they_were_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = data()
    asked = guard(epsilon=0.6, target="labels", per="all")  # labels are coins: only the machinery is of interest
    source = export(TextModel(tokens(), Mean(64, 2)), rows, at=tmp_path / "student", guard=asked).source
    batch = rows.test.batch(torch.arange(len(rows.test)))
    many = Batch({"text": Texts([*batch.inputs["text"]] * 4)}, schema=rows.schema)  # pyright: ignore[reportArgumentType] read by its name
    found = source.guarded(many)
    torch.testing.assert_close(found.output, source(many).output)
    torch.testing.assert_close(found.confidence, found.output.softmax(-1).amax(-1))
    limits = torch.from_numpy(source.promise.limits)
    assert torch.equal(found.answer, found.confidence >= limits[found.output.argmax(-1)])
    assert len(source.prepare_guarded(many)()) > 1  # in pieces
