"""Any nn.Module as a source: in evaluation mode, without gradients, with taps by module path."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from attar.errors import TeacherError
from attar.identity import digest
from attar.notation import say
from attar.reading import TextModel
from attar.signal import NOTHING, Batch, Inputs, Signal
from attar.sources.answers import as_logits, home_of, order_of
from attar.tap import observe

__all__ = ["Module", "Reads", "code_of", "digest_state", "evaluating", "module", "spelled"]

Reads = Literal["inputs", "numbers", "pixels"] | Callable[[Batch], Any]


def module(net: nn.Module, *, reads: Reads = "inputs", classes: list[str] | None = None) -> Module:
    """Answers of `net`: its forward takes what `reads` makes of a batch, and returns (B, C), (B, L, 2), (B, 1) or (B,) logits.

    reads: "inputs" hands over `Batch.inputs` as they are, which attar's own students take; "numbers" the (B, N) float32 matrix of a
        table without categories; "pixels" images as (B, C, H, W) float32 in 0..1; a function is given the batch itself.
    classes: names of the outputs, in their order, by the data's names; left out, the data's own order.

    The net stays yours, and is asked as it stands at that moment: each call puts it into evaluation mode and its training flags back
    afterwards, and the fingerprint is taken anew from weights, buffers and the code of its classes. It is asked on its own device.
    Raises TeacherError where its rows or outcomes are not the data's, TapError for a tap that is not there.

    >>> net = nn.Linear(3, 2)
    >>> source = module(net, reads="numbers")
    >>> source(Batch({"numbers": torch.ones(5, 3)})).output.shape
    torch.Size([5, 2])
    """
    if isinstance(reads, str) and reads not in ("inputs", "numbers", "pixels"):
        raise TeacherError(f"module(reads={reads!r})", hint='"inputs", "numbers", "pixels", or a function of the batch')
    return Module(net, reads, None if classes is None else tuple(classes))


@dataclass(frozen=True, eq=False)
class Module:
    """See `module`."""

    net: nn.Module
    reads: Reads = "inputs"
    classes: tuple[str, ...] | None = None

    training_ids = None  # of a model from elsewhere nobody knows

    def __repr__(self) -> str:
        reads = self.reads if isinstance(self.reads, str) else getattr(self.reads, "__qualname__", type(self.reads).__name__)
        return say("module", type(self.net).__name__, reads=reads, classes=self.classes)

    @property
    def fingerprint(self) -> str:
        return digest("module", digest_state(self.net), code_of(self.net), spelled(self.reads), self.classes)

    @property
    def size_bytes(self) -> int:
        """Of weights and buffers, as safetensors would hold them but for a header."""
        return sum(t.numel() * t.element_size() for t in chain(self.net.parameters(), self.net.buffers()))

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.net.parameters())

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        home, there = home_of(batch), _device(self.net)
        asked = batch if home == there else batch.to(there)
        with torch.no_grad(), evaluating(self.net):
            signal = observe(self.net, replace(asked, inputs=self._read(asked)), taps)
        order = None if self.classes is None else order_of(self.classes, batch.schema, self._who())
        output = as_logits(signal.output, batch, self._who(), order)
        if home != there:
            moved = {name: tap.to(home) for name, tap in signal.taps.items()}
            masks = {name: mask.to(home) for name, mask in signal.masks.items()}
            return Signal(output.to(home), moved, masks)
        return replace(signal, output=output)

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The forward alone, on inputs already read and on the net's device. A net in training mode is copied first.

        Of a model of texts reading them is part of the call, for that is what a text costs.
        """
        net = copy.deepcopy(self.net).eval() if any(m.training for m in self.net.modules()) else self.net
        inputs = self._read(batch.to(_device(net)))
        ask = partial(net.answer, keep=False) if isinstance(net, TextModel) else net

        def call() -> Any:
            with torch.no_grad():
                return ask(inputs)

        return call

    def _read(self, batch: Batch) -> Inputs:
        if not isinstance(self.reads, str):
            return self.reads(batch)
        inputs = batch.inputs
        if self.reads == "numbers":
            if isinstance(inputs, Tensor) or set(inputs) != {"numbers"}:
                blocks = "one tensor" if isinstance(inputs, Tensor) else f"the blocks {sorted(inputs)}"
                raise TeacherError(
                    f'{self._who()}: reads="numbers" wants a table without categories, these rows have {blocks}',
                    hint="reads= also takes a function: Batch → what the net's forward takes",
                )
            return inputs["numbers"].float()
        if self.reads == "pixels":
            if not isinstance(inputs, Tensor) or inputs.dtype != torch.uint8:
                raise TeacherError(f'{self._who()}: reads="pixels" wants images, (B, C, H, W) uint8', hint='reads="inputs"')
            return inputs.float() / 255
        return inputs

    def _who(self) -> str:
        return f"module {type(self.net).__name__}"


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; afterwards each part has the training flag it had, a frozen BatchNorm included."""
    training = [m for m in net.modules() if m.training]
    if not training:
        yield
        return
    net.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _device(net: nn.Module) -> torch.device:
    """Where a net's first tensor lies; one without any is at home everywhere, which is the CPU."""
    first = next(chain(net.parameters(), net.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def digest_state(net: nn.Module) -> str:
    """Digest of weights and buffers by name, the same on every device."""
    parts: list[str | bytes | np.ndarray] = []
    for name, value in sorted(net.state_dict(keep_vars=True).items()):
        tensor = value.detach().cpu().contiguous() if isinstance(value, Tensor) else torch.tensor(0)
        parts += [name, str(tensor.dtype), str(tuple(tensor.shape)), tensor.reshape(-1).view(torch.uint8).numpy()]
    return digest(parts)


def code_of(net: nn.Module) -> str:
    """Digest of how a net is made: the tree of its parts with their settings, and the source of each class that is not torch's."""
    classes = {type(m) for m in net.modules()}
    own = sorted((c for c in classes if not c.__module__.startswith("torch.")), key=lambda c: f"{c.__module__}.{c.__qualname__}")
    return digest(repr(net), [spelled(c) for c in own])


def spelled(thing: Any) -> str:
    """A class or function by name and source text; of one typed at a prompt, whose text nobody has, by its bytecode."""
    if isinstance(thing, str):
        return thing
    kind = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):
        functions = vars(kind) if inspect.isclass(kind) else {"": kind}
        text = digest([f"{name} {_bytecode(f)}" for name, f in sorted(functions.items()) if inspect.isfunction(f)])
    return f"{kind.__module__}.{kind.__qualname__} {text} {_settings(thing)}"


def _bytecode(function: Any) -> str:
    code = function.__code__
    return f"{code.co_code.hex()} {code.co_names} {[c for c in code.co_consts if not inspect.iscode(c)]}"


def _settings(thing: Any) -> str:
    """What a function closes over or a callable object holds, as far as it is plain or a tensor."""
    held: Mapping[str, Any] = {}
    if inspect.isfunction(thing):
        held = inspect.getclosurevars(thing).nonlocals
    elif not inspect.isclass(thing) and not inspect.isroutine(thing):
        held = vars(thing)
    tensors = {name: v.detach().cpu().numpy() for name, v in held.items() if isinstance(v, Tensor)}
    plain = {name: v for name, v in held.items() if isinstance(v, str | int | float | tuple)}
    return digest([*sorted(tensors), *(tensors[n] for n in sorted(tensors)), *(f"{n}={plain[n]!r}" for n in sorted(plain))])
