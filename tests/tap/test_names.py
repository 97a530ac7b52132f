"""Names that mean the same in every model."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attar.errors import TapError
from attar.signal import Batch, Column, Schema
from attar.students import cnn, mlp
from attar.tap import observe, resolve, taps_of

TOKENS = {"input_ids": torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7]]), "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])}
REAL = TOKENS["attention_mask"].bool()
BLOCKS = 4
SIZES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "electra": {"embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": BLOCKS, "n_heads": 2, "hidden_dim": 32},
    "albert": {"embedding_size": 8, "num_hidden_groups": 2},
    "mobilebert": {},
    "mpnet": {},
    "deberta-v2": {"relative_attention": True},
    "modernbert": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "nomic_bert": {},
}
POSITIONAL = ("mpnet", "deberta-v2", "modernbert", "nomic_bert")  # their attention is more than q·k


class Wrapped(nn.Module):
    """A model of a library, as one that answers with a tensor."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        answer = self.backbone(**inputs)
        return answer["logits"] if "logits" in answer else answer[0][:, 0]


@cache
def encoder(kind: str, *, head: bool = False, attention: str = "eager") -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "max_position_embeddings": 32} | SIZES[kind]
    if kind != "distilbert":
        sizes |= {"hidden_size": 16, "num_hidden_layers": BLOCKS, "num_attention_heads": 2, "intermediate_size": 32}
    auto = transformers.AutoModelForSequenceClassification if head else transformers.AutoModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return auto.from_config(transformers.AutoConfig.for_model(kind, **sizes), attn_implementation=attention).eval()


@pytest.mark.parametrize("kind", SIZES)
def test_hidden_states_are_those_the_library_tells(kind: str) -> None:
    model = encoder(kind)
    with torch.no_grad():
        signal = observe(Wrapped(model), Batch(TOKENS), frozenset({f"hidden.{k}" for k in range(BLOCKS + 1)} | {"hidden", "embedding"}))
        told = model(**TOKENS, output_hidden_states=True)
    states = list(told.hidden_states)
    if kind == "modernbert":  # the library counts the last normalisation to the last block
        states[-1] = signal.taps[f"hidden.{BLOCKS}"]
        assert torch.allclose(model.get_submodule("final_norm")(states[-1]), told.last_hidden_state, atol=1e-6)
    for k, state in enumerate(states):
        assert torch.allclose(signal.taps[f"hidden.{k}"], state, atol=1e-6), k
    assert torch.allclose(signal.taps["hidden"], told.last_hidden_state, atol=1e-6)
    mean = torch.stack([row[real].mean(0) for row, real in zip(told.last_hidden_state, REAL, strict=True)])
    assert torch.allclose(signal.taps["embedding"], mean, atol=1e-6)
    assert set(signal.masks) == set(signal.taps) - {"embedding"}
    assert all(torch.equal(mask, REAL) for mask in signal.masks.values())


@pytest.mark.parametrize("kind", [k for k in SIZES if k not in POSITIONAL])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_what_softmax_makes_of_the_scores(kind: str, attention: str) -> None:
    taps = frozenset(f"attention.{k}" for k in range(1, BLOCKS + 1))
    with torch.no_grad():
        signal = observe(Wrapped(encoder(kind, attention=attention)), Batch(TOKENS), taps)
        told = encoder(kind)(**TOKENS, output_attentions=True).attentions
    for k, expected in enumerate(told, 1):
        scores = signal.taps[f"attention.{k}"]
        assert bool(torch.isfinite(scores).all())
        real = signal.masks[f"attention.{k}"]
        assert torch.allclose(scores.masked_fill(~real[:, None, None], -torch.inf).softmax(-1), expected, atol=1e-5)


@pytest.mark.parametrize("kind", POSITIONAL)
def test_attention_that_is_more_than_queries_and_keys_is_refused(kind: str) -> None:
    model = Wrapped(encoder(kind))
    with pytest.raises(TapError, match="is not the attention of .*position|is not the attention of .*distance") as caught:
        observe(model, Batch(TOKENS), frozenset({"attention.1"}))
    assert "query.k" in caught.value.hint
    assert not any(name.startswith("attention") for name in taps_of(model))
    signal = observe(model, Batch(TOKENS), frozenset({"query.1", "key.1", "value.-1"}))
    assert {tuple(tap.shape) for tap in signal.taps.values()} == {(2, 4, 16)}


