"""Students of text: begun from a folder, cut out of one, made of its words, or of hashed n-grams."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attar.data import Data
from attar.errors import StudentError
from attar.notation import Node, Space, read, resolve, write
from attar.pretrained.text import Encoder, Pool, load_body, open_folder
from attar.pretrained.transformer import Transformer
from attar.reading import Tokens
from attar.recipe import vocabulary
from attar.signal import Schema, Student, Texts
from attar.sources import taught
from attar.students import hf, ngrams, shrink, static_embedding
from attar.students.ngrams import LinearBag
from attar.students.shrink import spread_over
from attar.students.static_embedding import StaticEmbedding, rank_weights, token_vectors
from attar.task import Task, classification, embedding
from attar.testing.export import check_export
from attar.testing.folders import SPECIAL, small_folder
from attar.testing.students import check_answers, check_builder, check_monotone
from attar.testing.texts import COMMON, WORDS, small_pairs, small_texts
from attar.verbs.search.defaults import settled

VOCABULARY = [word for words in WORDS.values() for word in words] + list(COMMON)
TEXTS, PAIRS = small_texts(200), small_pairs(200)
NUMBERS = Schema("text", texts=("text",), label="stars", label_mean=3.0, label_std=2.0)
VECTORS = Schema("text", texts=("text",), embeds=True)
ROWS = {"text": Texts(["sea1 sea2 wood1", "wood3", "", "sea5 nowhere the1"])}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    at = tmp_path_factory.mktemp("folder")
    return str(small_folder(at / "model", VOCABULARY, layers=4, width=16, heads=4, pooling="mean", normalised=True))


BUILDERS: dict[str, Callable[[str], Student]] = {
    "hf": lambda p: hf(p, max_length=20),
    "hf frozen": lambda p: hf(p, max_length=20, freeze=2),
    "hf config": lambda p: hf(config="bert", layers=1, width=16, heads=2, tokenizer=p, max_length=20),
    "shrink": lambda p: shrink(hf(p, max_length=20), layers=2, heads=2, width=8),
    "static_embedding": lambda p: static_embedding(hf(p), dimensions=6),
    "static_embedding hidden": lambda p: static_embedding(hf(p), dimensions=6, hidden=8),
    "ngrams": lambda p: ngrams(buckets=512),
}
EMBED = ["hf", "hf frozen", "hf config", "shrink", "static_embedding"]


@pytest.mark.parametrize("name", BUILDERS)
def test_a_builder_keeps_the_contract(name: str, path: str) -> None:
    if name == "hf frozen":
        check_answers(BUILDERS[name](path), TEXTS, classification())  # frozen weights get no gradient, see test_freezing
        return
    builder = BUILDERS[name](path)
    if name in ("hf", "shrink"):
        builder = without_chance(builder)
    check_builder(builder, TEXTS, classification())


def without_chance(builder: Student) -> Student:
    """Dropout learns too slowly for a contract of thirty steps."""

    def build(schema: Schema, seed: int) -> nn.Module:
        model = builder(schema, seed)
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        return model

    return build


@pytest.mark.parametrize("name", EMBED)
def test_a_builder_answers_a_vector_for_each_text(name: str, path: str) -> None:
    model = BUILDERS[name](path)(PAIRS.schema, 0).eval()
    check_answers(BUILDERS[name](path), PAIRS, embedding())
    batch = PAIRS.train.batch(torch.arange(40))
    with torch.no_grad():
        both = model(batch.inputs)
        assert both.shape[:2] == (40, 2)
        assert not isinstance(batch.inputs, Tensor)
        swapped = model({"one": batch.inputs["two"], "two": batch.inputs["one"]})
    torch.testing.assert_close(swapped, both.flip(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_regression_is_answered_in_the_unit_of_its_label(name: str, path: str) -> None:
    model = BUILDERS[name](path)(NUMBERS, 0).eval()
    with torch.no_grad():
        output = model(ROWS)
        last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1:]
        for weight in (*last[0].parameters(),) if last else [p for n, p in model.named_parameters() if n in ("net.weight", "net.bias")]:
            weight.zero_()
        assert output.shape == (4, 1)
        assert model(ROWS).flatten().tolist() == pytest.approx([3.0] * 4)  # knowing nothing, it answers the mean


@pytest.mark.parametrize(
    ("name", "data", "task"),
    [("hf frozen", TEXTS, classification()), ("shrink", PAIRS, embedding()), ("static_embedding", PAIRS, embedding()),
     ("ngrams", TEXTS, classification())],
)  # fmt: skip
def test_a_student_exports_with_what_reads_its_texts(name: str, data: Data, task: Task, path: str, tmp_path: Path) -> None:
    check_export(BUILDERS[name](path)(data.schema, 0).eval(), data, task, tmp_path / "student")


@pytest.mark.parametrize("name", BUILDERS)
def test_its_text_reads_back(name: str, path: str) -> None:
    words = {"hf": hf, "shrink": shrink, "static_embedding": static_embedding, "ngrams": ngrams}
    builder = BUILDERS[name](path)
    assert repr(read(repr(builder), words)) == repr(builder)


@pytest.mark.parametrize("name", [n for n in BUILDERS if n != "hf config"])
def test_building_again_reads_nothing_again(name: str, path: str) -> None:
    builder = BUILDERS[name](path)
    one, other = builder(TEXTS.schema, 0), builder(TEXTS.schema, 1)
    assert one.reading is other.reading  # type: ignore[attr-defined] a TextModel
    with torch.no_grad():
        for weight in one.parameters():
            if weight.requires_grad:
                weight.zero_()
    again = builder(TEXTS.schema, 1)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), other.state_dict().values(), strict=True))


def test_more_of_anything_is_more_weights(path: str) -> None:
    def fresh(layers: int = 1, width: int = 12) -> Student:
        return hf(config="bert", tokenizer=path, layers=layers, width=width, heads=1)

    check_monotone([fresh(layers=n) for n in (1, 2, 3)], TEXTS)
    check_monotone([fresh(width=n) for n in (8, 12, 16)], TEXTS)
    check_monotone([shrink(hf(path), layers=n) for n in (1, 2, 4)], TEXTS)
    check_monotone([shrink(hf(path), heads=n) for n in (1, 2, 4)], TEXTS)
    check_monotone([shrink(hf(path), width=n) for n in (4, 8, 16)], TEXTS)
    check_monotone([static_embedding(hf(path), dimensions=n) for n in (2, 4, 8)], TEXTS)
    check_monotone([ngrams(buckets=n) for n in (16, 32, 64)], TEXTS)


# ------------------------------------------------------------------------------------------------------------------------------- hf


def test_what_does_not_go_together_is_refused(path: str) -> None:
    for call, says in (
        (lambda: hf(), "neither is given"),
        (lambda: hf(path, config="bert"), "both is given"),
        (lambda: hf(path, layers=2), r"layers=…\): a folder has its own"),
        (lambda: hf(config="bart", tokenizer=path), "no such architecture here\nhint: did you mean 'bert'"),
        (lambda: hf(config="bert"), "has no tokenizer"),
        (lambda: hf(config="bert", tokenizer=path, freeze=1), "weights of chance would be frozen"),
        (lambda: hf(config="bert", tokenizer=path, width=30, heads=4), "4 heads do not divide 30\nhint: heads=3"),
        (lambda: hf(config="bert", tokenizer=path, layers=0), r"layers=0\): at least 1"),
        (lambda: hf(path, max_length=161)(TEXTS.schema, 0), "numbers up to 160 tokens"),
        (lambda: hf(config="bert", tokenizer="nowhere")(TEXTS.schema, 0), "no tokenizer at nowhere"),
        (lambda: hf(path, max_length=20)(Schema("table"), 0), "reads texts, the data are of the kind 'table'"),
        (lambda: ngrams()(Schema("images"), 0), "reads texts, the data are of the kind 'images'"),
        (lambda: ngrams()(VECTORS, 0), "answers logits, the data ask for vectors"),
    ):
        with pytest.raises(StudentError, match=says):
            call()


def test_only_tokens_of_the_corpus_are_kept(path: str, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("sea1 elsewhere\n", encoding="utf-8")
    (tmp_path / "corpus" / "b.tsv").write_bytes(b"wood1\t1\n\xff broken\n")
    (tmp_path / "corpus" / "long.txt").write_text("sea1 " * 300 + "sea2\n", encoding="utf-8")  # the end of a long line counts, too
    builder = hf(path, max_length=20, vocabulary=str(tmp_path / "corpus"))
    model, whole = builder(TEXTS.schema, 0).eval(), hf(path, max_length=20)(TEXTS.schema, 0).eval()
    assert builder.kept is not None
    assert len(builder.kept) == len(SPECIAL) + 3 == model.reading.vocabulary  # type: ignore[attr-defined] a TextModel
    with torch.no_grad():
        torch.testing.assert_close(model({"text": Texts(["sea1 sea2 wood1"])}), whole({"text": Texts(["sea1 sea2 wood1"])}))
        unknown = whole({"text": Texts(["sea1 elsewhere"])})
        torch.testing.assert_close(model({"text": Texts(["sea1 field1"])}), unknown)  # both are [UNK] to it
    frozen = hf(path, max_length=20, vocabulary=str(tmp_path / "corpus"), freeze=4)(TEXTS.schema, 0).eval()
    with torch.no_grad():
        torch.testing.assert_close(frozen(ROWS), model(ROWS), rtol=1e-4, atol=1e-5)
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    for place, says in ((str(tmp_path / "empty.txt"), "holds no text"), (str(tmp_path / "nowhere"), "nowhere")):
        with pytest.raises(StudentError, match=says):
            hf(path, vocabulary=place)(TEXTS.schema, 0)


# --------------------------------------------------------------------------------------------------------------------------- shrink


def test_layers_are_spread_as_distilbert_spreads_them() -> None:
    assert spread_over(6, 12) == (0, 2, 4, 7, 9, 11)  # extract_distilbert.py
    assert spread_over(3, 6) == (0, 2, 5)
    assert spread_over(2, 6) == (0, 5)
    assert spread_over(1, 6) == (0,)
    assert spread_over(6, 6) == tuple(range(6))


def encoder_of(builder: Student) -> Encoder:
    net = builder(VECTORS, 0).eval().net  # type: ignore[attr-defined] a TextModel
    assert isinstance(net, Encoder)
    return net


def answer(net: Encoder, path: str, texts: tuple[str, ...] = ("sea1 sea2 wood1", "wood3 the1")) -> Tensor:
    with torch.no_grad():
        return net(**{n: torch.from_numpy(a) for n, a in Tokens(open_folder(path).tokenizer, 20).arrays([(t,) for t in texts]).items()})


def test_a_model_of_some_layers_is_the_whole_without_the_others(path: str) -> None:
    whole = load_body(open_folder(path))
    whole.get_submodule("encoder").add_module("layer", nn.ModuleList([whole.get_submodule(f"encoder.layer.{i}") for i in (0, 3)]))
    expected = answer(Encoder(whole, Pool("mean", True)).eval(), path)
    torch.testing.assert_close(answer(encoder_of(shrink(hf(path), layers=2)), path), expected)
    torch.testing.assert_close(answer(encoder_of(shrink(hf(path), layers=[0, 3])), path), expected)


@pytest.mark.parametrize("config", ["bert", "distilbert", "electra", "roberta"])
def test_all_layers_heads_and_channels_are_the_whole(config: str, tmp_path: Path) -> None:
    path = str(small_folder(tmp_path / "model", VOCABULARY, config=config))
    whole = answer(encoder_of(hf(path)), path)
    torch.testing.assert_close(answer(encoder_of(shrink(hf(path), layers=2, heads=2, width=16)), path), whole)


def test_a_head_that_adds_nothing_is_the_first_to_go(path: str) -> None:
    """Heads of zero output are dropped, and the answer stays: the heads that are left are the right ones, in their places."""
    body = load_body(open_folder(path))
    for layer, silent in enumerate(((0, 2), (1, 3), (0, 1), (2, 3))):
        out = body.get_submodule(f"encoder.layer.{layer}.attention.output.dense")
        with torch.no_grad():
            for head in silent:
                out.weight[:, 4 * head : 4 * head + 4] = 0  # type: ignore[index] a weight
    at = Path(path).parent / "silent"
    for name in ("tokenizer.json", "config.json"):
        at.mkdir(exist_ok=True)
        (at / name).write_bytes((Path(path) / name).read_bytes())
    body.save_pretrained(at)  # type: ignore[operator] a transformer
    whole, cut = encoder_of(hf(str(at))), encoder_of(shrink(hf(str(at)), heads=2))
    torch.testing.assert_close(answer(cut, path), answer(whole, path), rtol=1e-4, atol=1e-5)
    assert cut.body.get_submodule("encoder.layer.0.attention.self").num_attention_heads == 2


def test_channels_that_nobody_reads_are_the_first_to_go(path: str) -> None:
    """With two channels of no effect at all, what is left has the answers of the whole: those two, and no other, are gone."""
    body, dead = load_body(open_folder(path)), [3, 11]
    with torch.no_grad():
        for name, weight in body.named_parameters():
            if "LayerNorm" in name or name.endswith("embeddings.weight"):
                weight[..., dead] = 0
            elif name.endswith(("query.weight", "key.weight", "value.weight", "intermediate.dense.weight")):
                weight[:, dead] = 0
    at = Path(path).parent / "dead"
    at.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "config.json"):
        (at / name).write_bytes((Path(path) / name).read_bytes())
    body.save_pretrained(at)  # type: ignore[operator] a transformer
    cut = encoder_of(shrink(hf(str(at)), width=14))
    table, whole = (e.body.get_submodule("embeddings.word_embeddings").weight for e in (cut, encoder_of(hf(str(at)))))
    alive = [i for i in range(16) if i not in dead]
    assert torch.equal(table, whole[:, alive])  # type: ignore[index] a weight
    assert answer(cut, path).shape == (2, 14)


def test_feed_forward_neurons_that_add_nothing_are_the_first_to_go(path: str) -> None:
    cut = encoder_of(shrink(hf(path), width=8))
    up, whole = (e.body.get_submodule("encoder.layer.1.intermediate.dense") for e in (cut, encoder_of(hf(path))))
    down = encoder_of(hf(path)).body.get_submodule("encoder.layer.1.output.dense")
    assert isinstance(up, nn.Linear) and isinstance(whole, nn.Linear) and isinstance(down, nn.Linear)
    strength = [(whole.weight[j].norm() * down.weight[:, j].norm()).item() for j in range(32)]
    kept = sorted(sorted(range(32), key=lambda j: -strength[j])[:16])
    torch.testing.assert_close(up.bias, whole.bias[kept])


def test_what_cannot_be_cut_is_refused(path: str, tmp_path: Path) -> None:
    fresh = hf(config="bert", tokenizer=path)
    for call, says in (
        (lambda: shrink(hf(path), layers=5)(TEXTS.schema, 0), "has 4 layers, 0 to 3\nhint: layers=2"),
        (lambda: shrink(hf(path), layers=[0, 4])(TEXTS.schema, 0), r"layers=\[0, 4\]\): .* has 4 layers"),
        (lambda: shrink(hf(path), layers=[2, 1]), "each once, in order"),
        (lambda: shrink(hf(path), layers=[]), "each once, in order"),
        (lambda: shrink(hf(path), layers=0), "at least 1"),
        (lambda: shrink(hf(path), heads=5)(TEXTS.schema, 0), "has 4 heads in a layer"),
        (lambda: shrink(hf(path), width=17)(TEXTS.schema, 0), "is 16 wide"),
        (lambda: shrink(fresh, layers=1), "nothing to begin from"),
        (lambda: shrink(hf(path, freeze=1), layers=1), "cannot be mended"),
        (lambda: static_embedding(fresh), "weights of chance know no words"),
        (lambda: static_embedding(hf(path, freeze=1)), "no layers to freeze"),
        (lambda: static_embedding(hf(path), dimensions=17)(TEXTS.schema, 0), "answers 16 coordinates"),
    ):
        with pytest.raises(StudentError, match=says):
            call()


# ----------------------------------------------------------------------------------------------------------------- static embedding


def naive_static(path: str, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Model2Vec's recipe, word by word: the encoder's mean over [CLS] word [SEP], PCA over the words, a / (a + p)."""
    encoder = Encoder(load_body(open_folder(path)), Pool("mean", False)).eval()
    vectors = []
    with torch.no_grad():
        for word in range(len(SPECIAL), len(SPECIAL) + len(VOCABULARY)):
            vectors.append(encoder(torch.tensor([[2, word, 3]]), torch.ones(1, 3, dtype=torch.long))[0].double().numpy())
    rows = np.stack(vectors)
    left, singular, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    total = sum(1 / (rank + 2) for rank in range(len(rows)))
    weights = np.array([1e-4 / (1e-4 + 1 / (rank + 2) / total) for rank in range(len(rows))])
    return (left * singular)[:, :dimensions], weights


