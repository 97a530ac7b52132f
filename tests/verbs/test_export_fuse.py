"""Fused graphs answer as before, with missing values and codes out of bounds, in fewer nodes; what looks otherwise stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from attar.data import Data
from attar.signal import Schema
from attar.sources.onnx import open_graph
from attar.students import mlp
from attar.task import classification
from attar.testing.small import small_table
from attar.verbs.export.fuse import fused
from attar.verbs.export.graph import from_torch, quiet

pytest.importorskip("onnx")


def graph(data: Data) -> Any:
    """The graph of a small MLP, none of whose rows is special."""
    model = mlp(width=8, depth=1)(data.schema, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.linspace(-0.5, 0.5, parameter.numel()).reshape(parameter.shape)
    with quiet():
        return from_torch(model, data.valid.batch(torch.arange(8)), classification().bind(data.schema))[0]


def answers(model: Any, numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
    return np.asarray(open_graph(model.SerializeToString(), 1, "g").run(["logits"], {"numbers": numbers, "categories": categories})[0])


def kinds(model: Any) -> list[str]:
    return [n.op_type for n in model.graph.node]


def rows(schema: Schema) -> tuple[np.ndarray, np.ndarray]:
    """Numbers with every kind of gap, and codes from below all bounds to above them."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(120, len(schema.numbers))).astype(np.float32) * 50
    numbers[rng.random(numbers.shape) < 0.3] = np.nan
    numbers[0] = np.nan
    return numbers, rng.integers(-3, 9, (120, len(schema.categories)))


def test_a_fused_graph_answers_alike_also_out_of_bounds() -> None:
    data = small_table(80)
    before = graph(data)
    after = fused(before)
    assert {"Imputer", "Scaler", "OneHotEncoder"} <= set(kinds(after))
    assert not {"IsNaN", "Where", "LessOrEqual", "Gather"} & set(kinds(after))
    assert len(kinds(after)) <= len(kinds(before)) - 5
    inputs = rows(data.schema)
    np.testing.assert_allclose(answers(after, *inputs), answers(before, *inputs), atol=2e-6)
    assert "IsNaN" in kinds(before)  # what was given is not changed


def test_missing_flags_stay_where_a_student_reads_them() -> None:
    data = small_table(80)
    columns = tuple(replace(c, missing=0.05) if c.name == "days" else c for c in data.schema.columns)
    schema = replace(data.schema, columns=columns)
    data = replace(data, schema=schema, **{n: replace(s, schema=schema) for n, s in data.splits.items()})
    before = graph(data)
    after = fused(before)
    assert "IsNaN" in kinds(after)
    assert "Imputer" not in kinds(after)
    assert "Scaler" in kinds(after)
    inputs = rows(data.schema)
    np.testing.assert_allclose(answers(after, *inputs), answers(before, *inputs), atol=2e-6)


def test_a_large_table_is_still_looked_up() -> None:
    data = small_table(80)
    many = tuple(f"c{i}" for i in range(200))
    columns = tuple(replace(c, categories=many) if c.name == "city" else c for c in data.schema.columns)
    schema = replace(data.schema, columns=columns)
    data = replace(data, schema=schema, **{n: replace(s, schema=schema) for n, s in data.splits.items()})
    after = fused(graph(data))
    assert "Gather" in kinds(after)
    assert "OneHotEncoder" not in kinds(after)


def test_constants_that_nobody_reads_are_gone() -> None:
    after = fused(graph(small_table(80)))
    read = {name for node in after.graph.node for name in node.input}
    assert {t.name for t in after.graph.initializer} <= read
