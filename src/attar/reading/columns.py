"""Reading: rows of a table or images as the data lay them out → the layout that one model was made for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from attar.errors import TeacherError, near
from attar.signal import Batch, Column, Inputs, Schema

__all__ = ["Reading", "schema_from_json", "schema_to_json"]


@dataclass(frozen=True)
class _Plan:
    """How to get from one data schema to the model's: orders of columns and tables of codes; None where nothing changes."""

    numbers: Tensor | None  # (n,) positions in the data's `numbers`
    categories: Tensor | None  # (m,) positions in the data's `categories`
    codes: tuple[Tensor | None, ...]  # for each of the model's category columns: the data's code → the model's
    outcomes: Tensor | None  # (C,) positions among the model's outcomes, in the data's order


@dataclass(frozen=True)
class Reading:
    """Maps rows of any data with the same columns by name, and category values by their text, to what a model was made for.

    schema: columns, categories, classes as the model saw them. name: of the model, for messages.
    A category that the model never saw gets code 0, which means just that. Columns may come in another order, but must be the same.
    """

    schema: Schema
    name: str = "the model"
    _plans: list[tuple[Schema, _Plan]] = field(default_factory=list, repr=False, compare=False)  # of the last data schema

    def check(self, schema: Schema) -> None:
        """Raise TeacherError if rows of `schema` cannot be answered: it says which columns, classes or shapes differ."""
        self._plan(schema)

    def inputs(self, batch: Batch) -> Inputs:
        """The batch's inputs as the model wants them: same kind, columns in its order, its category codes."""
        if self.schema.kind == "text":
            return self._texts(batch)
        if self.schema.kind != "table":
            if not isinstance(batch.inputs, Tensor):
                raise TeacherError(f"{self.name} reads {self.schema.kind} of shape {self.schema.shape}, got a table")
            if batch.schema is not None:
                self._plan(batch.schema)
            elif tuple(batch.inputs.shape[1:]) != self.schema.shape:
                self._refuse_shape(tuple(batch.inputs.shape[1:]))
            return batch.inputs
        if isinstance(batch.inputs, Tensor):
            raise TeacherError(f"{self.name} reads a table, got a tensor of shape {tuple(batch.inputs.shape)}")
        if batch.schema is None:
            self._check_widths(batch.inputs)
            return batch.inputs
        plan = self._plan(batch.schema)
        read = dict(batch.inputs)
        if plan.numbers is not None:
            read["numbers"] = read["numbers"][:, plan.numbers]
        if plan.categories is not None:
            read["categories"] = read["categories"][:, plan.categories]
        if any(codes is not None for codes in plan.codes):
            columns = read["categories"].unbind(1)
            read["categories"] = torch.stack([c if t is None else t[c] for c, t in zip(columns, plan.codes, strict=True)], 1)
        return read

    def _texts(self, batch: Batch) -> Inputs:
        if batch.schema is not None:
            self._plan(batch.schema)
        if isinstance(batch.inputs, Tensor) or not set(self.schema.texts) <= set(batch.inputs):
            there = "a tensor" if isinstance(batch.inputs, Tensor) else _some(tuple(batch.inputs))
            raise TeacherError(f"{self.name} reads the texts {_some(self.schema.texts)}, got {there}")
        return {name: batch.inputs[name] for name in self.schema.texts}

    def output(self, output: Tensor, schema: Schema | None) -> Tensor:
        """(B, C, ...) in the model's order of classes → the data's order."""
        if schema is None or (order := self._plan(schema).outcomes) is None:
            return output
        return output.index_select(1, order)

    def unseen(self, schema: Schema) -> dict[str, tuple[str, ...]]:
        """By column, the category values of `schema` that the model never saw."""
        known = {c.name: set(c.categories) for c in self.schema.categories}
        found = {c.name: tuple(v for v in c.categories if v not in known.get(c.name, ())) for c in schema.categories}
        return {name: values for name, values in found.items() if values}

    def _plan(self, schema: Schema) -> _Plan:
        if self._plans and self._plans[0][0] is schema:
            return self._plans[0][1]
        mine = self.schema
        if schema.kind != mine.kind:
            raise TeacherError(f"{self.name} reads {_kind(mine)}, the data are {_kind(schema)}")
        if mine.texts != schema.texts:
            hint = "name the columns of the file as they were named then: text=[…]"
            raise TeacherError(f"{self.name} reads the texts {_some(mine.texts)}, the data have {_some(schema.texts)}", hint=hint)
        if mine.kind != "table" and schema.shape != mine.shape:
            self._refuse_shape(schema.shape)
        if mine.kind == "table":
            self._check_columns(schema)
        plan = _Plan(
            _order([c.name for c in mine.numbers], [c.name for c in schema.numbers]),
            _order([c.name for c in mine.categories], [c.name for c in schema.categories]),
            tuple(_codes(c, next(d for d in schema.categories if d.name == c.name)) for c in mine.categories),
            self._outcomes(schema),
        )
        self._plans[:] = [(schema, plan)]
        return plan

    def _check_columns(self, schema: Schema) -> None:
        mine = {c.name: c for c in self.schema.columns}
        data = {c.name: c for c in schema.columns}
        wrong = [f"column {n!r} was not there when {self.name} was made" for n in data if n not in mine]
        wrong += [f"column {n!r}, which {self.name} reads, is missing" for n in mine if n not in data]
        if wrong:
            lost = next((n for n in mine if n not in data), None)
            hint = "leave the new column out of the data, or distil and export again"
            if lost is not None and (new := [n for n in data if n not in mine]):
                hint = f"was {lost!r} renamed? {near(lost, new)}"
            elif lost is not None:
                hint = near(lost, data) or "add the column"
            raise TeacherError("the table's columns are others: " + "; ".join(wrong), hint=hint)
        for name, column in mine.items():
            if (column.kind == "category") != (data[name].kind == "category"):
                raise TeacherError(
                    f"column {name!r} is a {data[name].kind} here, and was a {column.kind} when {self.name} was made",
                    hint="convert the column",
                )

    def _outcomes(self, schema: Schema) -> Tensor | None:
        mine, data = self.schema.classes, schema.classes
        if mine == data:
            return None
        if set(mine) != set(data):
            raise TeacherError(
                f"the classes are others: {self.name} answers {_some(mine)}; the data have {_some(data)}",
                hint=f"the label column is {schema.label!r}, and was {self.schema.label!r}",
            )
        return _order(list(data), list(mine))

    def _check_widths(self, inputs: Mapping[str, Tensor]) -> None:
        for name, columns in (("numbers", self.schema.numbers), ("categories", self.schema.categories)):
            width = inputs[name].shape[1] if name in inputs else 0
            if width != len(columns):
                raise TeacherError(
                    f"{self.name} reads {len(columns)} columns of {name}, got {width}", hint="a batch with a schema says which they are"
                )

    def _refuse_shape(self, shape: tuple[int, ...]) -> None:
        raise TeacherError(f"{self.name} reads {self.schema.kind} of shape {self.schema.shape}, got {shape}", hint="resize the data")


