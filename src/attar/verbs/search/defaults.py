"""What a search tries where nothing is said: students that suit the data, the task's objective, the students' learning rates."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from attar.errors import NotationError
from attar.notation import Call, Node, Value, Vocabulary, calls, changed, in_package, parse, resolve, write
from attar.notation.annotations import parameters_of
from attar.notation.tree import literal
from attar.recipe import SEARCHED, Entry, Recipe, prefixed, vocabulary
from attar.signal import Schema
from attar.students.spaces import Auto, Encoded, rates, spaces
from attar.task import Task

__all__ = ["opened", "settled"]

Words = Callable[[str], Vocabulary]


def settled(
    lines: Mapping[str, Node | None],
    words: Words,
    schema: Schema,
    task: Task,
    *,
    labelled: bool = True,
    teacher: object = None,
    base: Path | None = None,
) -> dict[str, Node]:
    """Student, objective and fit as a search of these data reads them: `auto()` written out, and what is left out filled in by spaces.

    Without a student it is `auto()`, without an objective the task's default, over temperatures and shares of the teacher. Where the
    fit names no learning rate, those that suit the students are tried: one space for all families, where there are several.
    lines: by key. words: key → its vocabulary. labelled: whether any training row has a label. teacher: a folder that its own text names
    is where students of texts begin. base: what paths in the lines are relative to.
    Raises StudentError for a family that cannot read the data, and where none is known that can.
    """

    def written_out(call: Call) -> Node:
        asked = resolve(call, words("student"))
        assert isinstance(asked, Auto)
        encoder = _encoder(teacher, words("student"), base) if schema.kind == "text" else None
        texts = [*spaces(schema, encoder, asked.families).values()]
        return parse(f"choice({', '.join(texts)})" if len(texts) > 1 else texts[0])

    student = changed(lines.get("student") or Call("auto"), ("auto",), written_out)
    fit = lines.get("fit") or Call("fit")
    found = rates([call.name for call in calls(student, words("student"))])
    if found is not None and isinstance(fit, Call) and fit.name == "fit" and "lr" not in dict(fit.kwargs):
        fit = replace(fit, kwargs=(*fit.kwargs, ("lr", parse(f"log({literal(found[0])}, {literal(found[1])})"))))
    return {"student": student, "objective": lines.get("objective") or parse(task.searched(labelled=labelled)), "fit": fit}


def opened(recipe: Recipe, schema: Schema, task: Task, *, labelled: bool = True, teacher: object = None) -> Recipe:
    """The recipe as a search of these data reads it, see `settled`."""
    lines = {key: recipe.entries[key].node if key in recipe.entries else None for key in SEARCHED}
    with prefixed(recipe.where("student")):
        nodes = settled(
            lines, lambda key: vocabulary(key, recipe.trust), schema, task, labelled=labelled, teacher=teacher, base=recipe.path.parent
        )
    entries = {key: replace(recipe.entries.get(key) or Entry(key, 0, node), node=node) for key, node in nodes.items()}
    return replace(recipe, entries={**recipe.entries, **entries})


def _encoder(teacher: object, words: Vocabulary, base: Path | None) -> Encoded | None:
    """What students of texts may begin from: the folder that the teacher's own text names, read as the teacher reads."""
    with suppress(NotationError):  # a net of one's own has no text
        for call in calls(parse(repr(teacher)), ("hf",)):
            named = {**dict(zip(parameters_of(words["hf"]), call.args, strict=False)), **dict(call.kwargs)}
            path = named.get("path")
            if not isinstance(path, Value) or not isinstance(path.value, str):
                continue
            kept = {name: value for name, value in named.items() if name in ("path", "vocabulary", "max_length")}
            folder = resolve(Call("hf", (), tuple(kept.items())), words).folder
            if base is not None:
                kept = {name: _beside(value, base) for name, value in kept.items()}
            first = kept.pop("path")
            return Encoded(write(Call("hf", (first,), tuple(kept.items()))), folder.layers, folder.width)
    return None


def _beside(node: Node, base: Path) -> Node:
    """A path that is relative to where we are, relative to `base`; anything else as it is."""
    if not isinstance(node, Value) or not isinstance(node.value, str) or in_package(node.value) or os.path.isabs(node.value):
        return node
    return Value(os.path.relpath(node.value, base))
