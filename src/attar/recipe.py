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
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from attar.errors import AttarError, NotationError, RecipeError, TrustError, near
from attar.notation import Call, Hole, List, Name, Node, Space, Value, calls, changed, map_paths, override, parse, resolve, write
from attar.notation.annotations import parameters_of
from attar.notation.tree import is_number, literal

__all__ = ["KEYS", "SEARCHED", "Entry", "Recipe", "Resolved", "judged_by", "load", "of_texts", "vocabulary"]

if TYPE_CHECKING:
    from attar.signal import Schema
    from attar.task import Task

MAX_BYTES = 256 * 1024
NO_FILE = Path()  # of a recipe that is no file
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
TENSOR = "a tensor of"  # the word, which no text can have, for a number that becomes a tensor
TEMPERATURES = (1.0, 2.0, 4.0)  # tried first: what suits large outcomes, the default, and what small ones of much capacity take

KEYS: Mapping[str, _Key] = {
    "data": _Key("the rows, their splits and how they are varied", ("attar.data",), wants="attar.data:Description", need=True),
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
    "student": _Key("what learns them", ("attar.students",), wants="attar.signal:Student", need=True, also=SPACES),
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
            with _prefixed(f"--set {setting}"):
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

        Every bound and every item is tried, all else half way: what a word refuses by itself is refused now. What two of them together
        come to is not known before they are chosen.
        Raises RecipeError for spaces that are none, and the errors of the words that are called with them, each with its line.
        """
        found = self._spaces()
        for key, space in found.items():
            with _prefixed(self.where(key)):
                for ways in space.ends():
                    self._one_of(key, space, ways)
                if space.empty:
                    self._value(self.entries[key], Path())
        return found

    def _one_of(self, key: str, space: Space, ways: Sequence[Mapping[str, Any]]) -> None:
        """Raise the first error if none of these points resolves."""
        first: AttarError | None = None
        for point in ways:
            try:
                self._value(replace(self.entries[key], node=space.at(point)), Path())
                return
            except AttarError as error:
                first = first or error
        if first is not None:
            raise first

    def _spaces(self) -> dict[str, Space]:
        spaces: dict[str, Space] = {}
        for key in SEARCHED:
            if key in self.entries:
                with _prefixed(self.where(key)):
                    spaces[key] = Space.of(self.entries[key].node, key, vocabulary(key, self.trust))
        return spaces

    def at(self, point: Mapping[str, Any]) -> Recipe:
        """The plain recipe at a point of its spaces: {"student.width": 32, "objective.kl.temperature": 2.0}, of a choice the item's text.

        Raises RecipeError for a hole that the point leaves out, a value outside, and a name that is no hole.
        """
        spaces = self._spaces()
        names = {hole.name for space in spaces.values() for hole in space.holes}
        if strange := next((name for name in point if name not in names), None):
            file = "" if self.path == NO_FILE else f"{self.path}: "
            raise RecipeError(f"{file}there is no space {strange!r}", hint=near(strange, names) or "nothing is to be chosen here")
        entries = dict(self.entries)
        for key, space in spaces.items():
            with _prefixed(self.where(key)):
                entries[key] = replace(entries[key], node=space.at(point))
        return replace(self, entries=entries)

    def tensors(self, key: str, point: Mapping[str, Any], out: str | Path) -> Any:
        """What one key comes to at a point, numbers that may be tensors made 0-dimensional ones: a cohort gives each student its own.

        Which these are, `Hole.tensor` says: temperatures and weights.
        """
        with _prefixed(self.where(key)):
            node = self._spaces()[key].at(point, tensor=TENSOR)
            return resolve(
                node,
                {**vocabulary(key, self.trust), TENSOR: _tensor},
                base=self.path.parent,
                out=Path(out),
                hint=_type_of(key),
                what=key,
                says=KEYS[key].hint,
            )

    def opened(self, schema: Schema, task: Task, *, labelled: bool = True) -> Recipe:
        """The recipe as a search of these data reads it: `auto()` written out, and what is left out filled in by spaces.

        Without a student it is `auto()`, without an objective the task's default, over temperatures and shares of the teacher. Where the
        fit names no learning rate, those that suit the students are tried; one for all families, where there are several.
        labelled: whether any training row has a label.
        Raises StudentError for a family that cannot read the data, and where none is known that can.
        """
        entries = dict(self.entries)
        with _prefixed(self.where("student")), self._trusting():
            asked = entries.get("student") or Entry("student", 0, Call(AUTO))
            entries["student"] = student = replace(asked, node=changed(asked.node, (AUTO,), lambda call: self._written_out(call, schema)))
        entries.setdefault("objective", Entry("objective", 0, parse(task.searched(labelled=labelled))))
        fit = entries.get("fit") or Entry("fit", 0, Call("fit"))
        found = _rates(student.node)
        if found is not None and isinstance(fit.node, Call) and fit.node.name == "fit" and "lr" not in dict(fit.node.kwargs):
            lr = parse(f"log({literal(found[0])}, {literal(found[1])})")
            fit = replace(fit, node=replace(fit.node, kwargs=(*fit.node.kwargs, ("lr", lr))))
        return replace(self, entries={**entries, "fit": fit})

    def _written_out(self, call: Call, schema: Schema) -> Node:
        """The families of an `auto()`, one of them or a choice."""
        room = importlib.import_module("attar.students.spaces")
        families = resolve(call, vocabulary("student", self.trust)).families
        texts = [*room.spaces(schema, self._encoder() if schema.kind == "text" else None, families).values()]
        return parse(f"choice({', '.join(texts)})" if len(texts) > 1 else texts[0])

    def _encoder(self) -> Any:
        """What students of texts may begin from: the folder that the teacher begins from, with its reading; None where there is none."""
        teacher = self.entries.get("teacher")
        for call in calls(teacher.node, ("hf",)) if teacher else ():
            words = vocabulary("teacher", self.trust)
            named = {**dict(zip(parameters_of(words["hf"]), call.args, strict=False)), **dict(call.kwargs)}
            if "path" not in named:
                continue
            kept = {name: value for name, value in named.items() if name in ("vocabulary", "max_length")}
            written = Call("hf", (named["path"],), tuple(kept.items()))
            folder = resolve(written, vocabulary("student", self.trust), base=self.path.parent).folder
            room = importlib.import_module("attar.students.spaces")
            return room.Encoded(write(written), folder.layers, folder.width)
        return None

    def text(self, out: str | Path) -> str:
        """The recipe with its spaces as they are and every other default written out, its paths relative to the run folder `out`.

        What a search leaves in its folder: read from there it has the same spaces and gives the same objects.
        """
        lines = ["# As it was searched, every default written out; paths are relative to this folder."]
        for key in (key for key in KEYS if key in self.entries):
            if key in SEARCHED:
                with _prefixed(self.where(key)):
                    node = map_paths(self.entries[key].node, vocabulary(key, self.trust), lambda path, of: self._from(path, of, out))
            else:
                node = Resolved(self, Path(out), {key: self.value(key, out)})._node(key)
            lines.append(f"{key}: {_scalar(write(node))}")
        return "\n".join(lines) + "\n"

    def _from(self, path: str, of: Literal["recipe", "run"], out: str | Path) -> str:
        """A path as a recipe in `out` writes it."""
        return path if of == "run" else os.path.relpath(os.path.normpath(self.path.parent / path), out)

    def priors(self) -> tuple[dict[str, Any], ...]:
        """Points that a search tries first, for each of the student's families: by the default of every word where its space has it.

        Then at other temperatures, on the teacher alone, and the smallest and the largest student at the temperature that is likely to
        suit it: the best one grows with capacity. A point is there once.
        """
        spaces = self._spaces()
        holes = [hole for space in spaces.values() for hole in space.holes]
        words = {name: word for key in SEARCHED for name, word in vocabulary(key, self.trust).items()}
        line = next((hole for hole in holes if hole.name == "student" and hole.kind == "choice"), None)
        found: list[dict[str, Any]] = []
        for family in line.items if line else (self.entries["student"].node,) if "student" in self.entries else (Value(None),):
            rates = _rates(family)
            for way in _WAYS:
                point: dict[str, Any] = {}
                for hole in holes:
                    if hole.asked(point):
                        point[hole.name] = write(family) if hole is line else _first(hole, way, words, rates)
                if point and point not in found:
                    found.append(point)
        return tuple(found)

    def resolve(self, out: str | Path) -> Resolved:
        """Every word looked up and called; nothing is read, taught or written by that.

        out: the run folder, which output paths are relative to. What the recipe leaves out is filled in where its default is known
        before the data are read: fit and deploy. Objective, controls and guard depend on the task and on which rows have labels: the run
        fills them in.
        """
        entries = dict(self.entries)
        for key, entry in entries.items():  # before a teacher's file is read
            with _prefixed(self.where(key)):
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

    def _value(self, entry: Entry, out: Path) -> Any:
        with _prefixed(self.where(entry.key)), self._trusting():
            plain = KEYS[entry.key].plain is not None
            words = {} if plain else vocabulary(entry.key, self.trust)
            _refuse_space(entry, self.path)
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
        with _prefixed(f"{path}:{line} ({key})"):
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
        with _prefixed(key):
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


def _tensor(value: float) -> Any:
    return importlib.import_module("torch").tensor(value)


@dataclass(frozen=True)
class _Way:
    """How a first point differs from the defaults: all temperatures, all shares of the teacher, every size of the student."""

    temperature: float | None = None
    weight: float | None = None
    size: Literal["smallest", "largest"] | None = None


_WAYS = (
    _Way(),
    *(_Way(temperature=t) for t in TEMPERATURES),
    _Way(weight=1.0),
    _Way(temperature=min(TEMPERATURES), size="smallest"),
    _Way(temperature=max(TEMPERATURES), size="largest"),
)


def _rates(student: Node) -> tuple[float, float] | None:
    """The learning rates that suit the students in a tree."""
    return importlib.import_module("attar.students.spaces").rates([call.name for call in calls(student, vocabulary("student"))])


def _first(hole: Hole, way: _Way, words: Mapping[str, Callable[..., Any]], rates: tuple[float, float] | None) -> Any:
    """What a first point has in a hole: what the way asks for, else the default of the word, else half way.

    rates: that suit the student; where the default rate is none of them, the one half way between them by ratio.
    """
    parameter = parameters_of(words[hole.word]).get(hole.argument) if hole.word in words else None
    default = None if parameter is None else parameter.default
    asked: list[Any] = [literal(default) if hole.kind == "choice" else default]
    if hole.argument == "temperature" and way.temperature is not None:
        asked.insert(0, literal(way.temperature) if hole.kind == "choice" else way.temperature)
    if hole.word == "blend" and hole.argument == "weight" and way.weight is not None:
        asked.insert(0, literal(way.weight) if hole.kind == "choice" else way.weight)
    if way.size is not None and hole.name.startswith("student.") and (hole.kind != "choice" or all(map(is_number, hole.items))):
        asked.insert(0, hole.ends[0 if way.size == "smallest" else -1])
    if (hole.word, hole.argument) == ("fit", "lr") and rates and isinstance(default, float) and not rates[0] <= default <= rates[1]:
        asked.insert(0, float(f"{math.sqrt(rates[0] * rates[1]):.4g}"))
    return next((value for value in asked if hole.holds(value)), hole.middle)


def _refuse_space(entry: Entry, path: Path) -> None:
    """Raise NotationError where a plain value is wanted and a space stands."""
    space = next(calls(entry.node, (*SPACES["attar.notation.spaces"], AUTO)), None)
    if space is None:
        return
    if entry.key not in SEARCHED:
        raise NotationError(
            f"{write(space)} is a space, and {entry.key} takes none\n{space.at}", hint=f"spaces are for {', '.join(SEARCHED)}"
        )
    hint = "attar.search" if path == NO_FILE else f"attar search {path}"
    raise NotationError(f"{write(space)} is a space, of which a search takes one value\n{space.at}", hint=hint)


def _texts(node: Node) -> Node:
    """Where only texts can stand, quotes may be left out: `deploy: int8`, `controls: [labels, hard]`."""
    if isinstance(node, Name):
        return Value(node.name, node.at)
    return replace(node, items=tuple(_texts(i) for i in node.items)) if isinstance(node, List) else node


@contextmanager
def _prefixed(where: str) -> Iterator[None]:
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
