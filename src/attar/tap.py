"""Reading a model's answer together with activations inside it, by module path."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from attar.errors import StudentError, TapError, near
from attar.signal import NOTHING, Batch, Signal

__all__ = ["observe"]


def observe(model: nn.Module, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
    """`model(batch.inputs)` and the outputs of the submodules named in `taps`: rows → Signal, gradients kept.

    taps: paths as `model.named_modules()` has them, "blocks.2.norm"; each must be run exactly once and answer with one tensor.
    Without taps nothing is hooked and nothing is lost. Hooks are gone afterwards, also when the model fails.
    Raises TapError for a path that is not there (naming near ones), a module run twice or never, and an activation that is not a tensor;
    StudentError where the model itself answers with something else than a tensor.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    >>> signal = observe(model, Batch(torch.zeros(4, 3)), frozenset({"1"}))
    >>> signal.output.shape, signal.taps["1"].shape
    (torch.Size([4, 2]), torch.Size([4, 5]))
    """
    if not taps:
        return Signal(_tensor(model(batch.inputs), model))
    found: dict[str, Tensor] = {}
    modules = {path: _module(model, path) for path in sorted(taps)}
    hooks = [module.register_forward_hook(_reader(path, found)) for path, module in modules.items()]
    try:
        output = _tensor(model(batch.inputs), model)
    finally:
        for hook in hooks:
            hook.remove()
    if missing := sorted(taps - found.keys()):
        raise TapError(f"{', '.join(map(repr, missing))} was not run by {_name(model)}", hint="tap a module that every row passes through")
    return Signal(output, found)


def _reader(path: str, found: dict[str, Tensor]):
    def read(module: nn.Module, inputs: Any, output: Any) -> None:
        if path in found:
            raise TapError(f"{path!r} is run more than once for one answer", hint="which run is meant? Tap a module that is run once")
        if not isinstance(output, Tensor):
            raise TapError(
                f"{path!r} ({_name(module)}) answers with {_shape(output)}, not with one tensor", hint="tap a module inside or after it"
            )
        found[path] = output

    return read


def _module(model: nn.Module, path: str) -> nn.Module:
    modules = dict(model.named_modules(remove_duplicate=False))
    if not path or path not in modules:
        raise TapError(f"no module at {path!r} in {_name(model)}", hint=near(path, (p for p in modules if p)))
    return modules[path]


def _tensor(output: Any, model: nn.Module) -> Tensor:
    if not isinstance(output, Tensor):
        raise StudentError(
            f"{_name(model)} answers with {_shape(output)}, not with one tensor of logits", hint="wrap it so that forward returns logits"
        )
    return output


def _name(model: nn.Module) -> str:
    return type(model).__name__


def _shape(value: Any) -> str:
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list | dict) else f"a {type(value).__name__}"
