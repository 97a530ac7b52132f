"""Recipes: a YAML file of plain strings, each read in the notation against the vocabulary of its key.

    data:      table("credit.csv", label="default")
    teacher:   taught(lightgbm(trees=600), at="teacher.txt")
    student:   mlp(width=64, depth=3)

Student, objective and fit may hold spaces, mlp(width=integer(8, 128)): then it is a recipe of a search, and each point of the search makes
a plain one of it.

Nothing in it has an implicit type, and nothing in it can execute code. Every error begins with the file, the line and the key.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from attar.errors import AttarError, NotationError, RecipeError, TrustError, near
from attar.notation import Call, List, Name, Node, Space, Value, calls, map_paths, override, parse, resolve, write

__all__ = ["KEYS", "SEARCHED", "Entry", "Recipe", "Resolved", "judged_by", "load", "of_texts", "prefixed", "vocabulary"]

NO_FILE = Path()  # of a recipe that is no file
MAX_BYTES = 256 * 1024
PICKLE = "pickle"  # `--trust pickle` lets a pickle be read; every other trusted name is a package that brings words


@dataclass(frozen=True)
class _Key:
    """What may stand under a key.

    says: what it is for. rooms: modules whose words it knows, the first wins. words: only these of them; () for all. but: not these. also:
    words of another module, by its name.
    wants: "module:name" of the type that it must come to, hint: what to say if it does not. need: must be there.
    many: it is a list of these. plain: the annotation of a text, a number or a list of texts, where no words stand.
    choices: these texts, each with what it means.
    """

    says: str
    rooms: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    wants: str = ""
    need: bool = False
    plain: Any = None
    many: bool = False
    hint: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    but: tuple[str, ...] = ()


Control = Literal["labels", "smooth", "hard", "shuffled"]
CONTROLS = {
    "labels": "the same student, trained on the labels alone",
    "smooth": "on labels smoothed by 0.1",
    "hard": "on the teacher's decisions alone",
    "shuffled": "on the teacher's answers, dealt among rows or outcomes that they do not belong to",
}
DEPLOY = {"float": "student.onnx", "int8": "student.int8.onnx, quantised"}

SEARCHED = ("student", "objective", "fit")  # keys that may hold spaces
SPACES = {"attar.notation.spaces": ("choice", "between", "log", "integer")}
AUTO = "auto"  # a space that data settle

KEYS: Mapping[str, _Key] = {
    "data": _Key("the rows, their splits and how they are varied", ("attar.data",), wants="attar.data.base:Described", need=True),
    "task": _Key(
        "what is asked, and how it is judged",
        ("attar.task",),
        ("classification", "multilabel", "regression", "embedding"),
        "attar.task:Task",
    ),
    "teacher": _Key(
        "whose answers are learned",
        ("attar.sources", "attar.students"),
        also={"attar.loop": ("fit",)},
        but=(AUTO,),
        wants="attar.signal:Source",
        need=True,
        hint='taught(..., at="teacher") teaches one',
    ),
    "student": _Key(
        "what learns them; left out, a run with a budget searches for one",
        ("attar.students",),
        wants="attar.signal:Student",
        need=True,
        also=SPACES,
    ),
    "objective": _Key("what is compared", ("attar.objective",), wants="attar.objective:as_objective", also=SPACES),
    "fit": _Key("how long and how fast it learns", ("attar.loop",), ("fit",), "attar.loop:Fit", also=SPACES),
    "controls": _Key("what the student is compared with, a list", plain=list[Control], choices=CONTROLS),
    "guard": _Key("when the student answers by itself", ("attar.guards",), ("guard", "unguarded"), "attar.guards:Rule"),
    "deploy": _Key("which exported file is certified", plain=Literal["float", "int8"], choices=DEPLOY),
    "shift": _Key(
        "other data sets, and corruptions of the test rows, that student and teacher are asked, a list",
        ("attar.data",),
        wants="attar.data:Elsewhere",
        many=True,
    ),
    "foreign": _Key(
        "rows that are not of the task, to be told from those that are, a list",
        ("attar.data",),
        wants="attar.data.unlabelled:Strangers",
        many=True,
        hint='unlabelled("out_of_scope.tsv") reads rows whatever their labels',
    ),
    "budget": _Key("what the student may cost", ("attar.cost",), ("budget",), "attar.cost:Budget"),
    "require": _Key("what the certificate must show", ("attar.certificate",), ("require",), "attar.certificate:Require"),
    "show_rows": _Key("how many rows that students lose the page shows, 100 at most; without it their ids alone", plain=int),
}
JUDGED_BY = ("require", "budget")  # what the certificate of a run can be held against when nobody is asked any more
DEFAULTS = {"deploy": "float"}
FROM_PYTHON = frozenset({"arrays", "as_data", "as_objective", "dataset", "frame", "module"})  # take objects that no text can name


# --- vocabularies ------------------------------------------------------------------------------------------------------------------


def vocabulary(key: str, trust: Sequence[str] = ()) -> dict[str, Callable[..., Any]]:
    """The words that may stand under `key`, by name; the rooms are imported now.

    trust: packages whose `attar_words`, {key: {name: callable}}, are known too; "pickle" is none.
    """
    words: dict[str, Callable[..., Any]] = {}
    for room in KEYS[key].rooms:
        module = importlib.import_module(room)
        for name in KEYS[key].words or [n for n in module.__all__ if n[0].islower() and n not in FROM_PYTHON]:
            if name in KEYS[key].but:
                continue
            words.setdefault(name, vars(module)[name])
    for room, names in KEYS[key].also.items():
        words |= {name: vars(importlib.import_module(room))[name] for name in names}
    for package in trust:
        for name, word in _foreign(package).get(key, {}).items():
            if name in words:
                raise TrustError(f"{package} brings the word {name!r} for {key}, which is known already", hint="trust one package less")
            words[name] = word
    return words


def _foreign(package: str) -> Mapping[str, Mapping[str, Callable[..., Any]]]:
    """The words of a trusted package; importing it runs its code, which is what trust means."""
    if package == PICKLE:
        return {}
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise TrustError(f"--trust {package}: {error}", hint="it must be installed beside attar, or lie on PYTHONPATH") from error
    words = vars(module).get("attar_words")
    if not isinstance(words, Mapping):
        raise TrustError(f"--trust {package}: it has no attar_words", hint="attar_words = {'objective': {'name': function}}")
    if strange := sorted(set(words) - {k for k, v in KEYS.items() if v.rooms}):
        raise TrustError(f"--trust {package}: attar_words names the key {strange[0]!r}", hint=near(strange[0], KEYS))
    return words


def _type_of(key: str) -> Any:
    """What the text under `key` must come to, as an annotation."""
    if KEYS[key].plain is not None:
        return KEYS[key].plain
    module, name = KEYS[key].wants.split(":")
    found = vars(importlib.import_module(module))[name]
    if KEYS[key].many:
        return list[found]
    if name != "as_objective":
        return found
    objective = importlib.import_module("attar.objective")
    return objective.Objective | objective.Term


# --- the recipe --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One line of a recipe: its key, the line number from 1 (0: it came from --set), the tree of its text, the --set that changed it."""

    key: str
    line: int
    node: Node
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A recipe as it was read, unevaluated. See `load`.

    path: the file, as it was named. entries: by key, in order. trust: what `--trust` named.
    """

    path: Path
    entries: Mapping[str, Entry]
    trust: tuple[str, ...] = ()

    def where(self, key: str) -> str:
        """Where a key stands, to begin an error with: "recipes/credit.yaml:3 (objective)"; of texts from Python the key alone."""
        entry = self.entries.get(key)
        if self.path == NO_FILE:
            return key
        if entry is None:
            return f"{self.path} ({key})"
        line = f":{entry.line}" if entry.line else ""
        return ", ".join([f"{self.path}{line} ({key})", *(f"--set {s}" for s in entry.settings)])

    def with_overrides(self, settings: Sequence[str]) -> Recipe:
        """The recipe changed by `--set` texts such as "student.width=32" or "objective=kl()", in order."""
        recipe = self
        for setting in settings:
            with prefixed(f"--set {setting}"):
                recipe = recipe._overridden(setting)
        return recipe

    def _overridden(self, setting: str) -> Recipe:
        path, equals, text = setting.partition("=")
        key, _, rest = path.strip().partition(".")
        if not equals or not key:
            raise NotationError("a setting is key=text or key.argument=text", hint="--set student.width=32")
        if key not in KEYS:
            raise NotationError(f"there is no key {key!r}", hint=near(key, KEYS))
        entry = self.entries.get(key) or Entry(key, 0, Value(None))
        words = {} if KEYS[key].plain is not None or not rest else vocabulary(key, self.trust)
        if rest and key not in self.entries:
            if KEYS[key].words != (key,):
                raise NotationError(f"the recipe says nothing of {key}, so nothing within it can be set", hint=f"--set {key}='...'")
            entry = replace(entry, node=Call(key))
        node = override(entry.node, rest, text, words)
        changed = replace(entry, node=_texts(node) if KEYS[key].plain is not None else node, settings=(*entry.settings, setting))
        return replace(self, entries={**self.entries, key: changed})

    def spaces(self) -> dict[str, Space]:
        """What a search may choose, by key: of student, objective and fit those that are named, `empty` where one holds no space.

        Every bound and every item is tried, see `Space.check`: what a word refuses whatever else is chosen is refused now. `auto()` stays
        as it is: only the data say what it comes to.
        Raises RecipeError for spaces that are none, and the errors of the words that are called with them, each with its line.
        """
        for key, space in self._spaces.items():
            with prefixed(self.where(key)):
                space.check(lambda node, key=key: self._value(replace(self.entries[key], node=node), Path(), settled=False))
        return dict(self._spaces)

    @cached_property
    def _spaces(self) -> Mapping[str, Space]:
        spaces: dict[str, Space] = {}
        for key in SEARCHED:
            if key in self.entries:
                with prefixed(self.where(key)):
                    spaces[key] = Space.of(self.entries[key].node, key, vocabulary(key, self.trust))
        return spaces

    def at(self, point: Mapping[str, Any]) -> Recipe:
        """The plain recipe at a point of its spaces: {"student.width": 32, "objective.kl.temperature": 2.0}, of a choice the item's text.

        Raises RecipeError for a hole that the point leaves out, a value outside, and a name that is no hole.
        """
        spaces = self._spaces
        names = {hole.name for space in spaces.values() for hole in space.holes}
        if strange := next((name for name in point if name not in names), None):
            file = "" if self.path == NO_FILE else f"{self.path}: "
            raise RecipeError(f"{file}there is no space {strange!r}", hint=near(strange, names) or "nothing is to be chosen here")
        entries = dict(self.entries)
        for key, space in spaces.items():
            with prefixed(self.where(key)):
                entries[key] = replace(entries[key], node=space.at(point))
        return replace(self, entries=entries)

    def text(self, out: str | Path) -> str:
        """The recipe with its spaces as they are and every other default written out, its paths relative to the run folder `out`.

        What a search leaves in its folder: read from there it has the same spaces and gives the same objects.
        """
        lines = ["# As it was searched, every default written out; paths are relative to this folder."]
        for key in (key for key in KEYS if key in self.entries):
            if key in SEARCHED:
                with prefixed(self.where(key)):
                    node = map_paths(self.entries[key].node, vocabulary(key, self.trust), lambda path, of: self._from(path, of, out))
            else:
                node = Resolved(self, Path(out), {key: self.value(key, out)})._node(key)
            lines.append(f"{key}: {_scalar(write(node))}")
        return "\n".join(lines) + "\n"

    def _from(self, path: str, of: Literal["recipe", "run"], out: str | Path) -> str:
        """A path as a recipe in `out` writes it."""
        return path if of == "run" else os.path.relpath(os.path.normpath(self.path.parent / path), out)

    def resolve(self, out: str | Path) -> Resolved:
        """Every word looked up and called; nothing is read, taught or written by that.

        out: the run folder, which output paths are relative to. What the recipe leaves out is filled in where its default is known
        before the data are read: fit and deploy. Objective, controls and guard depend on the task and on which rows have labels: the run
        fills them in.
        """
        entries = dict(self.entries)
        for key, entry in entries.items():  # before a teacher's file is read
            with prefixed(self.where(key)):
                _refuse_space(entry, self.path)
        if missing := [k for k, v in KEYS.items() if v.need and k not in entries]:
            raise RecipeError(f"{self.path}: no {' and no '.join(missing)}", hint=f"{missing[0]}: {KEYS[missing[0]].says}")
        entries |= {key: Entry(key, 0, _texts(parse(text))) for key, text in DEFAULTS.items() if key not in entries}
        entries.setdefault("fit", Entry("fit", 0, Call("fit")))
        values = {key: self._value(entries[key], Path(out)) for key in KEYS if key in entries}
        return Resolved(self, Path(out), values)

    def value(self, key: str, out: str | Path) -> Any:
        """What one key comes to, the others left alone; None where the recipe says nothing of it. out: as of `resolve`."""
        return self._value(self.entries[key], Path(out)) if key in self.entries else None

    def _value(self, entry: Entry, out: Path, *, settled: bool = True) -> Any:
        """settled: whether `auto()`, which data settle, is settled by now."""
        with prefixed(self.where(entry.key)), self._trusting():
            plain = KEYS[entry.key].plain is not None
            words = {} if plain else vocabulary(entry.key, self.trust)
            _refuse_space(entry, self.path, () if not settled and entry.key in SEARCHED else (AUTO,))
            return resolve(
                entry.node, words, base=self.path.parent, out=out, hint=_type_of(entry.key), what=entry.key, says=KEYS[entry.key].hint
            )

    def _trusting(self) -> AbstractContextManager[None]:
        """The leave to read pickles comes from the command line, never from the recipe."""
        if PICKLE not in self.trust:
            return nullcontext()
        return importlib.import_module("attar.sources.estimator").trusting_pickles()


@dataclass(frozen=True)
class Resolved:
    """The objects that a recipe describes, in `values` by key.

    Always there: data, teacher, student, fit, deploy. If named: task, objective, controls, guard, shift, foreign, budget, require,
    show_rows.
    """

    recipe: Recipe
    out: Path
    values: Mapping[str, Any] = field(repr=False)

    def text(self) -> str:
        """The recipe with its defaults written out, its paths relative to the run folder: read from there it gives the same objects."""
        lines = ["# As it was run, every default written out; paths are relative to this folder."]
        for key in KEYS:
            if key in self.values:
                lines.append(f"{key}: {_scalar(write(self._node(key)))}")
        return "\n".join(lines) + "\n"

    def _node(self, key: str) -> Node:
        if KEYS[key].plain is not None:
            value = self.values[key]
            if isinstance(value, int):
                return Value(value)
            return Name(value) if isinstance(value, str) else List(tuple(Value(v) for v in value))
        words = vocabulary(key, self.recipe.trust)
        return map_paths(parse(repr(self.values[key])), words, lambda path, of: path if of == "run" else os.path.relpath(path, self.out))


def load(path: str | Path, *, trust: Sequence[str] = (), keys: Sequence[str] = tuple(KEYS)) -> Recipe:
    """The recipe in a file: grammar and keys are checked now, words and arguments by `Recipe.resolve`.

    trust: packages whose words are known too; "pickle" lets pickles be read. keys: where only some are wanted, other lines may be
    anything: a run from Python leaves in its recipe.yaml what no text can name.
    Raises RecipeError for a file that is no mapping of plain strings, an unknown key, or a text that does not read.
    """
    path = Path(path)
    entries: dict[str, Entry] = {}
    content = _content(path)
    if set(keys) != set(KEYS):
        content = "\n".join(line if line.startswith(tuple(f"{key}:" for key in keys)) else "" for line in content.split("\n"))
    for key, line, text in list(_strings(path, content)):  # the whole file first: what YAML makes of a broken line is odd
        if key not in KEYS:
            raise RecipeError(f"{path}:{line}: there is no key {key!r}", hint=near(key, KEYS))
        if key in entries:
            raise RecipeError(f"{path}:{line} ({key}): the key stands already in line {entries[key].line}", hint="leave one of them out")
        with prefixed(f"{path}:{line} ({key})"):
            node = parse(text)
        entries[key] = Entry(key, line, _texts(node) if KEYS[key].plain is not None else node)
    return Recipe(path, entries, tuple(trust))


def of_texts(texts: Mapping[str, str], *, trust: Sequence[str] = ()) -> Recipe:
    """A recipe of texts by key that is no file, for `Recipe.spaces`, `Recipe.at` and `Recipe.value`; paths are relative to where it runs.

    Raises RecipeError for an unknown key, or a text that does not read.

    >>> recipe = of_texts({"student": "mlp(width=integer(8, 128))"})
    >>> recipe.at({"student.width": 16}).value("student", "run")
    mlp(width=16, depth=3, dropout=0.0, embed=4)
    """
    entries: dict[str, Entry] = {}
    for key, text in texts.items():
        if key not in KEYS:
            raise RecipeError(f"there is no key {key!r}", hint=near(key, KEYS))
        with prefixed(key):
            node = parse(text)
        entries[key] = Entry(key, 0, _texts(node) if KEYS[key].plain is not None else node)
    return Recipe(NO_FILE, entries, tuple(trust))


def judged_by(run: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What a run's recipe.yaml asks of its certificate, changed by `--set` texts: require and budget by key, None where there is none.

    Raises RecipeError where the recipe does not read, NotationError where a setting changes anything else.
    """
    path = run / "recipe.yaml"
    recipe = load(path, keys=JUDGED_BY) if path.exists() else Recipe(path, {})
    for setting in settings:
        if re.split("[.=]", setting, maxsplit=1)[0].strip() not in JUDGED_BY:
            what = f"a certificate is held against {' and '.join(JUDGED_BY)} alone"
            raise NotationError(f"--set {setting}: {what}", hint="--set require.margin=0.01")
    recipe = recipe.with_overrides(settings)
    return {key: recipe.value(key, run) for key in JUDGED_BY}


