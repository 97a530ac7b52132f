"""Spaces: what a search may choose in a text, `mlp(width=integer(8, 128))`, found in its tree and filled in again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal

from attar.errors import AttarError, NotationError
from attar.notation.annotations import parameters_of
from attar.notation.resolve import Vocabulary, resolve
from attar.notation.tree import NOWHERE, Call, List, Minus, Name, Node, Place, Product, Sum, Value, cut, is_number, literal, refuse, write

__all__ = ["SPACES", "Hole", "Space", "between", "calls", "changed", "choice", "integer", "log"]

Kind = Literal["choice", "between", "log", "integer"]
_MARK = "?"  # begins the name that stands for a hole in a space's form; no text can have it


# --- the words ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Range:
    """Numbers from `low` to `high`, both included. See `between`, `log` and `integer`."""

    kind: Literal["between", "log", "integer"]
    low: float
    high: float
    log: bool

    def __repr__(self) -> str:
        return f"{self.kind}({literal(self.low)}, {literal(self.high)}{', log=True' * (self.kind == 'integer' and self.log)})"


@dataclass(frozen=True, repr=False)
class Choice:
    """One of `items`. See `choice`."""

    items: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"choice({', '.join(literal(i) for i in self.items)})"


def choice(*items: Any) -> Choice:
    """One of the items: numbers, texts, lists or whole words, which may hold spaces of their own.

    A search tries each item as it is written, and gives no order to them; of numbers in a row `integer` says more. What stands within
    an item is searched only where that item is taken. Raises NotationError for fewer than two items, or the same one twice.

    `student: choice(mlp(width=integer(4, 64)), lightgbm(trees=integer(20, 300)))`

    >>> choice(1, 2, 4)
    choice(1, 2, 4)
    """
    if not items:
        raise NotationError("choice() is empty", hint="choice(1, 2, 3) is one of three")
    said = [literal(i) for i in items]
    if len(said) == 1:
        raise NotationError(f"choice({said[0]}) leaves no choice", hint=f"write {said[0]}")
    if twice := next((text for i, text in enumerate(said) if text in said[:i]), ""):
        raise NotationError(f"{cut(twice)} stands twice in choice()", hint="leave one of them out")
    return Choice(items)


def between(low: float, high: float) -> Range:
    """A number from `low` to `high`, all differences alike: for weights and shares.

    Raises NotationError where low is not below high. For what counts by its ratio, such as temperatures, there is `log`.

    `objective: blend(kl(), labels(), weight=between(0.5, 1))`

    >>> between(0.5, 1)
    between(0.5, 1.0)
    """
    return _range("between", float(low), float(high))


def log(low: float, high: float) -> Range:
    """A number from `low` to `high`, all ratios alike: for learning rates and temperatures.

    Raises NotationError where low is not below high, or not above 0.

    `fit: fit(lr=log(1e-3, 2e-2))`

    >>> log(1, 8)
    log(1.0, 8.0)
    """
    return _range("log", float(low), float(high), logarithmic=True)


def integer(low: int, high: int, log: bool = False) -> Range:
    """A whole number from `low` to `high`, both included: for widths and depths.

    log: all ratios are alike, so that 8 to 16 is searched as much as 64 to 128; `low` is then 1 at least.
    Raises NotationError where low is not below high.

    `student: mlp(width=integer(8, 128, log=True), depth=integer(1, 4))`

    >>> integer(8, 128, log=True)
    integer(8, 128, log=True)
    """
    return _range("integer", low, high, logarithmic=log)


def _range(kind: Literal["between", "log", "integer"], low: float, high: float, *, logarithmic: bool = False) -> Range:
    said = f"{kind}({literal(low)}, {literal(high)})"
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NotationError(f"{said}: bounds are finite numbers", hint=f"{kind}(1, 8)")
    if low > high:
        raise NotationError(f"{said}: low={literal(low)} is above high={literal(high)}", hint=f"{kind}({literal(high)}, {literal(low)})")
    if low == high:
        raise NotationError(f"{said} leaves no choice", hint=f"write {literal(low)}")
    if logarithmic and low <= 0:
        otherwise = "log=False" if kind == "integer" else f"between({literal(low)}, {literal(high)})"
        raise NotationError(f"{said}: ratios need bounds above 0, low is {literal(low)}", hint=f"{otherwise} counts differences")
    return Range(kind, low, high, logarithmic)


SPACES: Mapping[str, Callable[..., Any]] = MappingProxyType({word.__name__: word for word in (choice, between, log, integer)})
"""The words of spaces, by name."""


# --- what is searched --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hole:
    """One thing that a search chooses.

    name: where it stands, "student.width", "objective.kl.temperature", "student" for a whole line; unique in its recipe.
    low, high: of numbers, both included; None of a choice. log: ratios count, not differences. items: of a choice, as written.
    within: (name of a choice, text of its item), outermost first: only where a point has all of them is this one asked for.
    word, argument: whose value it is; "" where it is none's.
    """

    name: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    log: bool = False
    items: tuple[Node, ...] = ()
    within: tuple[tuple[str, str], ...] = ()
    word: str = ""
    argument: str = ""
    at: Place = field(default=NOWHERE, compare=False, repr=False)

    @property
    def texts(self) -> tuple[str, ...]:
        """The items of a choice as a point names them."""
        return tuple(write(item) for item in self.items)

    @property
    def text(self) -> str:
        """The space as it is written."""
        if self.low is None or self.high is None:
            return f"choice({', '.join(self.texts)})"
        return repr(Range(self.kind, self.low, self.high, self.log))  # type: ignore[arg-type] a choice has no bounds

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that a space is tried at when it is read: both bounds of a range, each item of a choice."""
        return self.texts if self.kind == "choice" else (self.low, self.high)

    @property
    def middle(self) -> Any:
        """The value half way, by ratio where ratios count; of a choice of numbers the one in the middle, of another the first."""
        if self.low is None or self.high is None:
            return self.texts[(len(self.items) - 1) // 2 if all(is_number(i) for i in self.items) else 0]
        half = math.sqrt(self.low * self.high) if self.log else self.low + (self.high - self.low) / 2
        half = round(half) if self.kind == "integer" else float(f"{half:.4g}")  # four digits: it will be read
        return min(max(half, self.low), self.high)

    def asked(self, point: Mapping[str, Any]) -> bool:
        """Whether the choices that `point` has made so far lead here."""
        return all(point.get(name) == text for name, text in self.within)

    def holds(self, value: Any) -> bool:
        """Whether a point may have this value here: an item's text, a whole number or a number within the bounds."""
        if self.low is None or self.high is None:
            return isinstance(value, str) and value in self.texts
        number = isinstance(value, Integral if self.kind == "integer" else Real) and not isinstance(value, bool)
        return number and self.low <= float(value) <= self.high  # NaN is not


@dataclass(frozen=True)
class Space:
    """A tree with holes, and what may fill them. See `of`.

    node: the tree as it was written. holes: in the order in which they are asked for: a choice before what stands within its items.
    """

    key: str
    node: Node
    holes: tuple[Hole, ...]
    _form: Node = field(repr=False, compare=False)  # the tree with a marked name for each hole
    _items: Mapping[str, tuple[Node, ...]] = field(repr=False, compare=False)  # of each choice, in this form

    @classmethod
    def of(cls, node: Node, key: str, words: Vocabulary = MappingProxyType({})) -> Space:
        """The space in a tree; one without holes where nothing is to be chosen.

        key: what the names of holes begin with. words: tell how arguments are called that are written by place.
        Raises NotationError with the place for bounds that are no bounds, a choice of fewer than two, a space within a range.

        >>> from attar.notation import parse
        >>> space = Space.of(parse("mlp(width=integer(8, 64), depth=choice(1, 2))"), "student")
        >>> [hole.name for hole in space.holes], space.size
        (['student.width', 'student.depth'], 114)
        >>> write(space.at({"student.width": 16, "student.depth": "2"}))
        'mlp(width=16, depth=2)'
        """
        finder = _Finder(words)
        form = finder.marked(node, _Spot((key,), top=True))
        return cls(key, node, tuple(finder.holes), form, finder.items)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to choose."""
        return not self.holes

    @property
    def size(self) -> int | None:
        """How many points there are; None where a range is continuous."""
        return self._size(self._form)

    def at(self, point: Mapping[str, Any]) -> Node:
        """The tree with each hole filled by its value in `point`, which may name more than is asked for here.

        Raises NotationError for a hole that `point` leaves out, and for a value outside.
        """
        return self._filled(self._form, point)

    def contains(self, point: Mapping[str, Any]) -> bool:
        """Whether `point` has a value within its bounds for every hole that is asked for."""
        return all(hole.holds(point.get(hole.name)) for hole in self.holes if hole.asked(point))

    def middle(self) -> dict[str, Any]:
        """A point half way in every hole that is asked for; the first item of a choice of words."""
        return self._point(lambda hole: hole.middle)

    def check(self, resolve: Callable[[Node], object]) -> None:
        """Raise what `resolve` raises of a bound or an item, with whatever else is chosen; where nothing is to choose, of the tree.

        Each bound and item is tried with all else half way, then at its lower, then at its upper end: what is refused in one company may
        be fine in another, heads that do not divide one width divide the next. What else is chosen together may still be refused.
        Where a range of numbers stands for a whole number the hint is the `integer` that would do.
        """
        if self.empty:
            resolve(self.node)
        for hole in self.holes:
            for value in hole.ends:
                fixed = dict([*hole.within, (hole.name, value)])
                refused: list[AttarError] = []
                for end in (lambda h: h.middle, lambda h: h.ends[0], lambda h: h.ends[-1]):
                    try:
                        resolve(self.at(self._point(end, fixed)))
                        break
                    except AttarError as error:
                        refused.append(error)
                else:
                    if whole := self._whole(self._point(lambda h: h.middle, fixed), resolve):
                        refused[0].hint = whole
                    raise refused[0]

    def _whole(self, point: Mapping[str, Any], resolve: Callable[[Node], object]) -> str:
        """Of a point that is refused, what its ranges of numbers should be where 8 is taken and 8.0 is not; "" where that is not it."""
        numbers = {}
        for hole in self.holes:
            if hole.name in point and hole.kind in ("between", "log") and hole.low is not None and hole.high is not None:
                low, high = math.ceil(hole.low), math.floor(hole.high)
                if low < high:
                    numbers[hole.name] = replace(hole, kind="integer", low=low, high=high)
        point = {**point, **{name: min(max(round(point[name]), hole.low), hole.high) for name, hole in numbers.items()}}

        def taken(but: str = "") -> bool:
            holes = (hole if hole.name == but else numbers.get(hole.name, hole) for hole in self.holes)
            try:
                resolve(replace(self, holes=tuple(holes)).at(point))
            except AttarError:
                return False
            return True

        return " and ".join(hole.text for name, hole in numbers.items() if not taken(name)) if taken() else ""

    def _point(self, value: Callable[[Hole], Any], fixed: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        point: dict[str, Any] = {}
        for hole in self.holes:
            if hole.asked(point):
                point[hole.name] = fixed[hole.name] if hole.name in fixed else value(hole)
        return point

    def _hole(self, name: str) -> Hole:
        return next(hole for hole in self.holes if hole.name == name)

    def _filled(self, form: Node, point: Mapping[str, Any]) -> Node:
        match form:
            case Name(name=name) if name.startswith(_MARK):
                hole = self._hole(name.removeprefix(_MARK))
                if hole.name not in point:
                    refuse(f"the point has no {hole.name}", hole.at, _what(hole))
                value = point[hole.name]
                if not hole.holds(value):
                    raise NotationError(f"{hole.name}={cut(literal(value))} lies outside of {cut(hole.text)}\n{hole.at}", hint=_what(hole))
                if hole.kind == "choice":
                    return self._filled(self._items[hole.name][hole.texts.index(value)], point)
                return Value(int(value) if hole.kind == "integer" else float(value), hole.at)
            case _:
                return _canonical(_mapped(form, lambda part, _: self._filled(part, point)))

    def _size(self, form: Node) -> int | None:
        if isinstance(form, Name) and form.name.startswith(_MARK):
            hole = self._hole(form.name.removeprefix(_MARK))
            if hole.kind == "choice":
                sizes = [self._size(item) for item in self._items[hole.name]]
                return None if None in sizes else sum(s for s in sizes if s is not None)
            return int(hole.high - hole.low) + 1 if hole.kind == "integer" and hole.low is not None and hole.high is not None else None
        sizes = [self._size(part) for part in _parts(form)]
        return None if None in sizes else math.prod(s for s in sizes if s is not None)


def calls(node: Node, words: Collection[str] = SPACES) -> Iterator[Call]:
    """The calls of these words in a tree, from the outside in, as they are written; those of spaces where nothing is said."""
    if isinstance(node, Call) and node.name in words:
        yield node
    for part in _parts(node):
        yield from calls(part, words)


def changed(node: Node, words: Collection[str], change: Callable[[Call], Node]) -> Node:
    """The tree with each call of these words changed."""
    if isinstance(node, Call) and node.name in words:
        return change(node)
    return _canonical(_mapped(node, lambda part, _: changed(part, words, change)))


# --- reading the tree --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spot:
    """Where in a text the reader is. path: the key, and the words gone through. word, argument: whose value stands here, "" for none."""

    path: tuple[str, ...]
    argument: str = ""
    within: tuple[tuple[str, str], ...] = ()
    top: bool = False
    word: str = ""

    @property
    def name(self) -> str:
        return ".".join([*self.path, self.argument] if self.argument else self.path)


@dataclass
class _Finder:
    """Collects holes while it goes through a tree, and puts marked names in their places."""

    words: Vocabulary
    holes: list[Hole] = field(default_factory=list)
    items: dict[str, tuple[Node, ...]] = field(default_factory=dict)

    def marked(self, node: Node, spot: _Spot) -> Node:
        if isinstance(node, Call) and node.name in SPACES:
            return self.hole(node, spot)
        inner = replace(spot, top=False)
        if isinstance(node, Call):
            inner = replace(inner, path=spot.path if spot.top else (*spot.path, node.name), word=node.name)
            names = self.names(node)
            return _mapped(node, lambda part, which: self.marked(part, replace(inner, argument=names[which])))
        if isinstance(node, Product):
            term = next((i.name for i in node.items if isinstance(i, Call) and i.name not in SPACES), "")
            weight = replace(inner, path=(*spot.path, term) if term else spot.path, word="", argument="weight")
            return _mapped(node, lambda part, _: self.marked(part, weight if _is_number(part) else inner))
        return _mapped(node, lambda part, _: self.marked(part, inner))

    def names(self, node: Call) -> list[str]:
        """What the arguments of a call are called, as they are written; of unknown words those by place are counted."""
        callee = self.words.get(node.name)
        places = [] if callee is None else [p for p in parameters_of(callee).values() if p.kind is not p.KEYWORD_ONLY]
        several = bool(places) and places[-1].kind is places[-1].VAR_POSITIONAL
        names = [places[i].name if i < len(places) else places[-1].name if several else str(i) for i, _ in enumerate(node.args)]
        return [*names, *(name for name, _ in node.kwargs)]

    def hole(self, node: Call, spot: _Spot) -> Node:
        name = self.free(spot.name)
        if node.name == "choice":
            items = _chosen_from(node)
            hole = Hole(name, "choice", None, None, False, items, spot.within, spot.word, spot.argument, node.at)
            self.holes.append(hole)
            texts = hole.texts
            self.items[name] = tuple(
                self.marked(item, replace(spot, within=(*spot.within, (name, text)), top=False))
                for item, text in zip(items, texts, strict=True)
            )
        else:
            if inner := next((s for part in _parts(node) for s in calls(part)), None):
                refuse(f"a space within {node.name}(): its bounds are numbers", inner.at, f"choice({node.name}(1, 8), {node.name}(2, 16))")
            found = resolve(node, SPACES)
            bounds = (found.kind, found.low, found.high, found.log)
            self.holes.append(Hole(name, *bounds, (), spot.within, spot.word, spot.argument, node.at))
        return Name(_MARK + name, node.at)

    def free(self, name: str) -> str:
        """`name`, or where it is taken `name` with the first number from 2 that is free."""
        taken = {hole.name for hole in self.holes}
        number = 2
        free = name
        while free in taken:
            free, number = f"{name}{number}", number + 1
        return free


def _chosen_from(node: Call) -> tuple[Node, ...]:
    """The items of a choice, checked as `choice` does."""
    if node.kwargs:
        refuse(f"choice() has no argument {node.kwargs[0][0]!r}", node.at, "its items stand by place: choice(1, 2, 3)")
    texts = [write(item) for item in node.args]
    if not texts:
        refuse("choice() is empty", node.at, "choice(1, 2, 3) is one of three")
    if len(texts) == 1:
        refuse(f"choice({cut(texts[0])}) leaves no choice", node.at, f"write {texts[0]}")
    for i, text in enumerate(texts):
        if text in texts[:i]:
            refuse(f"{cut(text)} stands twice in choice()", node.args[i].at, "leave one of them out")
    return node.args


def _is_number(node: Node) -> bool:
    """Whether a factor is a space of numbers."""
    if not isinstance(node, Call) or node.name not in SPACES:
        return False
    return node.name != "choice" or all(is_number(item) or _is_number(item) for item in node.args)


def _what(hole: Hole) -> str:
    kind = {"choice": "the text of one of its items", "integer": "a whole number"}.get(hole.kind, "a number")
    return kind if hole.kind == "choice" else f"{kind} from {literal(hole.low)} to {literal(hole.high)}"


def _parts(node: Node) -> tuple[Node, ...]:
    match node:
        case Call(args=args, kwargs=kwargs):
            return (*args, *(value for _, value in kwargs))
        case List(items=items) | Sum(items=items) | Product(items=items):
            return items
        case Minus(item=item):
            return (item,)
        case _:
            return ()


def _mapped(node: Node, change: Callable[[Node, int], Node]) -> Node:
    """The node with each of its parts changed; `change` is told which of them it is, arguments by name following those by place."""
    match node:
        case Call(args=args, kwargs=kwargs):
            new = [change(part, i) for i, part in enumerate(_parts(node))]
            named = tuple((name, part) for (name, _), part in zip(kwargs, new[len(args) :], strict=True))
            return replace(node, args=tuple(new[: len(args)]), kwargs=named)
        case List(items=items) | Sum(items=items) | Product(items=items):
            return replace(node, items=tuple(change(part, i) for i, part in enumerate(items)))
        case Minus(item=item):
            return replace(node, item=change(item, 0))
        case _:
            return node


def _canonical(node: Node) -> Node:
    """The node as its own text would be read: what was filled in may be a sum within a sum, or a number behind a minus."""
    match node:
        case Sum(items=(Sum(items=first), *rest)) | Product(items=(Product(items=first), *rest)):
            return replace(node, items=(*first, *rest))
        case Minus(item=Value(value=value)) if is_number(node.item):
            assert isinstance(value, int | float)  # is_number
            return Value(-value, node.at)
        case Minus(item=Minus(item=item)):
            return item
        case Minus(item=Value() | List()):
            refuse(f"a minus stands before a number or a term, not {cut(write(node.item))}", node.item.at, "take the minus into the items")
        case _:
            return node
