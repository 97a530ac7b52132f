"""Reading: a schema written and read back is the same; blocks without a schema are checked by their widths."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from attar.errors import TeacherError
from attar.reading import Reading, schema_from_json, schema_to_json
from attar.signal import Batch
from attar.testing.small import small_images, small_table


def test_a_schema_survives_json() -> None:
    for schema in (small_table(40).schema, small_table(40, kind="regression").schema, small_images(40).schema):
        assert schema_from_json(json.loads(json.dumps(schema_to_json(schema)))) == schema


def test_a_schema_with_foreign_fields_is_refused() -> None:
    with pytest.raises(TeacherError, match="does not read"):
        schema_from_json(schema_to_json(small_table(40).schema) | {"colour": 1})


def test_the_same_schema_changes_nothing() -> None:
    batch = small_table(40).test.batch(torch.arange(10))
    assert batch.schema is not None
    read = Reading(batch.schema).inputs(batch)
    assert not isinstance(read, torch.Tensor)
    assert not isinstance(batch.inputs, torch.Tensor)
    assert all(read[n] is batch.inputs[n] for n in batch.inputs)


def test_blocks_without_a_schema_must_be_as_wide() -> None:
    data = small_table(40)
    batch = data.test.batch(torch.arange(3))
    assert not isinstance(batch.inputs, torch.Tensor)
    narrow = Batch({"numbers": batch.inputs["numbers"][:, :4], "categories": batch.inputs["categories"]})
    with pytest.raises(TeacherError, match="reads 5 columns of numbers, got 4"):
        Reading(data.schema, "the student").inputs(narrow)


def test_images_of_another_shape_and_tables_are_told_apart() -> None:
    images, table = small_images(40), small_table(40)
    reading = Reading(images.schema, "the student")
    with pytest.raises(TeacherError, match=r"the student reads images of shape \(1, 8, 8\), the data are a table"):
        reading.check(table.schema)
    with pytest.raises(TeacherError, match=r"got \(1, 9, 9\)"):
        reading.check(replace(images.schema, shape=(1, 9, 9)))
    with pytest.raises(TeacherError, match="got a table"):
        reading.inputs(table.test.batch(torch.arange(2)))
