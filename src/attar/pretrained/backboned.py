"""A library's model as one that reads raw pixels, with a head of its own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear

from attar.errors import StudentError
from attar.signal import Inputs, Schema

__all__ = ["Backboned", "Plan", "RawPixels"]

Floats = tuple[float, ...]

REMEMBERED_BYTES = 512 << 20  # of embeddings that a frozen net keeps: 100,000 rows of 1,280 numbers


@dataclass(frozen=True)
class Plan:
    """How a library's model is used.

    head: path of the linear layer that answers. mean, std: by channel, in units of 0..1. mode: how images are scaled.
    size: (height, width) to scale them to, or None. only: the one size that the model can read, or None.
    """

    head: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str
    size: tuple[int, int] | None = None
    only: tuple[int, int] | None = None

    def head_differs(self, state: Mapping[str, Tensor], net: nn.Module) -> bool:
        """Whether the weights answer other outcomes than the net, or none."""
        there = state.get(f"{self.head}.weight")
        return there is None or there.shape != net.get_submodule(self.head).weight.shape

    def refuse(self, size: tuple[int, int], who: str) -> None:
        """Raise StudentError where the model cannot read images of (height, width), scaled or not."""
        if self.only is not None and (self.size or size) != self.only:
            height, width = self.only
            raise StudentError(
                f"{who} reads {height} × {width} pixels and no others, it is given {size[0]} × {size[1]}",
                hint=f"size=[{height}, {width}] scales them in the model",
            )


class RawPixels(nn.Module):
    """(B, 1 or 3, height, width) uint8 → what a model reads, (B, 3, h, w) float32: scaled if asked for, grey thrice, in its own units.

    mean, std: by channel, in units of 0..1. size: (h, w) to scale to, smoothed where images shrink, as Pillow does; None leaves them.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, mean: Floats, std: Floats, size: tuple[int, int] | None = None, mode: str = "bilinear") -> None:
        super().__init__()
        self.size, self.mode = size, mode
        self.register_buffer("scale", (1 / (255 * torch.tensor(std))).reshape(-1, 1, 1))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).reshape(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.float()
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            x = interpolate(x, size=self.size, mode=self.mode, antialias=True, align_corners=False).clamp(0, 255)  # bicubic overshoots
        if x.shape[1] != len(self.scale):
            x = x.expand(-1, len(self.scale), -1, -1)
        return x * self.scale - self.shift

    def extra_repr(self) -> str:
        return f"size={self.size}, mode={self.mode!r}"


class Backboned(nn.Module):
    """What a `Backbone` builds: `read` makes raw pixels what the library's `net` reads, `net` an embedding (B, D), `head` the logits.

    `net` is the library's own model, its classifier taken out and put into `head`, so that its parts have their own names below `net`.
    Frozen, `net` stays in evaluation mode. While the head learns embeddings are kept by the pixels they are of, so that each image passes
    through it once; in evaluation mode nothing comes from memory, for what is measured there is what a new image costs.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, plan: Plan, schema: Schema, *, freeze: bool) -> None:
        super().__init__()
        self.plan = plan
        self.read = RawPixels(plan.mean, plan.std, plan.size, plan.mode)
        head = net.get_submodule(plan.head)
        assert isinstance(head, nn.Linear)
        net.set_submodule(plan.head, nn.Identity())
        self.net, self.head = net, _Slow.of(head) if freeze else head
        self.numeric = not schema.classes
        if self.numeric:
            self.register_buffer("mean", torch.tensor(schema.label_mean))
            self.register_buffer("std", torch.tensor(schema.label_std if schema.label_std > 0 else 1.0))
        self.memory = _Memory() if freeze else None
        if freeze:
            net.requires_grad_(False).eval()
            self.register_load_state_dict_post_hook(_forget)

    def forward(self, inputs: Inputs) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise StudentError(f"this model reads images, and is given {sorted(inputs)}", hint="mlp() reads tables")
        output = self.head(self.embed(inputs))
        return output * self.std + self.mean if self.numeric else output

    def embed(self, pixels: Tensor) -> Tensor:
        """(B, C, height, width) uint8 → (B, D), what the head reads."""
        if self.memory is None or not self.training or torch.compiler.is_compiling() or _watched(self.net):
            return self.net(self.read(pixels))
        return self.memory(pixels, lambda rows: self.net(self.read(rows)))

    def tap_names(self) -> Mapping[str, str]:
        """The embedding is what the head reads; all else the library's model has under its own names."""
        return {"embedding": "head:in"}

    def train(self, mode: bool = True) -> Backboned:
        super().train(mode)
        if self.memory is not None:
            self.net.eval()
        return self


class _Slow(nn.Linear):
    """A linear layer that holds its weights as √D/4 times what they are, so that a head alone learns well at the rate of whole nets.

    A step of Adam moves each weight by the learning rate, and with it a logit of D features, none of them negative, by lr · D · their mean:
    with 1,280 of them and fit's 5e-3 by 4. A head on frozen EfficientNet-Lite0, taught so on 526 images of CIFAR-10 for 15 epochs, was
    right on 58.7 % of others with a log-loss of 1.34; slowed down, on 63.3 % with 1.09. Logistic regression: 66 % at best.
    The factor is rounded to a power of two, and a state dict holds the weights as they are: it is that of any linear layer, bit by bit.
    """

    scale: float

    @classmethod
    def of(cls, head: nn.Linear) -> _Slow:
        """The same function, to be learnt slowly."""
        slow = cls(head.in_features, head.out_features, bias=head.bias is not None)
        slow.scale = 2.0 ** round(math.log2(4 * head.in_features**-0.5))
        slow.load_state_dict(head.state_dict())
        return slow

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight * self.scale, self.bias)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = destination[f"{prefix}weight"] * self.scale

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        name = f"{prefix}weight"
        held = {**state_dict, name: state_dict[name] / self.scale} if name in state_dict else state_dict
        super()._load_from_state_dict(held, prefix, *args, **kwargs)


class _Memory:
    """Embeddings by the pixels they are of, until REMEMBERED_BYTES are full; a copy begins empty."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Tensor] = {}
        self.bytes = 0

    def __reduce__(self) -> tuple[type[_Memory], tuple[()]]:
        return _Memory, ()

    def __call__(self, pixels: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, C, height, width) → (B, D); only rows never seen are embedded.

        On a CPU one by one: the last bits of an embedding depend on the size of its batch, and a training that goes on after a kill, which
        remembers nothing, embeds in other batches.
        """
        keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in pixels.cpu().numpy()]
        first = {key: i for i, key in enumerate(keys) if key not in self.rows}
        fresh: dict[bytes, Tensor] = {}
        if first:
            new = pixels[list(first.values())]
            with torch.no_grad():
                found = torch.cat([embed(rows) for rows in new.split(1 if new.device.type == "cpu" else len(new))])
            fresh = dict(zip(first, found, strict=True))
        for key, row in fresh.items():
            if self.bytes < REMEMBERED_BYTES:
                self.rows[key] = row.clone()  # else it would hold the whole batch
                self.bytes += row.numel() * row.element_size()
        rows = [fresh[key] if key in fresh else self.rows[key] for key in keys]
        return torch.stack(rows).to(pixels.device)

    def forget(self) -> None:
        """Begin anew, because the weights are others."""
        self.rows.clear()
        self.bytes = 0


def _forget(module: nn.Module, keys: object) -> None:
    assert isinstance(module, Backboned)
    if module.memory is not None:
        module.memory.forget()


def _watched(net: nn.Module) -> bool:
    """Whether somebody wants to see the net at work, so that an answer from memory would not do."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