def test_queries_keys_and_values_of_one_layer_are_told_apart() -> None:
    model = encoder("modernbert")
    signal = observe(Wrapped(model), Batch(TOKENS), frozenset({"query.2", "key.2", "value.2", "backbone.layers.1.attn.Wqkv"}))
    joined = torch.cat([signal.taps[name] for name in ("query.2", "key.2", "value.2")], -1)
    assert torch.equal(joined, signal.taps["backbone.layers.1.attn.Wqkv"])


@pytest.mark.parametrize(
    ("kind", "path"), [("bert", "classifier"), ("roberta", "classifier.out_proj"), ("distilbert", "classifier"), ("albert", "classifier")]
)
def test_the_embedding_of_a_classifier_is_what_its_last_layer_reads(kind: str, path: str) -> None:
    model = encoder(kind, head=True)
    assert taps_of(Wrapped(model))["embedding"] == (f"backbone.{path}:in",)
    signal = observe(Wrapped(model), Batch(TOKENS), frozenset({"embedding"}))
    assert torch.allclose(model.get_submodule(path)(signal.taps["embedding"]), signal.output)


def test_gradients_reach_what_made_the_scores() -> None:
    model = encoder("bert", attention="sdpa")
    observe(Wrapped(model), Batch(TOKENS), frozenset({"attention.2"})).taps["attention.2"].square().sum().backward()
    for path in ("encoder.layer.1.attention.self.query.weight", "encoder.layer.0.attention.self.value.weight"):
        pull = model.get_parameter(path).grad
        assert pull is not None
        assert bool(pull.any())
    model.zero_grad()


@pytest.mark.parametrize("name", ["hidden.5", "hidden.-6", "attention.0", "attention.5", "query.-5", "value.99"])
def test_a_block_beyond_the_model_says_how_many_there_are(name: str) -> None:
    with pytest.raises(TapError, match=f"Wrapped has {BLOCKS} blocks, and no '{name}'") as caught:
        observe(Wrapped(encoder("bert")), Batch(TOKENS), frozenset({name}))
    kind = name.partition(".")[0]
    assert f"{kind}.{int(kind != 'hidden')} to {kind}.{BLOCKS}" in caught.value.hint


def test_blocks_are_counted_from_the_end_too() -> None:
    model = Wrapped(encoder("bert"))
    assert resolve(model, "hidden.-1") == resolve(model, f"hidden.{BLOCKS}") == (f"backbone.encoder.layer.{BLOCKS - 1}",)
    assert resolve(model, "attention.-1") == resolve(model, f"attention.{BLOCKS}")
    assert resolve(model, f"hidden.-{BLOCKS + 1}") == resolve(model, "hidden.0") == ("backbone.encoder.layer.0:in",)


def test_a_shared_block_is_read_run_by_run() -> None:
    model = encoder("albert")
    assert resolve(model, "hidden.1") == ("encoder.albert_layer_groups.0.albert_layers.0#0",)
    assert resolve(model, "hidden.4") == ("encoder.albert_layer_groups.1.albert_layers.0#1",)
    with pytest.raises(TapError, match="is a run of a shared block already"):
        resolve(model, "hidden.1#0")


def test_a_name_has_no_input_and_no_items() -> None:
    for tap in ("hidden.1:in", "embedding[0]"):
        with pytest.raises(TapError, match="is a name, which has no :in") as caught:
            resolve(encoder("bert"), tap)
        assert "encoder.layer" in caught.value.hint


