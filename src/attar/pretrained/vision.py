"""Backbones of timm and torchvision: built by name, weighted from a local file, reading raw pixels as they themselves are used to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attar.errors import MissingExtra, StudentError, near
from attar.notation import say
from attar.pretrained.backboned import Backboned, Plan
from attar.pretrained.weights import read_weights, renamed
from attar.signal import Schema

__all__ = ["Backbone"]

Library = Literal["timm", "torchvision"]
ANY, NUMBER = Schema("images", classes=("any",)), Schema("images")


@dataclass(frozen=True, repr=False)
class Backbone:
    """A model of a library by name, described; called with (schema, seed) it builds one with a new head for the schema's outcomes.

    library, name: "timm", "mobilenetv3_small_050". weights: a local file, or None for chance. size: (height, width) that images are
    scaled to in the model itself, or None. freeze: only the head learns.
    """

    library: Library
    name: str
    weights: str | None = None
    size: tuple[int, int] | None = None
    freeze: bool = False

    def __repr__(self) -> str:
        size = None if self.size is None else list(self.size)
        return say(self.library, self.name, weights=self.weights, size=size, freeze=self.freeze or None)

    @classmethod
    def named(cls, library: Library, name: str, weights: str | None, size: int | list[int] | None, freeze: bool) -> Backbone:
        """The description that a word's arguments come to. Raises StudentError for a size, or a freezing, that makes no sense."""
        if ":" in name or "/" in name:
            raise StudentError(f"{library}({name!r}): a name of another place", hint="built by name; weights= takes a local file")
        sizes = [size, size] if isinstance(size, int) else size
        if sizes is not None and (len(sizes) != 2 or min(sizes) < 1):
            raise StudentError(f"{library}(size={size})", hint="size=[height, width], or one number for both, in pixels")
        if freeze and weights is None:
            raise StudentError(f"{library}({name!r}, freeze=True): weights of chance would be frozen", hint="weights= takes a local file")
        return cls(library, name, weights, None if sizes is None else (sizes[0], sizes[1]), freeze)

    def __call__(self, schema: Schema, seed: int) -> Backboned:
        """A fresh module. Raises StudentError for data that are no images, a name that is not known, and weights that do not fit."""
        if schema.kind != "images":
            raise StudentError(f"{self!r} reads images, the data are of the kind {schema.kind!r}", hint="mlp() reads tables")
        with _seeded(seed):
            net, plan = self._net(schema.shape, max(1, len(schema.classes)))
            state = None if self.weights is None else self._state(net, plan)
            if state is not None:
                head = {f"{plan.head}.weight", f"{plan.head}.bias"} if plan.head_differs(state, net) else set()
                self._load(net, {name: value for name, value in state.items() if name not in head}, head)
            return Backboned(net, plan, schema, freeze=self.freeze)

    def opened(self) -> Backboned:
        """The model with the head that its weights have: a teacher as it is. Raises StudentError as building does."""
        assert self.weights is not None
        with _seeded(0):
            net, plan = self._net(None, 1)
            state = self._state(net, plan)
            head = state.get(f"{plan.head}.weight")
            if head is None or head.ndim != 2:
                raise StudentError(
                    f"{self.weights} has no classifier {plan.head!r}: it is a backbone alone",
                    hint=f'taught({self!r}, at="teacher.safetensors") teaches it one',
                )
            if len(head) > 1:
                net, plan = self._net(None, len(head))
            self._load(net, state, set())
            return Backboned(net, plan, ANY if len(head) > 1 else NUMBER, freeze=False)

    def _net(self, shape: tuple[int, ...] | None, outcomes: int) -> tuple[nn.Module, Plan]:
        """The library's model with chance for weights, and how it is used for images of (C, H, W); None: of any that it can read."""
        if shape is not None and shape[0] not in (1, 3):
            raise StudentError(f"{self!r} reads images of 1 or 3 channels, these have {shape[0]}", hint="cnn() reads any number")
        size = self.size or (None if shape is None else (shape[1], shape[2]))
        build = _timm if self.library == "timm" else _torchvision
        net, plan = build(self.name, outcomes, size if self.weights is None else None)
        head = net.get_submodule(plan.head)
        assert isinstance(head, nn.Linear)
        head.reset_parameters()  # timm's EfficientNets begin with weights of 1/√outcomes: for ten their first logits are off by 10
        plan = replace(plan, size=self.size)
        if plan.only is not None and size is not None:
            plan.refuse(size, f"{self.library}({self.name!r})")
        return net, plan

    def _state(self, net: nn.Module, plan: Plan) -> dict[str, Tensor]:
        assert self.weights is not None
        return renamed(read_weights(self.weights), net.state_dict(), plan.head)

    def _load(self, net: nn.Module, state: Mapping[str, Tensor], but: set[str]) -> None:
        """The weights into the net, each in its place; raises StudentError that names what is missing, unknown or of another shape."""
        own = net.state_dict()
        missing = [n for n in own if n not in state and n not in but and not n.endswith("num_batches_tracked")]
        unknown = [n for n in state if n not in own]
        other = [(n, v.shape, own[n].shape) for n, v in state.items() if n in own and v.shape != own[n].shape]
        shapes = [f"{name} {tuple(there)} instead of {tuple(wanted)}" for name, there, wanted in other]
        parts = [("missing", missing), ("not known to it", unknown), ("of another shape", shapes)]
        if said := [f"{len(names)} {what}: {', '.join(names[:3])}{', …' * (len(names) > 3)}" for what, names in parts if names]:
            raise StudentError(
                f"{self.weights} does not fit {self.library}({self.name!r}): {'; '.join(said)}",
                hint="is it the file of this model, and of this library?",
            )
        net.load_state_dict(dict(state), strict=False)