def _refuse_space(entry: Entry, path: Path, settled_by_data: Sequence[str] = (AUTO,)) -> None:
    """Raise NotationError where a plain value is wanted and a space stands."""
    space = next(calls(entry.node, (*SPACES["attar.notation.spaces"], *settled_by_data)), None)
    if space is None:
        return
    if entry.key not in SEARCHED:
        raise NotationError(
            f"{write(space)} is a space, and {entry.key} takes none\n{space.at}", hint=f"spaces are for {', '.join(SEARCHED)}"
        )
    raise NotationError(
        f"{write(space)} is a space, of which a search takes one value\n{space.at}",
        hint="attar.search" if path == NO_FILE else f"attar search {path}",
    )


def _texts(node: Node) -> Node:
    """Where only texts can stand, quotes may be left out: `deploy: int8`, `controls: [labels, hard]`."""
    if isinstance(node, Name):
        return Value(node.name, node.at)
    return replace(node, items=tuple(_texts(i) for i in node.items)) if isinstance(node, List) else node


@contextmanager
def prefixed(where: str) -> Iterator[None]:
    """Begin an error with where it is."""
    try:
        yield
    except AttarError as error:
        message = error.message if error.message.startswith(where) else f"{where}: {error.message}"
        if isinstance(error, NotationError):
            raise RecipeError(message, hint=error.hint) from error
        error.message = message
        error.args = (message,)
        raise