def test_static_vectors_begin_as_the_recipe_has_it(path: str) -> None:
    net = static_embedding(hf(path), dimensions=5)(VECTORS, 0).net
    assert isinstance(net, StaticEmbedding)
    vectors, weights = naive_static(path, 5)
    found = net.vectors.detach().numpy()
    assert not found[: len(SPECIAL)].any()
    assert not net.weights[: len(SPECIAL)].any()
    np.testing.assert_allclose(found[len(SPECIAL) :] @ found[len(SPECIAL) :].T, vectors @ vectors.T, atol=1e-3)  # signs are free
    np.testing.assert_allclose(net.weights[len(SPECIAL) :].detach().numpy(), weights, rtol=1e-5)


def test_a_static_vector_is_the_mean_of_its_weighted_tokens(path: str) -> None:
    model = static_embedding(hf(path), dimensions=5)(VECTORS, 0).eval()
    net = model.net
    assert isinstance(net, StaticEmbedding)
    place = {word: len(SPECIAL) + i for i, word in enumerate(VOCABULARY)}
    with torch.no_grad():
        for text in ("sea1 sea2 wood1", "wood3", "the1 the1 sea1"):
            ids = [place[word] for word in text.split()]
            expected = sum(net.weights[i] * net.vectors[i] for i in ids) / len(ids)
            torch.testing.assert_close(model({"text": Texts([text])})[0, 0], expected)


