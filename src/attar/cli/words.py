"""`attar words`: the vocabulary, one sentence for each word, and everything about one."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from attar.errors import NotationError, near
from attar.notation import signature
from attar.recipe import KEYS, vocabulary

__all__ = ["tell", "tell_all"]


def tell_all(trust: Sequence[str] = ()) -> None:
    """Print every key with its words."""
    console = Console(highlight=False)
    for key in KEYS:
        _tell_key(console, key, trust)
    console.print("attar words WORD tells all about one word; a recipe is lines of KEY: WORD(...)", style="dim")


def tell(word: str, trust: Sequence[str] = ()) -> None:
    """Print signature and documentation of `word`, or the words of a key; NotationError names near ones."""
    console = Console(highlight=False)
    known = {key: vocabulary(key, trust) for key in KEYS}
    found: dict[Callable[..., Any], list[str]] = {}
    for key, words in known.items():
        if word in words:
            found.setdefault(words[word], []).append(key)
    if not found and word in KEYS:
        _tell_key(console, word, trust)
    elif not found:
        everything = {name for words in known.values() for name in words} | set(KEYS)
        if Path(word).exists():
            raise NotationError(f"{word!r} is a path, not a word", hint="attar words lists the words; attar show RECIPE reads a recipe")
        raise NotationError(f"there is no word {word!r}", hint=f"{near(word, everything)} attar words lists them all".strip())
    for callee, keys in found.items():
        _tell_word(console, word, callee, keys)


def _tell_key(console: Console, key: str, trust: Sequence[str]) -> None:
    console.print(Text.assemble((f"{key:<12}", "bold"), (KEYS[key].says, "dim")))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, min_width=15)
    table.add_column()
    words = vocabulary(key, trust)
    others = _words_of_others(key, words)
    for name, callee in words.items():
        if name not in others:
            table.add_row(Text(name, "cyan"), Text(_sentence(callee)))
    for text, says in KEYS[key].choices.items():
        table.add_row(Text(text, "cyan"), Text(says))
    console.print(Padding(table, (0, 0, 0, 2)))
    if others:
        console.print(Text.assemble("  and of ", (others[next(iter(others))], "bold"), ": ", (" ".join(others), "cyan")))
    console.print()


def _words_of_others(key: str, words: dict[str, Callable[..., Any]]) -> dict[str, str]:
    """Words of this key that belong to another: {name: the other key}."""
    owners = {v.rooms[0]: k for k, v in KEYS.items() if v.rooms}
    room = KEYS[key].rooms[:1]
    return {
        name: owner
        for name, word in words.items()
        for start, owner in owners.items()
        if owner != key and (start,) != room and (word.__module__ == start or word.__module__.startswith(start + "."))
    }


def _tell_word(console: Console, name: str, callee: Callable[..., Any], keys: Sequence[str]) -> None:
    console.print(Text(_wrapped_signature(name, callee, console.width), "bold cyan"))
    console.print(Text(f"under {', '.join(keys)}", "dim"))
    console.print()
    arguments = "|".join(inspect.signature(callee).parameters) or "-"
    head = re.compile(rf"(?:{arguments})(?:, (?:{arguments}))*: ")
    for paragraph in inspect.cleandoc(callee.__doc__ or "").split("\n\n"):
        for line in _reflowed(paragraph, head, min(console.width, 100)):
            text = Text(line, "green" if line.startswith((">>>", "...")) else "")
            if found := head.match(line):
                text.stylize("cyan", 0, found.end() - 2)
            console.print(text, soft_wrap=True)
        console.print()


def _reflowed(paragraph: str, head: re.Pattern[str], width: int) -> list[str]:
    """The lines of a paragraph at another width: examples and formulas as they are, each argument with its text hanging below it."""
    lines = paragraph.splitlines()
    if not lines or lines[0].startswith((" ", ">>>")):
        return lines
    items: list[str] = []
    for line in lines:
        if items and not head.match(line):
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    hanging = "    " if head.match(lines[0]) else ""
    wrapper = textwrap.TextWrapper(width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)
    return [part for item in items for part in wrapper.wrap(item)]


def _wrapped_signature(name: str, callee: Callable[..., Any], width: int) -> str:
    """The signature on one line if it fits, else one argument a line."""
    line = signature(name, callee)
    if len(line) <= width:
        return line
    arguments = re.split(r", (?=\*?\w+: |\*?\w+ = )", line[len(name) + 1 : -1])
    return f"{name}(\n" + "".join(f"    {a},\n" for a in arguments) + ")"


def _sentence(callee: Callable[..., Any]) -> str:
    """The first sentence of what a word says of itself."""
    paragraph = " ".join(inspect.cleandoc(callee.__doc__ or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.;]) (?=[A-Z])", paragraph)[0]