# --- the file ----------------------------------------------------------------------------------------------------------------------


def _content(path: Path) -> str:
    if not path.exists():
        others = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise RecipeError(f"{path}: there is no such file", hint=near(str(path), others))
    if not path.is_file():
        raise RecipeError(f"{path}: this is not a file", hint="a recipe is a YAML file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise RecipeError(f"{path}: {size:,} bytes, where {MAX_BYTES:,} are allowed", hint="a recipe names files, it does not hold them")
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}:{line}: this is not UTF-8 text", hint="a recipe is a YAML file") from None
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from error
    if not content.strip():
        raise RecipeError(f"{path}: the file is empty", hint="a recipe needs at least data, teacher and student")
    return content


def _strings(path: Path, content: str) -> Iterator[tuple[str, int, str]]:
    """(key, line, text) of a YAML mapping of plain strings, which is all of YAML that is allowed.

    A list in brackets is handed on as the text it is, for the notation has lists of the same form.
    """

    def refuse(event: yaml.Event | None, what: str, hint: str, key: str = "") -> RecipeError:
        line = event.start_mark.line + 1 if event is not None else 1
        return RecipeError(f"{path}:{line}{f' ({key})' * bool(key)}: {what}", hint=hint)

    events = _events(path, content)
    key: str | None = None
    line = opened = depth = 0
    begun = False
    for event in events:
        if isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentEndEvent):
            continue
        if isinstance(event, yaml.DocumentStartEvent):
            if begun or event.version or event.tags:
                raise refuse(event, "a second document, or a directive", "a recipe is one plain document")
            begun = True
            continue
        if isinstance(event, yaml.AliasEvent) or (isinstance(event, yaml.NodeEvent) and event.anchor is not None):
            raise refuse(event, "there are no anchors or aliases", "write the text out, or quote the whole value", key or "")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            raise refuse(event, "there are no tags", "every value is a plain text", key or "")
        if depth == 0:  # the document itself
            if not isinstance(event, yaml.MappingStartEvent) or event.flow_style:
                raise refuse(event, "a recipe is lines of key: text", 'data: table("rows.csv", label="y")')
            depth = 1
        elif isinstance(event, yaml.MappingStartEvent):
            raise refuse(event, "there are no maps within a recipe", "write word(name=value)", key or "")
        elif isinstance(event, yaml.SequenceStartEvent):
            if key is None or not event.flow_style:
                raise refuse(event, "there are no lists of lines within a recipe", "write [a, b] on one line", key or "")
            opened = event.start_mark.index if depth == 1 else opened
            depth += 1
        elif isinstance(event, yaml.SequenceEndEvent):
            depth -= 1
            if depth == 1 and key is not None:
                yield key, line, content[opened : event.end_mark.index]
                key = None
        elif isinstance(event, yaml.ScalarEvent) and depth == 1:
            if key is None:
                key, line = event.value, event.start_mark.line + 1
                continue
            rest = content[event.end_mark.index :].split("\n", 1)[0]
            if event.style is None and rest.lstrip().startswith("#"):
                hint = "put the comment on a line of its own, or the whole value in single quotes"
                raise refuse(event, f"the # cuts the value after {event.value!r}", hint, key)
            if not event.value.strip():
                raise refuse(event, "there is no value", f"{key}: {KEYS[key].says}" if key in KEYS else "", key)
            yield key, line, event.value
            key = None


def _events(path: Path, content: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(content, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = content.count("\n", 0, int(error.position)) + 1
        raise RecipeError(
            f"{path}:{line}: the character {chr(int(error.character))!r} cannot stand in a recipe", hint="is it a text file?"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        quoted = any(what in str(error.problem) for what in ("mapping values", "expected ',' or ']'"))  # of a list in a list of words, too
        hint = "put the whole value in single quotes" if quoted else "every line is key: text"
        raise RecipeError(f"{path}:{line}: {error.problem}", hint=hint) from None


def _scalar(text: str) -> str:
    """`text` as a value in YAML: plain where that is safe, else in single quotes."""
    words = text.startswith("[") and "(" in text  # YAML reads the brackets of a plain text itself, and knows no [word(x=[1])]
    safe = re.match(r"[\w\[]", text) and not words and ": " not in text and " #" not in text and not text.endswith(":")
    return text if safe else "'" + text.replace("'", "''") + "'"
