"""Tree → changed tree: one argument set from the command line, or every path rewritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from attar.errors import NotationError, near
from attar.notation.annotations import folder_of, hints_of, parameters_of, said, signature
from attar.notation.parse import parse
from attar.notation.places import in_package
from attar.notation.resolve import Vocabulary, resolve
from attar.notation.tree import Call, List, Minus, Name, Node, Place, Product, Sum, Value, cut, is_number, write

__all__ = ["map_paths", "override"]


def override(node: Node, path: str, text: str, vocabulary: Vocabulary) -> Node:
    """The tree with the argument at `path` replaced by `text`: what `--set student.width=32` does.

    path: argument names from the outside in, "builder.trees"; a number counts within a list, a sum or a product; "" is the whole.
    text: where the annotation wants a text, quotes may be left out, because a shell takes them away.

    >>> def mlp(width: int = 64, depth: int = 3): ...
    >>> print(write(override(parse("mlp(32)"), "width", "16", {"mlp": mlp})))
    mlp(16)
    """
    return _override(node, [p for p in path.split(".") if path], text, vocabulary, Any)


def _override(node: Node, path: list[str], text: str, vocabulary: Vocabulary, hint: Any) -> Node:
    if not path:
        return _given(text, hint)
    key, rest = path[0], path[1:]
    if isinstance(node, Call):
        return _override_argument(node, key, rest, text, vocabulary)
    if isinstance(node, List | Sum | Product):
        if not key.isdecimal() or int(key) >= len(node.items):
            raise NotationError(f"there is no part {key!r} in {cut(write(node))}", hint=f"parts are counted 0 to {len(node.items) - 1}")
        i = int(key)
        items = (*node.items[:i], _override(node.items[i], rest, text, vocabulary, Any), *node.items[i + 1 :])
        return parse(write(replace(node, items=items)))
    raise NotationError(f"{cut(write(node))} has no argument {key!r}", hint="an argument is set by name: student.width=32")


def _override_argument(node: Call, key: str, rest: list[str], text: str, vocabulary: Vocabulary) -> Node:
    callee = vocabulary.get(node.name)
    if callee is None:
        raise NotationError(f"there is no word {node.name!r} here", hint=near(node.name, vocabulary))
    parameters, hints = parameters_of(callee), hints_of(callee)
    says = f"it is {signature(node.name, callee)}"
    parameter = parameters.get(key)
    if parameter is None:
        close = near(key, parameters)
        raise NotationError(f"{node.name}() has no argument {key!r}", hint=f"{close} {says}" if close.startswith("did") else says)
    hint = hints.get(key, Any)
    names = [n for n, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    place = names.index(key) if key in names else len(node.args)
    if parameter.kind is parameter.VAR_POSITIONAL:
        whole = _override(List(node.args[place:]), rest, text, vocabulary, list[hint])
        if not isinstance(whole, List):
            raise NotationError(f"{key} of {node.name}() takes a list [...], got {cut(text)}", hint=says)
        return replace(node, args=(*node.args[:place], *whole.items))
    if place < len(node.args):
        new = _override(node.args[place], rest, text, vocabulary, hint)
        return replace(node, args=(*node.args[:place], new, *node.args[place + 1 :]))
    written = dict(node.kwargs)
    if rest and key not in written:
        raise NotationError(f"{key} of {cut(write(node))} is not written, so nothing within it can be set", hint=f"set {key} as a whole")
    written[key] = _override(written.get(key, Value(None)), rest, text, vocabulary, hint)
    return replace(node, kwargs=tuple(written.items()))


def _given(text: str, hint: Any) -> Node:
    """The tree of a value from the command line; a text may lack its quotes where a text is wanted."""
    wants = said(hint).split(" | ")
    is_text = any(w in ("str", "path") or w.startswith('"') for w in wants)
    if not is_text:
        return parse(text)
    try:
        node = parse(text)
    except NotationError:
        return _plain(text)
    if isinstance(node, Name):
        return _plain(text)
    return node if not is_number(node) or _fits(node, hint) else _plain(text)


def _fits(node: Node, hint: Any) -> bool:
    try:
        resolve(node, {}, hint=hint)
    except NotationError:
        return False
    return True


def _plain(text: str) -> Value:
    return Value(text, Place(text, 0, len(text)))


def map_paths(node: Node, vocabulary: Vocabulary, change: Callable[[str, Literal["recipe", "run"]], str]) -> Node:
    """The tree with every path in it changed by `change(path, "recipe" | "run")`; the names must be in `vocabulary`.

    A path into a package stays as it is.
    """
    return _map_paths(node, vocabulary, change, Any)


def _map_paths(node: Node, vocabulary: Vocabulary, change: Callable[[str, Literal["recipe", "run"]], str], hint: Any) -> Node:
    def within(item: Node, hint: Any = hint) -> Node:
        return _map_paths(item, vocabulary, change, hint)

    match node:
        case Value(value=str() as value):
            folder = folder_of(hint)
            return replace(node, value=change(value, folder.of)) if folder and not in_package(value) else node
        case List(items=items) | Sum(items=items) | Product(items=items):
            return replace(node, items=tuple(within(i) for i in items))
        case Minus(item=item):
            return replace(node, item=within(item))
        case Call(name="choice", args=args):  # its items stand where it stands
            return replace(node, args=tuple(within(a) for a in args))
        case Call(name=name, args=args, kwargs=kwargs):
            parameters, hints = parameters_of(vocabulary[name]), hints_of(vocabulary[name])
            names = [n for n, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
            new = tuple(within(a, hints.get(names[min(i, len(names) - 1)], Any)) for i, a in enumerate(args))
            return replace(node, args=new, kwargs=tuple((k, within(v, hints.get(k, Any))) for k, v in kwargs))
    return node