def test_weights_of_ranks_fall_from_the_rarest_to_the_most_frequent() -> None:
    weights = rank_weights(1000)
    assert (np.diff(weights) > 0).all()
    assert 0 < weights[0] < weights[-1] < 1


def test_tokens_that_are_no_words_are_told(tmp_path: Path) -> None:
    path = str(small_folder(tmp_path / "model", ["[unused0]", "sea", "wood"]))
    vectors, special = token_vectors(path, open_folder(path).digest, None)
    assert special.tolist() == [True] * (len(SPECIAL) + 1) + [False, False]
    assert vectors.shape == (7, 16)


def test_a_static_student_reads_no_order(path: str) -> None:
    model = static_embedding(hf(path), dimensions=5)(TEXTS.schema, 0).eval()
    torch.testing.assert_close(model({"text": Texts(["sea1 wood1 the1"])}), model({"text": Texts(["the1 sea1 wood1"])}))


# --------------------------------------------------------------------------------------------------------------------------- ngrams


def test_a_bag_is_the_sum_of_its_ngrams_over_the_root_of_their_number() -> None:
    model = ngrams(buckets=1 << 16, words=2)(TEXTS.schema, 0).eval()
    net = model.net
    assert isinstance(net, LinearBag)
    for text in ("good film", "so so good", "film"):
        words = text.split()
        grams = {*words, *(f"{a} {b}" for a, b in pairwise(words))}  # each once
        expected = net.bias.detach().clone()
        for gram in grams:
            bucket = model.reading.arrays([(gram,)])["input_ids"][0, -1]  # of two words the pair comes last
            expected += net.weight.detach()[bucket] / math.sqrt(len(grams))
        torch.testing.assert_close(model({"text": Texts([text])})[0], expected)


