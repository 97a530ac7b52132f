"""Where the vision models of timm, torchvision and efficientnet_lite_pytorch have what the names mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from attar.tap.grammar import Read
from attar.tap.spots import Finish, Names, Spot, one, part, scores

__all__ = ["vision_names"]

FIRST = 4  # the stride of stage1: before it there is a stem, which not every net has
QUARTERS = 4  # a vision transformer has no stages; quarters of its blocks stand in for them


def vision_names(model: nn.Module) -> Names | None:
    """The names of an image model; None of anything else."""
    library, kinds = type(model).__module__.partition(".")[0], {c.__name__ for c in type(model).__mro__}
    if library == "timm":
        return _timm_vit(model) if "VisionTransformer" in kinds else _timm(model)
    if library == "torchvision":
        return _torchvision_vit(model) if "VisionTransformer" in kinds else _torchvision(model)
    if library == "efficientnet_lite_pytorch" and "EfficientNet" in kinds:
        stem, blocks = model.get_submodule("_conv_stem"), model.get_submodule("_blocks")
        return Names({**_stages(_strided("_blocks", blocks, _stride(stem))), "embedding": one("_fc", into=True)})
    return None


def _timm(model: nn.Module) -> Names | None:
    """timm says itself which modules end a stage."""
    told = vars(model).get("feature_info")
    if not isinstance(told, list):
        return None
    found = [(int(one["reduction"]), str(one["module"])) for one in told if one.get("module")]
    strides = [stride for stride, _ in found]
    spots: dict[str, Spot] = {}
    if strides == sorted(set(strides)):
        spots = _stages(dict(found), channels_last=vars(model).get("output_fmt") == "NHWC")
    return Names({**spots, **_timm_embedding(model)})


def _timm_embedding(model: nn.Module) -> dict[str, Spot]:
    heads: Any = attrgetter("get_classifier")(model)()
    head = heads[0] if isinstance(heads, tuple) else heads  # DeiT has one for each of its two tokens; the class token's comes first
    path = next((path for path, module in model.named_modules() if module is head), "")
    return {"embedding": Spot((Read(path, into=True),), _flat)} if path else {}


def _timm_vit(model: nn.Module) -> Names:
    blocks = list(model.get_submodule("blocks").children())
    paths = [f"blocks.{i}" for i in range(len(blocks))]
    spots = {**_tokens(paths, "norm"), **_timm_embedding(model)}
    refused: dict[str, str] = {}
    for k, (path, block) in enumerate(zip(paths, blocks, strict=True), 1):
        attention = dict(block.named_children()).get("attn")
        if type(attention).__name__ != "Attention":
            refused = {"attention": f"block {k} has a {type(attention).__name__}, whose scores are not q kᵀ/√d alone"}
            continue
        for i, name in enumerate(("query", "key", "value")):
            spots[f"{name}.{k}"] = Spot((Read(f"{path}.attn.qkv"),), part(i, of=3))
        normed = (Read(f"{path}.attn.q_norm"), Read(f"{path}.attn.k_norm"))  # (B, heads, L, d): what meets, normalised or not
        spots[f"attention.{k}"] = Spot(normed, scores(0))
    return Names(spots, len(blocks), refused)


def _torchvision(model: nn.Module) -> Names | None:
    kind = type(model).__name__
    if kind == "ResNet":
        return Names({**{f"stage{i}": one(f"layer{i}") for i in range(1, 5)}, "embedding": one("fc", into=True)})
    if kind == "RegNet":
        return Names({**{f"stage{i}": one(f"trunk_output.block{i}") for i in range(1, 5)}, "embedding": one("fc", into=True)})
    if kind in ("MobileNetV2", "MobileNetV3", "EfficientNet", "ConvNeXt"):
        spots = _stages(_strided("features", model.get_submodule("features")))
        classifier = model.get_submodule("classifier")
        layers = [name for name, layer in classifier.named_children() if isinstance(layer, nn.Linear)]
        return Names({**spots, "embedding": one(f"classifier.{layers[-1]}", into=True)} if layers else spots)
    return None


def _torchvision_vit(model: nn.Module) -> Names:
    blocks = dict(model.get_submodule("encoder.layers").named_children())
    paths = [f"encoder.layers.{name}" for name in blocks]
    spots = {**_tokens(paths, "encoder.ln"), "embedding": one("heads.head", into=True)}
    for k, (path, block) in enumerate(zip(paths, blocks.values(), strict=True), 1):
        attention = block.get_submodule("self_attention")
        assert isinstance(attention, nn.MultiheadAttention)
        read = (Read(f"{path}.self_attention", into=True),)
        for i, name in enumerate(("query", "key", "value")):
            spots[f"{name}.{k}"] = Spot(read, _projected(attention, i))
        spots[f"attention.{k}"] = Spot(read, _scored(attention))
    return Names(spots, len(blocks))


def _projected(attention: nn.MultiheadAttention, index: int) -> Finish:
    """PyTorch's attention projects inside one function, out of reach of a hook: the same weights on the same argument."""

    def finish(read: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        weight, bias = attention.in_proj_weight.chunk(3)[index], attention.in_proj_bias
        return linear(read[0], weight, None if bias is None else bias.chunk(3)[index])

    return finish


def _scored(attention: nn.MultiheadAttention) -> Finish:
    score, query, key = scores(attention.num_heads), _projected(attention, 0), _projected(attention, 1)
    return lambda read, mask: score((query(read, mask), key(read, mask)), mask)


def _tokens(paths: Sequence[str], norm: str) -> dict[str, Spot]:
    """hidden, hidden.k and stageN of a stack of blocks."""
    spots = {"hidden": one(norm), "hidden.0": one(paths[0], into=True)}
    spots |= {f"hidden.{k}": one(path) for k, path in enumerate(paths, 1)}
    stages = min(QUARTERS, len(paths))
    return spots | {f"stage{i}": one(paths[math.ceil(len(paths) * i / stages) - 1]) for i in range(1, stages + 1)}


def _stages(last: Mapping[int, str], *, channels_last: bool = False) -> dict[str, Spot]:
    """{stride: path of the last map at it} → stage1 … from stride 4 on."""
    paths = [path for stride, path in sorted(last.items()) if stride >= FIRST]
    finish = _channels_first if channels_last else None
    return {f"stage{i}": Spot((Read(path, first=True),), finish) for i, path in enumerate(paths, 1)}


def _strided(path: str, layers: nn.Module, stride: int = 1) -> dict[int, str]:
    """{stride of the image: path of the last child at it}, the children run one after another from an image at `stride`."""
    last: dict[int, str] = {}
    for name, layer in layers.named_children():
        stride *= _stride(layer)
        last[stride] = f"{path}.{name}"
    return last


def _stride(layer: nn.Module) -> int:
    """By how much a layer makes an image smaller, if its convolutions follow one another."""
    return math.prod(_first(module.stride) for module in layer.modules() if isinstance(module, nn.Conv2d))


def _first(stride: Iterable[int] | int) -> int:
    return stride if isinstance(stride, int) else next(iter(stride))


def _channels_first(read: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
    return read[0].permute(0, 3, 1, 2)


def _flat(read: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
    """(B, D, 1, 1), where the last layer is a convolution → (B, D)."""
    return torch.flatten(read[0], 1)
