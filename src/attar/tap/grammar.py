"""A tap's text: a module path, and which of its inputs, outputs and runs is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass

from attar.errors import TapError

__all__ = ["Read", "parse"]

TEXT = re.compile(r"(?P<path>[^:\[\]#]*)(?P<into>:in)?(\[(?P<item>\d+)\])?(#(?P<call>\d+))?")


@dataclass(frozen=True)
class Read:
    """One tensor to be read on the way through a model.

    path: of a module. into: its arguments, not its output. item: which of several; None is the only output, the first argument.
    call: which run of the module, from 0; None is the only one.
    first: of an output that is a tuple, the first. For models whose blocks answer so in one version of their library and not in another.
    """

    path: str
    into: bool = False
    item: int | None = None
    call: int | None = None
    first: bool = False

    def __str__(self) -> str:
        item = "" if self.item is None else f"[{self.item}]"
        return f"{self.path}{':in' if self.into else ''}{item}{'' if self.call is None else f'#{self.call}'}"

    @property
    def place(self) -> str:
        """The text without the run."""
        return str(self).partition("#")[0]


def parse(text: str) -> Read:
    """The tap that `text` means; TapError where it does not read.

    >>> parse("layers.2:in[1]#0")
    Read(path='layers.2', into=True, item=1, call=0, first=False)
    """
    found = TEXT.fullmatch(text)
    if found is None:
        raise TapError(f"{text!r} does not read as a tap", hint="a module path, then :in, [item], #call in this order: 'layers.2:in[1]#0'")
    item, call = found["item"], found["call"]
    return Read(found["path"], found["into"] is not None, None if item is None else int(item), None if call is None else int(call))
