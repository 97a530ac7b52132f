"""Names that mean the same in every model: which modules of this one are behind them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

from torch import nn

from attar.errors import TapError, near
from attar.tap.encoders import encoder_names
from attar.tap.grammar import Read, parse
from attar.tap.spots import Names, Spot, within
from attar.tap.vision import vision_names

__all__ = ["Named", "all_names", "find", "locate", "resolve", "taps_of"]

LIBRARIES = ("transformers", "timm", "torchvision", "efficientnet_lite_pytorch")
KINDS = ("hidden", "query", "key", "value", "attention", "stage", "embedding")
NAME = re.compile(r"hidden|embedding|projected|regrasped|stage[1-9]\d*|(?P<kind>hidden|attention|query|key|value)\.(?P<index>-?\d+)")


@runtime_checkable
class Named(Protocol):
    """A model that says itself where it has what the names mean."""

    def tap_names(self) -> Mapping[str, str]:
        """{"stage1": "features.2", "embedding": "head:in"}: a name, and the tap that it stands for here."""
        ...


def taps_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Every name that `model` has, and the taps behind it; {} where it has none.

    Looked for in the model and in its parts, so that a wrapper has the names of what it wraps. What is further out wins; a name that two
    parts side by side have is nobody's.

    >>> from torchvision.models import resnet18                     # doctest: +SKIP
    >>> taps_of(resnet18())                                         # doctest: +SKIP
    {'stage1': ('layer1',), 'stage2': ('layer2',), 'stage3': ('layer3',), 'stage4': ('layer4',), 'embedding': ('fc:in',)}
    """
    spots = all_names(model).spots
    return {name: tuple(map(str, spots[name].reads)) for name in sorted(spots, key=_order)}


def resolve(model: nn.Module, tap: str) -> tuple[str, ...]:
    """The module paths, with their suffixes, that `tap` reads in `model`: several for what is computed, such as attention.

    Raises TapError for a name or a path that is not there, naming near ones; for a block beyond the last, saying how many there are.
    """
    return tuple(map(str, find(model, tap, None).reads))


def find(model: nn.Module, tap: str, names: Names | None) -> Spot:
    """What `tap` stands for in `model`; names: those of the model, None looks for them."""
    read = parse(tap)
    if (named := NAME.fullmatch(read.path)) is not None:
        names = all_names(model) if names is None else names
        if (spot := _spot(model, read, named, names)) is not None:
            return spot
    if not read.path or locate(model, read.path) is None:
        known = [_plain(path) for path, _ in model.named_modules(remove_duplicate=False) if path]
        known += (all_names(model) if names is None else names).spots
        raise TapError(f"no module at {read.path!r} in {type(model).__name__}", hint=near(read.path, known))
    return Spot((read,))


def all_names(model: nn.Module) -> Names:
    """The names of a model and of its parts in one."""
    spots: dict[str, Spot] = {}
    owner: dict[str, str] = {}
    blocks, refused, readers, doubt = 0, {}, [], set[str]()
    for at, names in _found(model):  # from the outside in
        for name, spot in names.spots.items():
            if name not in spots:
                spots[name], owner[name] = spot, at
            elif not _inside(at, owner[name]):
                doubt.add(name)
        blocks = blocks or names.blocks
        refused = {**names.refused, **refused}
        readers += [] if names.reader is None else [names.reader]
    spots = {name: spot for name, spot in spots.items() if name not in doubt}
    return Names(spots, blocks, refused, readers[0] if len(readers) == 1 else None)


def locate(model: nn.Module, path: str) -> nn.Module | None:
    """The module at a path, which need not name what torch.compile and DistributedDataParallel put in between; None where there is none."""
    here: nn.Module | None = model
    for step in path.split(".") if path else ():
        while here is not None and step not in here._modules and isinstance(here, _wrappers()):
            here = next(here.children())
        here = None if here is None else here._modules.get(step)
    return here


def _wrappers() -> tuple[type[nn.Module], ...]:
    """Looked up where they are loaded: importing them takes a second, and who has not loaded them has wrapped nothing."""
    places = (("torch._dynamo.eval_frame", "OptimizedModule"), ("torch.nn.parallel.distributed", "DistributedDataParallel"))
    return tuple(vars(sys.modules[module])[name] for module, name in places if module in sys.modules)


def _found(model: nn.Module) -> Iterator[tuple[str, Names]]:
    """(path, names) of the parts that have any, outer ones first."""
    for path, module in sorted(model.named_modules(), key=lambda found: (bool(found[0]), found[0].count("."))):
        if not _promising(type(module)):
            continue
        names = _own(module) if isinstance(module, Named) else encoder_names(module) or vision_names(module)
        if names is not None:
            at = _plain(path)
            yield at, within(at, names)


@lru_cache(maxsize=4096)
def _promising(kind: type[nn.Module]) -> bool:
    """Whether a module of this class may have names. In each step with taps every module is asked, and a protocol's isinstance is slow."""
    return issubclass(kind, Named) or kind.__module__.partition(".")[0] in LIBRARIES


def _own(model: Named) -> Names:
    spots = {name: Spot((parse(text),)) for name, text in model.tap_names().items()}
    counted = [int(name.partition(".")[2]) for name in spots if name.startswith("hidden.")]
    return Names(spots, max(counted, default=0))


def _spot(model: nn.Module, read: Read, named: re.Match[str], names: Names) -> Spot | None:
    """The spot of a name; None where the model has none of the kind, so that it may be a path."""
    kind, who = named["kind"], type(model).__name__
    if kind in names.refused:
        raise TapError(f"{read.path!r} of {who}: {names.refused[kind]}", hint="query.k, key.k and value.k are there; or hidden.k")
    name = read.path
    if kind is not None and any(other.startswith(f"{kind}.") for other in names.spots):
        least, index = int(kind != "hidden"), int(named["index"])
        at = index if index >= 0 else names.blocks + 1 + index
        if not least <= at <= names.blocks:
            count = f"{names.blocks} block{'s' if names.blocks != 1 else ''}"
            raise TapError(f"{who} has {count}, and no {read.path!r}", hint=f"{kind}.{least} to {kind}.{names.blocks}; -1 is the last")
        name = f"{kind}.{at}"
    spot = names.spots.get(name)
    if spot is None:
        return None
    if read.into or read.item is not None:
        if spot.reads == (parse(name),):
            return None  # the name is the module's own path, and of that an input or an item may be asked
        raise TapError(f"{str(read)!r}: {name} is a name, which has no :in and no [item]", hint=f"its path has them: {_behind(spot)}")
    if read.call is None:
        return spot
    if any(part.call is not None for part in spot.reads):
        raise TapError(f"{str(read)!r}: {name} is a run of a shared block already", hint=f"tap its path: {_behind(spot)}")
    return replace(spot, reads=tuple(replace(part, call=read.call) for part in spot.reads))


def _plain(path: str) -> str:
    """A path without the steps that torch.compile puts in between."""
    return ".".join(step for step in path.split(".") if step != "_orig_mod")


def _behind(spot: Spot) -> str:
    return ", ".join(repr(str(read)) for read in spot.reads)


def _inside(path: str, other: str) -> bool:
    return not other or path == other or path.startswith(f"{other}.")


def _order(name: str) -> tuple[int, int]:
    """hidden.2 before hidden.10, kinds as they are told."""
    kind = re.split(r"\.|\d", name, maxsplit=1)[0]
    number = re.search(r"\d+$", name)
    return KINDS.index(kind) if kind in KINDS else len(KINDS), int(number[0]) if number else -1
