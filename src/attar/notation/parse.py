"""Text → tree, by `ast` and a whitelist, within bounds that are checked before `ast` sees the text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from attar.errors import NotationError
from attar.notation.tree import Call, List, Minus, Name, Node, Place, Product, Sum, Value, cut, is_number, refuse

__all__ = ["parse"]

MAX_CHARACTERS = 10_000
MAX_DEPTH = 32
MAX_TOKENS = 2_000
MAX_OPERATORS = 256  # keeps a chain of them from being a deep tree before it is flattened
MAX_INTEGER = 2**63 - 1

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<number>\.?[0-9](?:[eE][+-]|[\w.])*)
      | (?P<word>[^\W\d]\w*)
      | (?P<mark>[()\[\],=+*-])""",
    re.VERBOSE,
)
_ALLOWED = "there are numbers, texts in quotes, True, False, None, word(...), [...], + and *"
_STRANGERS = {
    "#": "a comment stands on a line of its own; a # inside quotes is fine",
    "{": "there are no maps here: write word(name=value)",
    ":": "write name=value",
    ".": "a word has no dots; --set is the place for student.width=32",
    '"': "the text that begins here is not closed",
    "'": "the text that begins here is not closed",
    "/": "write the result: 0.25 for 1/4",
}


def parse(text: str) -> Node:
    """The unevaluated tree of `text`; raises NotationError with the place if it does not read.

    >>> parse("0.5 * kl()")
    Product(items=(Value(value=0.5), Call(name='kl', args=(), kwargs=())))
    """
    text = text.strip()
    _check(text)
    try:  # no newline is inside quotes (`_check`), and every replacement is as long as what it replaces: places stay right
        tree = ast.parse(re.sub(r"[\t\r\n]", " ", text), mode="eval")
    except SyntaxError as error:
        start = max(0, (error.offset or 1) - 1)
        end = error.end_offset - 1 if error.end_offset and error.end_lineno == error.lineno else start + 1
        what = error.msg.removeprefix("invalid syntax. ") if error.msg != "invalid syntax" else "this does not read"
        raise NotationError(f"{what}\n{Place(text, start, end)}", hint=_ALLOWED) from None
    except (RecursionError, MemoryError):
        raise NotationError(f"text is too deep to be read: {cut(text)}", hint="nest less") from None
    return _Reader(text).node(tree.body)


def _check(text: str) -> None:
    """Everything that must hold before `ast` sees the text: its size, its depth, its letters."""
    if not text:
        raise NotationError("the text is empty", hint=_ALLOWED)
    if len(text) > MAX_CHARACTERS:
        raise NotationError(f"a text of {len(text):,} characters, where {MAX_CHARACTERS:,} are allowed: {cut(text)}")
    depth = tokens = operators = position = 0
    last = ""
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            letter = text[position]
            refuse(f"{letter!r} cannot stand here", Place(text, position, position + 1), _STRANGERS.get(letter, _ALLOWED))
        kind, token, place = found.lastgroup, found[0], Place(text, found.start(), found.end())
        position = found.end()
        if kind == "space":
            continue
        tokens += 1
        if kind == "mark":
            depth += (token in "([") - (token in ")]")
            operators += token in "+*-"
        elif kind == "number":
            _check_number(token, place)
        elif kind == "text":
            if last in ("text", "word"):
                refuse("a text follows without a comma", place, "write a comma between two arguments; no letter may precede a quote")
            for escape in re.finditer(r"\\(.)", token):
                if escape[1] not in "\\\"'nrtxuU":
                    refuse(f"{escape[0]} means nothing", place, r"write \\ for a backslash")
            if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in token):
                refuse("a control character inside a text", place, r"write it as \n, \t or \x00")
        if depth > MAX_DEPTH:
            refuse(f"brackets are nested deeper than {MAX_DEPTH}", place, "nest less")
        if tokens > MAX_TOKENS or operators > MAX_OPERATORS:
            limit = f"{MAX_TOKENS:,} parts" if tokens > MAX_TOKENS else f"{MAX_OPERATORS} of + * -"
            refuse(f"a text of more than {limit}", place, "say less in one text")
        last = kind or ""


def _check_number(token: str, place: Place) -> None:
    try:
        number = float(token) if len(token) <= 64 else None
    except ValueError:
        number = None
    if number is None:
        refuse(f"{cut(token)} is not a number", place, "numbers are like 3, 0.5 or 1e-3")
    if number == float("inf") or (token.replace("_", "").isdecimal() and int(token) > MAX_INTEGER):
        refuse(f"{cut(token)} is too large", place, f"whole numbers end at {MAX_INTEGER}, others at 1.8e308")


class _Reader:
    """`ast` → Node, by a whitelist: what is not named here is refused."""

    def __init__(self, text: str) -> None:
        self.text = text
        # ast counts bytes of UTF-8; this is the character at each byte
        self.character = [i for i, letter in enumerate(text) for _ in letter.encode()] if not text.isascii() else None

    def place(self, tree: ast.expr | ast.keyword) -> Place:
        start, end = tree.col_offset, tree.end_col_offset or tree.col_offset
        if self.character is not None:
            start, end = self.character[start], self.character[end - 1] + 1
        return Place(self.text, start, end)

    def node(self, tree: ast.expr) -> Node:
        at = self.place(tree)
        match tree:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return Value(value, at)
            case ast.Name(id=name):
                return Name(name, at)
            case ast.List(elts=items):
                return List(tuple(self.node(i) for i in items), at)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                return Call(name, tuple(self.node(a) for a in args), tuple(self.keywords(keywords)), at)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.minus(operand, at)
            case ast.BinOp(op=ast.Add() | ast.Mult() as op):
                items = tuple(self.node(i) for i in _chain(tree, type(op)))
                return Sum(items, at) if isinstance(op, ast.Add) else Product(items, at)
            case ast.BinOp(op=ast.Sub()):
                refuse("there is no subtraction", at, "write a + -0.5 * b")
            case ast.Tuple():
                refuse("round brackets make no list", at, "write [a, b]")
            case ast.Call(func=func):
                refuse("only a word can be called", self.place(func), "write word(...)")
        refuse("this cannot stand here", at, _ALLOWED)

    def keywords(self, keywords: list[ast.keyword]) -> Iterator[tuple[str, Node]]:
        seen = set()
        for keyword in keywords:
            if keyword.arg is None:
                refuse("arguments cannot be unpacked", self.place(keyword), "write name=value for each")
            if keyword.arg in seen:
                refuse(f"{keyword.arg!r} is given twice", self.place(keyword), "leave one of them out")
            seen.add(keyword.arg)
            yield keyword.arg, self.node(keyword.value)

    def minus(self, operand: ast.expr, at: Place) -> Node:
        item = self.node(operand)
        if isinstance(item, Value) and isinstance(item.value, int | float) and is_number(item) and not isinstance(operand, ast.UnaryOp):
            return Value(-item.value, at)
        if isinstance(item, Value | List | Minus):
            refuse("a minus stands before a number or a term", at, _ALLOWED)
        return Minus(item, at)


def _chain(tree: ast.expr, op: type[ast.operator]) -> list[ast.expr]:
    """The operands of `a + b + c`, which `ast` nests to the left, without recursion."""
    items = []
    while isinstance(tree, ast.BinOp) and isinstance(tree.op, op):
        items.append(tree.right)
        tree = tree.left
    return [tree, *reversed(items)]