def test_words_never_seen_say_next_to_nothing() -> None:
    model = ngrams()(TEXTS.schema, 0).eval()
    assert model({"text": Texts(["surely nobody has seen this"])}).abs().max() < 0.01


def test_an_empty_text_is_answered_by_the_bias() -> None:
    model = ngrams(buckets=64)(TEXTS.schema, 0).eval()
    net = model.net
    assert isinstance(net, LinearBag)
    torch.testing.assert_close(model({"text": Texts([""])})[0], net.bias)


def test_the_builder_is_a_transformers_own() -> None:
    assert isinstance(hf("folder"), Transformer)


# --- what a search tries


def test_auto_begins_students_of_texts_where_their_teacher_does(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(path).parent
    monkeypatch.chdir(tmp_path)
    teacher = taught(hf(os.path.relpath(path), freeze=1, max_length=20), at="teacher.safetensors")
    found = settled({}, vocabulary, TEXTS.schema, classification(), teacher=teacher, base=here)
    said = write(found["student"])
    assert 'static_embedding(hf("model", max_length=20), dimensions=16, hidden=choice(0, 64))' in said
    assert 'shrink(hf("model", max_length=20), layers=integer(1, 3), width=choice(8, 16))' in said
    built: set[str] = set()

    def build(node: Node) -> None:
        student = resolve(node, vocabulary("student"), base=here)
        built.add(type(student).__name__)
        assert student(TEXTS.schema, 0)({"text": Texts(["sea1 wood2"])}).shape == (1, len(TEXTS.schema.classes))

    Space.of(found["student"], "student", vocabulary("student")).check(build)
    assert built == {"Ngrams", "Static", "Shrunk"}


def test_auto_shrinks_the_encoder_whose_vectors_are_asked(path: str) -> None:
    found = settled({}, vocabulary, VECTORS, embedding(), teacher=hf(path))
    assert write(found["student"]) == f'shrink(hf("{path}", max_length=128), layers=integer(1, 3))'
    assert write(found["objective"]) == "cosine()"
    assert write(found["fit"]) == "fit(lr=log(5e-05, 0.001))"
