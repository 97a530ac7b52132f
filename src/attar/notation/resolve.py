"""Tree → objects: names looked up in a vocabulary, arguments checked against the annotations of what they find, then called."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attar.errors import AttarError, NotationError, near
from attar.notation.annotations import Folders, Mismatch, folder_of, hints_of, parameters_of, said_to_people, signature
from attar.notation.parse import parse
from attar.notation.tree import Call, List, Minus, Name, Node, Place, Product, Sum, Value, cut, is_number, refuse, write

__all__ = ["Vocabulary", "read", "resolve"]

Vocabulary = Mapping[str, Callable[..., Any]]
"""The words that a text may use, and what each calls."""


def read(text: str, vocabulary: Vocabulary, *, base: Path | None = None, out: Path | None = None) -> Any:
    """`resolve(parse(text), ...)`: the object that `text` describes.

    >>> read("blend([1, 2], by=3)", {"blend": lambda items, by: (items, by)})
    ([1, 2], 3)
    """
    return resolve(parse(text), vocabulary, base=base, out=out)


def resolve(
    node: Node,
    vocabulary: Vocabulary,
    *,
    base: Path | None = None,
    out: Path | None = None,
    hint: Any = Any,
    what: str = "this",
    says: str = "",
) -> Any:
    """The object that a tree describes, every name looked up in `vocabulary` and every argument checked against its annotation.

    base: the folder that InPaths are joined to. out: the folder that OutPaths are and stay relative to; they may not leave its parent.
        None leaves paths as they are written. hint: the annotation that the result must satisfy.
    what, says: what an error calls the result, and what it hints at if the annotation is not satisfied.
    Raises NotationError with the place; an AttarError of a word keeps its class and gains the place.
    """
    return _Resolver(vocabulary, Folders(base, out)).fitted(node, hint, what, says)


@dataclass(frozen=True)
class _Resolver:
    vocabulary: Vocabulary
    folders: Folders

    def value(self, node: Node) -> Any:
        match node:
            case Value(value=value):
                return value
            case Name(name=name):
                close = near(name, self.vocabulary)
                otherwise = f"{close} " * close.startswith("did") + f'a text stands in quotes: "{name}"'
                refuse(f"{name!r} stands alone", node.at, f"write {name}()" if name in self.vocabulary else otherwise)
            case List(items=items):
                return [self.value(i) for i in items]
            case Call():
                return self.call(node)
            case Sum(items=items):
                return self.fold(node, items, operator.add)
            case Product(items=items):
                return self.fold(node, items, operator.mul)
            case Minus(item=item):
                value = self.value(item)
                with _placed(node.at):
                    return operator.neg(value)

    def fold(self, node: Sum | Product, items: Sequence[Node], operate: Callable[[Any, Any], Any]) -> Any:
        for i, item in enumerate(items):
            if isinstance(item, Value | List) and not (isinstance(node, Product) and is_number(item)):
                done = "added" if isinstance(node, Sum) else "multiplied"
                refuse(f"{cut(write(item))} cannot be {done}", item.at, "+ adds terms, * weighs them")
            if i and is_number(item) and is_number(items[i - 1]):
                refuse("* multiplies a number or a weight with a term", node.at, "write the product of the numbers")
        result = self.value(items[0])
        for item in items[1:]:
            value = self.value(item)
            with _placed(node.at):
                result = operate(result, value)
        return result

    def call(self, node: Call) -> Any:
        callee = self.vocabulary.get(node.name)
        if callee is None:
            place = replace(node.at, end=node.at.start + len(node.name))
            refuse(f"there is no word {node.name!r} here", place, near(node.name, self.vocabulary))
        positional, named = self.arguments(node, callee)
        with _placed(node.at):
            return callee(*positional, **named)

    def arguments(self, node: Call, callee: Callable[..., Any]) -> tuple[list[Any], dict[str, Any]]:
        parameters, hints = parameters_of(callee), hints_of(callee)
        says = f"it is {signature(node.name, callee)}"
        given = _bound(node, parameters, says)
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for name, parameter in parameters.items():
            hint = hints.get(name, Any)
            what = f"{name} of {node.name}()"
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional += [self.fitted(item, hint, what, says) for item in given.get(name, ())]
                continue
            if name in given:
                value = self.fitted(given[name][0], hint, what, says)
            elif parameter.default is parameter.empty:
                refuse(f"{node.name}() needs {name!r}", node.at, says)
            elif folder_of(hint) and isinstance(parameter.default, str):  # joined to the same folder as one that is written
                value = self.folders.fit(parameter.default, hint)
            else:
                value = parameter.default
            if parameter.kind is parameter.KEYWORD_ONLY:
                named[name] = value
            else:
                positional.append(value)
        return positional, named

    def fitted(self, node: Node, hint: Any, what: str, says: str = "") -> Any:
        value = self.value(node)
        try:
            return self.folders.fit(value, hint)
        except Mismatch as mismatch:
            got = cut(write(node))
            raise NotationError(f"{what} takes {said_to_people(hint)}, got {got}\n{node.at}", hint=mismatch.hint or says) from None


def _bound(node: Call, parameters: Mapping[str, inspect.Parameter], says: str) -> dict[str, list[Node]]:
    """The written arguments by parameter name; a list of one, or of several for `*items`."""
    given: dict[str, list[Node]] = {}
    places = [p for p in parameters.values() if p.kind is not p.KEYWORD_ONLY]
    for i, arg in enumerate(node.args):
        if i < len(places) and places[i].kind is not inspect.Parameter.VAR_POSITIONAL:
            given[places[i].name] = [arg]
        elif places and places[-1].kind is inspect.Parameter.VAR_POSITIONAL:
            given.setdefault(places[-1].name, []).append(arg)
        else:
            count = f"{len(places)} argument{'s' * (len(places) != 1)} by place" if places else "arguments by name only"
            refuse(f"{node.name}() takes {count}, this is one more" if places else f"{node.name}() takes {count}", arg.at, says)
    for name, arg in node.kwargs:
        known = parameters.get(name)
        if known is None or known.kind in (known.VAR_POSITIONAL, known.POSITIONAL_ONLY):
            close = near(name, [p.name for p in parameters.values() if p.kind is not p.VAR_POSITIONAL])
            hint = f"{close} {says}" if close.startswith("did") else says
            refuse(f"{node.name}() has no argument {name!r}", _keyword_place(name, arg.at), hint)
        if name in given:
            refuse(f"{name!r} is given twice, by place and by name", _keyword_place(name, arg.at), says)
        given[name] = [arg]
    return given


def _keyword_place(name: str, value: Place) -> Place:
    start = value.text.rfind(name, 0, value.start)
    return value if start < 0 else Place(value.text, start, start + len(name))


@contextmanager
def _placed(place: Place) -> Iterator[None]:
    """Give an error raised by a word the place of its call."""
    try:
        yield
    except AttarError as error:
        error.message = f"{error.message}\n{place}"
        error.args = (error.message,)
        raise
    except (ValueError, TypeError) as error:
        raise NotationError(f"{error}\n{place}") from error
