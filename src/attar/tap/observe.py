"""Reading a model's answer together with what happens inside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from attar.errors import StudentError, TapError
from attar.signal import NOTHING, Batch, Inputs, Signal
from attar.tap.grammar import Read
from attar.tap.names import all_names, find, locate
from attar.tap.spots import Spot

__all__ = ["Masked", "Tapped", "observe"]


@runtime_checkable
class Masked(Protocol):
    """A model that knows which of the tokens it reads are real."""

    def positions(self, inputs: Inputs) -> Tensor:
        """Batch.inputs → (N, L) bool, False where a row is padded."""
        ...


@runtime_checkable
class Tapped(Protocol):
    """A source whose insides can be read: `net` is asked when it answers, and its module paths are taps."""

    @property
    def net(self) -> nn.Module: ...


def observe(model: nn.Module, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
    """`model(batch.inputs)` and what `taps` name inside it: rows → Signal, gradients kept.

    taps: see `attar.tap`. Each is one tensor of one run; `Signal.taps` has them by the text that asked.

    `Signal.masks` says of a tap over tokens, (N, L, D) or (N, heads, L, L), which tokens are real, (N, L) bool: what a `Masked` model
    knows, else the attention mask that a known encoder was called with; without either there is no mask.
    Without taps nothing is hooked and nothing is lost. Hooks are gone afterwards, also when the model fails; the model is not changed.
    With taps a compiled model is run as it was before compilation, which sees each hook; torch.compile would leave out those it does not
    know of. Within a compiled Distiller the student is run so, and the objective stays compiled.

    Raises TapError for a path that is not there (naming near ones), a block beyond the last, a module run several times where no run is
    named or never, several tensors where no item is named, and a tensor that the model goes on to change in place;
    StudentError where the model itself answers with something else than a tensor.

    >>> model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    >>> signal = observe(model, Batch(torch.zeros(4, 3)), frozenset({"1", "2:in"}))
    >>> signal.output.shape, signal.taps["1"].shape, bool((signal.taps["1"] == signal.taps["2:in"]).all())
    (torch.Size([4, 2]), torch.Size([4, 5]), True)
    """
    if not taps:
        return Signal(_tensor(model(batch.inputs), model))
    if torch.compiler.is_compiling():
        return torch.compiler.disable(_observed)(model, batch, taps)  # pyright: ignore[reportCallIssue]  its stub knows decorators alone
    return _observed(model, batch, taps)


def _observed(model: nn.Module, batch: Batch, taps: frozenset[str]) -> Signal:
    names = all_names(model)
    spots = {tap: find(model, tap, names) for tap in sorted(taps)}
    seen = _Seen(model, {read for spot in spots.values() for read in spot.reads}, None if _knows(model) else names.reader)
    with _eager(), seen.watching():
        output = _tensor(model(batch.inputs), model)
    mask = _Mask(model, batch.inputs, seen.mask)
    found = {tap: _finished(spot, seen, mask) for tap, spot in spots.items()}
    return Signal(output, found, {tap: mask.value for tap, tensor in found.items() if mask.fits(tensor)})


def _finished(spot: Spot, seen: _Seen, mask: _Mask) -> Tensor:
    read = tuple(seen.tensor(one) for one in spot.reads)
    if spot.finish is None:
        return read[0]
    return spot.finish(read, mask.value if mask.fits(read[0]) else None)


@dataclass
class _Run:
    """What one run of a module showed: (tensor, its version when it was read), or in words why there is no one tensor."""

    tensor: Tensor | None
    version: int = 0
    instead: str = ""


@dataclass
class _Seen:
    """All reads of one answer.

    reads: what is looked for. reader: path of a module called with attention_mask=, which is kept as `mask`; None looks for none.
    """

    model: nn.Module
    reads: set[Read]
    reader: str | None
    runs: dict[Read, list[_Run]] = field(default_factory=dict)
    mask: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on every module that is read, within the block."""
        handles = []
        try:
            for read in sorted(self.reads, key=str):
                self.runs[read] = []
                module = locate(self.model, read.path)
                assert module is not None  # `find` has seen it
                if read.into:
                    handles.append(module.register_forward_pre_hook(self._input(read), with_kwargs=True))
                else:
                    handles.append(module.register_forward_hook(self._output(read)))
            if self.reader is not None and (module := locate(self.model, self.reader)) is not None:
                handles.append(module.register_forward_pre_hook(self._attention_mask, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def tensor(self, read: Read) -> Tensor:
        """What was read there, once for each tap; TapError where that is not one tensor of one run."""
        runs, place = self.runs[read], read.place
        if not runs:
            raise TapError(f"{place!r} was not run by {_name(self.model)}", hint="tap a module that every row passes through")
        if read.call is None and len(runs) > 1:
            raise TapError(
                f"{place!r} is run {len(runs)} times for one answer", hint=f"say which run: '{place}#0' to '{place}#{len(runs) - 1}'"
            )
        call = read.call or 0
        if call >= len(runs):
            raise TapError(f"{place!r} is run {len(runs)} times for one answer, there is no #{call}", hint=f"'{place}#0' is the first")
        run = runs[call]
        if run.tensor is None:
            raise TapError(f"{place!r} ({_name(locate(self.model, read.path))}) {run.instead}", hint=self._item(read, run))
        if _version(run.tensor) != run.version:
            raise TapError(
                f"{place!r} is changed in place after it was read",
                hint="tap the module that changes it, or build that one with inplace=False",
            )
        return run.tensor

    def _output(self, read: Read):
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._keep(read, output, "answers with")

        return hook

    def _input(self, read: Read):
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = (*args, *kwargs.values())
            self._keep(read, given if read.item is not None else given[0] if given else None, "is given")

        return hook

    def _keep(self, read: Read, value: Any, verb: str) -> None:
        runs = self.runs[read]
        if read.call is not None and read.call != len(runs):
            runs.append(_Run(None))  # counted, not kept
            return
        items = list(value.values()) if isinstance(value, Mapping) else value
        if read.item is not None or (read.first and isinstance(items, Sequence)):
            item = read.item or 0
            if not isinstance(items, Sequence):
                runs.append(_Run(None, instead=f"{verb} {_shape(value)}, which has no items"))
                return
            if item >= len(items):
                runs.append(_Run(None, instead=f"{verb} {_shape(value)}, and no [{item}]"))
                return
            value = items[item]
        if isinstance(value, Tensor):
            runs.append(_Run(value, _version(value)))
        else:
            runs.append(
                _Run(None, instead=f"{verb} {_shape(value)}, not with one tensor" if verb == "answers with" else f"{verb} {_shape(value)}")
            )

    def _item(self, read: Read, run: _Run) -> str:
        if " of " in run.instead and read.item is None:
            return f"say which of them: '{read.place}[0]'"
        return "tap a module inside or after it"

    def _attention_mask(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        if isinstance(given, Tensor) and given.dim() == 2:
            self.mask = given.bool()


class _Mask:
    """Which tokens are real, asked of the model when the first tap over tokens wants to know."""

    def __init__(self, model: nn.Module, inputs: Inputs, seen: Tensor | None) -> None:
        self._model, self._inputs, self._seen = model, inputs, seen
        self._asked = not _knows(model)

    @property
    def value(self) -> Tensor:
        assert self._seen is not None  # `fits` has seen it
        return self._seen

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tap is one over tokens, whose mask is known."""
        if tensor.dim() < 3:
            return False
        if not self._asked:
            self._asked = True
            assert isinstance(self._model, Masked)
            self._seen = self._model.positions(self._inputs)
        if self._seen is None:
            return False
        rows, length = self._seen.shape
        return len(tensor) == rows and tuple(tensor.shape[1:-1]) in ((length,), (tensor.shape[1], length))


def _knows(model: nn.Module) -> bool:
    return isinstance(model, Masked) and not isinstance(model.positions, nn.Module)  # a layer may well be called so


def _eager() -> AbstractContextManager[Any]:
    """Compiled parts run as they were; where nobody has loaded the compiler, which takes a second, nothing is compiled."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _version(tensor: Tensor) -> int:
    """How often a tensor has been changed in place; those of inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _tensor(output: Any, model: nn.Module) -> Tensor:
    if not isinstance(output, Tensor):
        raise StudentError(
            f"{_name(model)} answers with {_shape(output)}, not with one tensor of logits", hint="wrap it so that forward returns logits"
        )
    return output


def _name(model: nn.Module | None) -> str:
    return type(model).__name__


def _shape(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(map(str, value))})"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