def schema_to_json(schema: Schema) -> dict[str, Any]:
    """What `schema_from_json` reads back to an equal schema."""
    return asdict(schema)


def schema_from_json(value: Mapping[str, Any]) -> Schema:
    """The schema that `schema_to_json` wrote. Raises TeacherError where fields are missing or of another type."""
    try:
        known = json.loads(json.dumps(value))  # a copy of plain lists
        columns = tuple(Column(**{**c, "categories": tuple(c["categories"])}) for c in known.pop("columns"))
        texts = {k: tuple(known.pop(k)) for k in ("shape", "pixel_mean", "pixel_std", "classes", "texts") if k in known}
        return Schema(columns=columns, **texts, **known)
    except (KeyError, TypeError) as error:
        raise TeacherError(f"a schema that does not read: {error}", hint="export again") from error


def _order(wanted: list[str], there: list[str]) -> Tensor | None:
    return None if wanted == there else torch.tensor([there.index(n) for n in wanted], dtype=torch.long)


def _codes(mine: Column, data: Column) -> Tensor | None:
    """(len(data's) + 1,) int64: the data's code → the model's; 0, missing or never seen, stays 0."""
    if mine.categories == data.categories:
        return None
    code = {text: i + 1 for i, text in enumerate(mine.categories)}
    return torch.tensor([0] + [code.get(text, 0) for text in data.categories], dtype=torch.long)


def _kind(schema: Schema) -> str:
    return {"table": "a table", "text": "text"}.get(schema.kind) or f"{schema.kind} of shape {schema.shape}"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "") if names else "a number"