class Twice(nn.Module):
    """One encoder, asked for each of two texts."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.net(**inputs)[0][:, 0] - self.net(inputs["input_ids"].flip(0))[0][:, 0]


def test_an_encoder_that_is_run_twice_wants_to_know_which_run() -> None:
    model = Twice(encoder("bert"))
    with pytest.raises(TapError, match="is run 2 times") as caught:
        observe(model, Batch(TOKENS), frozenset({"hidden"}))
    assert "#0" in caught.value.hint
    signal = observe(model, Batch(TOKENS), frozenset({"hidden#0", "hidden#1", "attention.1#1"}))
    assert torch.allclose(signal.output, signal.taps["hidden#0"][:, 0] - signal.taps["hidden#1"][:, 0])


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = encoder("bert"), encoder("electra")

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.left(**inputs)[0][:, 0] - self.right(**inputs)[0][:, 0]


def test_a_name_that_two_parts_have_is_nobodys() -> None:
    model = Towers()
    assert taps_of(model) == {}
    with pytest.raises(TapError, match="no module at 'hidden'"):
        resolve(model, "hidden")
    assert observe(model, Batch(TOKENS), frozenset({"left.encoder.layer.0"})).taps["left.encoder.layer.0"].shape == (2, 4, 16)


@cache
def of_timm(name: str, **sizes: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False, num_classes=3, **sizes).eval()


def pixels(side: int = 64) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "efficientnet_lite0", "convnext_atto"])
def test_stages_of_timm_are_the_features_it_tells(name: str) -> None:
    model, x = of_timm(name), pixels()
    with torch.no_grad():
        signal = observe(model, Batch(x), frozenset({"stage1", "stage2", "stage3", "stage4", "embedding"}))
        told = [f for f in model.forward_intermediates(x, intermediates_only=True) if f.shape[-1] <= 16]  # pyright: ignore[reportCallIssue]  timm's
    assert len(told) == 4
    for i, feature in enumerate(told, 1):
        assert feature.shape[-1] == 64 // 2 ** (i + 1)
        assert torch.allclose(signal.taps[f"stage{i}"], feature, atol=1e-4), i
    assert torch.allclose(model.get_classifier()(signal.taps["embedding"]), signal.output, atol=1e-5)  # pyright: ignore[reportCallIssue]  timm's
    assert "stage5" not in taps_of(model)


SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 5, "num_heads": 2}


def test_blocks_of_a_vision_transformer_are_those_it_tells() -> None:
    model, x = of_timm("vit_tiny_patch16_224", **SMALL_VIT), pixels(32)
    with torch.no_grad():
        signal = observe(model, Batch(x), frozenset(taps_of(model)))
        told = model.forward_intermediates(x, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True)  # pyright: ignore[reportCallIssue]  timm's
        whole = model.forward_features(x)  # pyright: ignore[reportCallIssue]  timm's
    for k, (patches, prefix) in enumerate(told, 1):
        assert torch.allclose(signal.taps[f"hidden.{k}"], torch.cat((prefix, patches), 1), atol=1e-6)
    assert torch.allclose(signal.taps["hidden"], whole, atol=1e-6)
    assert torch.allclose(signal.taps["embedding"], whole[:, 0], atol=1e-6)
    assert not signal.masks
    assert [resolve(model, f"stage{i}") for i in range(1, 5)] == [("blocks.1",), ("blocks.2",), ("blocks.3",), ("blocks.4",)]


@pytest.mark.parametrize("norm", [False, True])
def test_attention_of_a_vision_transformer_is_what_its_values_are_mixed_by(norm: bool) -> None:
    model, x = of_timm("vit_tiny_patch16_224", **SMALL_VIT, qk_norm=norm), pixels(32)
    with torch.no_grad():
        signal = observe(model, Batch(x), frozenset({"attention.3", "value.3", "blocks.2.attn.proj:in"}))
    values = signal.taps["value.3"].unflatten(-1, (2, 8)).transpose(1, 2)
    mixed = (signal.taps["attention.3"].softmax(-1) @ values).transpose(1, 2).flatten(2)
    assert torch.allclose(mixed, signal.taps["blocks.2.attn.proj:in"], atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_attention_of_torchvision_is_what_its_values_are_mixed_by(training: bool) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.VisionTransformer(image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32).train(training)
    paths = {"attention.2", "value.2", "encoder.layers.encoder_layer_1.self_attention[0]", "embedding", "hidden", "query.1"}
    signal = observe(model, Batch(pixels(32)), frozenset(paths))
    values = signal.taps["value.2"].unflatten(-1, (2, 8)).transpose(1, 2)
    mixed = (signal.taps["attention.2"].softmax(-1) @ values).transpose(1, 2).flatten(2)
    out = model.encoder.layers[1].self_attention.out_proj(mixed)
    assert torch.allclose(out, signal.taps["encoder.layers.encoder_layer_1.self_attention[0]"], atol=1e-5)
    assert torch.allclose(signal.taps["embedding"], signal.taps["hidden"][:, 0])


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "mobilenet_v2"])
def test_stages_of_torchvision_lie_at_the_same_strides(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    model = getattr(models, name)(weights=None, num_classes=3).eval()
    with torch.no_grad():
        signal = observe(model, Batch(pixels()), frozenset(taps_of(model)))
    assert set(signal.taps) == {"stage1", "stage2", "stage3", "stage4", "embedding"}
    assert [signal.taps[f"stage{i}"].shape[2] for i in range(1, 5)] == [16, 8, 4, 2]
    (at,) = resolve(model, "embedding")
    assert torch.allclose(model.get_submodule(at.removesuffix(":in"))(signal.taps["embedding"]), signal.output, atol=1e-5)


def test_a_model_that_answers_in_rows_and_columns_is_turned_to_channels_first() -> None:
    sizes = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    signal = observe(of_timm("swin_tiny_patch4_window7_224", **sizes), Batch(pixels()), frozenset({"stage1", "stage4"}))
    assert signal.taps["stage1"].shape == (2, 8, 16, 16)
    assert signal.taps["stage4"].shape == (2, 64, 2, 2)


def test_efficientnet_lite_of_its_package_has_stages() -> None:
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    model = lite.EfficientNet.from_name("efficientnet-lite0").eval()
    with torch.no_grad():
        signal = observe(model, Batch(pixels(224)[:1]), frozenset(taps_of(model)))
    assert [tuple(signal.taps[f"stage{i}"].shape[1:]) for i in range(1, 5)] == [(24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)]
    assert signal.taps["embedding"].shape == (1, 1280)


TABLE = Schema("table", (Column("age", "number"), Column("debt", "number")), classes=("no", "yes"))
IMAGES = Schema("images", shape=(1, 16, 16), classes=("no", "yes"))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_perceptron_has_a_hidden_state_for_each_layer(dropout: float) -> None:
    net = mlp(width=6, depth=3, dropout=dropout)(TABLE, 0).eval()
    batch = Batch({"numbers": torch.randn(4, 2, generator=torch.Generator().manual_seed(0))})
    assert set(taps_of(net)) == {"hidden", "hidden.0", "hidden.1", "hidden.2", "hidden.3", "embedding"}
    signal = observe(net, batch, frozenset(taps_of(net)) | {"hidden.-1"})
    assert signal.taps["hidden.0"].shape == (4, 2)
    for k in range(1, 4):
        assert signal.taps[f"hidden.{k}"].shape == (4, 6)
        assert bool((signal.taps[f"hidden.{k}"] >= 0).all())
    for name in ("hidden", "hidden.-1", "embedding"):
        assert torch.equal(signal.taps[name], signal.taps["hidden.3"])
    assert torch.equal(net.get_submodule("head")(signal.taps["embedding"]), signal.output)


def test_a_small_cnn_has_a_stage_for_each_convolution() -> None:
    net = cnn(width=4, depth=3)(IMAGES, 0).eval()
    signal = observe(net, Batch(torch.zeros(2, 1, 16, 16, dtype=torch.uint8)), frozenset(taps_of(net)))
    assert {name: tuple(tap.shape[1:]) for name, tap in signal.taps.items()} == {
        "stage1": (4, 8, 8),
        "stage2": (8, 4, 4),
        "stage3": (16, 2, 2),
        "embedding": (16,),
    }
    assert torch.allclose(signal.taps["stage3"].mean((2, 3)), signal.taps["embedding"])


class Own(nn.Module):
    """A model that says where things are, over one that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn(width=4, depth=2)(IMAGES, 0)
        self.neck = nn.Linear(2, 2)

    def tap_names(self) -> dict[str, str]:
        return {"embedding": "neck:in"}

    def forward(self, inputs: Tensor) -> Tensor:
        return self.neck(self.net(inputs))


def test_what_a_model_says_of_itself_wins_over_its_parts() -> None:
    assert taps_of(Own()) == {"embedding": ("neck:in",), "stage1": ("net.features.2",), "stage2": ("net.features.5",)}


def test_a_name_no_model_has_is_a_path_and_an_unknown_one_names_both() -> None:
    net = nn.Sequential()
    net.add_module("embedding", nn.Linear(3, 2))
    assert resolve(net, "embedding") == ("embedding",)
    with pytest.raises(TapError, match="no module at 'stage9' in Own") as caught:
        resolve(Own(), "stage9")
    assert "'stage1'" in caught.value.hint
    with pytest.raises(TapError, match="no module at 'hiden.1'") as caught:
        resolve(encoder("bert"), "hiden.1")
    assert "'hidden.1'" in caught.value.hint


def test_one_block_is_not_blocks() -> None:
    net = mlp(width=4, depth=1)(Schema("table", (Column("age", "number"),), classes=("no", "yes")), 0)
    with pytest.raises(TapError, match="Perceptron has 1 block, and no 'hidden.2'"):
        resolve(net, "hidden.2")