def _timm(name: str, outcomes: int, size: tuple[int, int] | None) -> tuple[nn.Module, Plan]:
    """The model of timm with chance for weights, and its own configuration. size: that one of a fixed size is built for."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtra("timm", "vision") from error
    if not timm.is_model(name.split(".")[0]):
        raise StudentError(f"timm knows no model {name!r}", hint=near(name, timm.list_models()))
    base = name.split(".")[0]
    tags = [base, *timm.list_pretrained(f"{base}.*")]
    if name not in tags:
        raise StudentError(f"timm knows {base!r}, but no {name!r}", hint=near(name, tags))
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    made_for = (config.input_size[1], config.input_size[2])
    sized = size if config.fixed_input_size and size != made_for else None
    options: dict[str, Any] = {"img_size": sized} if sized else {}
    net = _built(f"timm({name!r})", lambda: timm.create_model(name, pretrained=False, num_classes=outcomes, **options))
    patch = vars(net.get_submodule("patch_embed")).get("patch_size") if sized and "patch_embed" in dict(net.named_children()) else None
    if patch is not None and sized is not None and (sized[0] % patch[0] or sized[1] % patch[1]):
        raise StudentError(
            f"timm({name!r}) reads patches of {patch[0]} × {patch[1]} pixels, {sized[0]} × {sized[1]} is no multiple of that",
            hint=f"size=[{-(-sized[0] // patch[0]) * patch[0]}, {-(-sized[1] // patch[1]) * patch[1]}] scales images to one",
        )
    head = config.classifier if isinstance(config.classifier, str) else ""
    mode = "bilinear" if config.interpolation == "bilinear" else "bicubic"
    plan = Plan(head, config.mean, config.std, mode, only=(sized or made_for) if config.fixed_input_size else None)
    return _with_linear_head(f"timm({name!r})", net, plan)


FIXED = {"vit_": "image_size", "maxvit_": "input_size"}  # torchvision's models of one size, and the argument that sets it


def _torchvision(name: str, outcomes: int, size: tuple[int, int] | None) -> tuple[nn.Module, Plan]:
    """The model of torchvision with chance for weights, and what its newest weights say of the images they read."""
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtra("torchvision", "vision") from error
    known = models.list_models(module=models)
    if name not in known:
        raise StudentError(f"torchvision knows no classifier {name!r}", hint=near(name, known))
    reads = next(iter(models.get_model_weights(name))).transforms()
    made_for = (reads.crop_size[0], reads.crop_size[0])
    argument = next((argument for prefix, argument in FIXED.items() if name.startswith(prefix)), "")
    sized = size if argument and size != made_for else None
    options: dict[str, Any] = {}
    if sized is not None:
        options[argument] = sized if argument == "input_size" else sized[0]
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    net = _built(f"torchvision({name!r})", lambda: models.get_model(name, weights=None, num_classes=outcomes, **options))
    head = [path for path, part in net.named_modules() if isinstance(part, nn.Linear)][-1:]
    mode = "bicubic" if reads.interpolation.value == "bicubic" else "bilinear"
    plan = Plan("".join(head), tuple(reads.mean), tuple(reads.std), mode, only=(sized or made_for) if argument else None)
    return _with_linear_head(f"torchvision({name!r})", net, plan)


def _built(who: str, build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` makes; the library's own objections as a StudentError."""
    try:
        return build()
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise StudentError(f"{who} cannot be built: {error or type(error).__name__}", hint="size= scales images to another") from error


def _with_linear_head(who: str, net: nn.Module, plan: Plan) -> tuple[nn.Module, Plan]:
    head = dict(net.named_modules()).get(plan.head) if plan.head else None
    if not isinstance(head, nn.Linear):
        found = "not one layer" if head is None else f"a {type(head).__name__}"
        raise StudentError(f"the classifier of {who} is {found}, where one linear layer is wanted", hint="choose another model")
    return net, plan


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within the block weights are drawn by the seed; after it global chance is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
