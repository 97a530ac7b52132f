"""What a search tries where nothing is said: every part of it can be built, and reads the data."""

from __future__ import annotations

from pathlib import Path

import pytest

import attar
from attar.errors import AttarError
from attar.notation import Call, Space, parse, read, write
from attar.recipe import vocabulary
from attar.signal import Column, Schema
from attar.students import auto
from attar.students.spaces import BACKBONES
from attar.task import OBJECTIVES, Kind, Task, classification
from attar.testing.small import small_table
from attar.verbs.search import search
from attar.verbs.search.defaults import settled

TABLE = Schema("table", (Column("age", "number", mean=40.0, std=10.0, median=39.0),), classes=("no", "yes"))
DIGITS = Schema("images", shape=(1, 28, 28), pixel_mean=(33.0,), pixel_std=(78.0,), classes=tuple("0123456789"))
PHOTOS = Schema("images", shape=(3, 224, 224), pixel_mean=(99.0,) * 3, pixel_std=(50.0,) * 3, classes=("cat", "dog"))
REVIEWS = Schema("text", texts=("text",), classes=("no", "yes"))
TENSORS = Schema("tensor", shape=(5,), classes=("no", "yes"))


def lines(schema: Schema, teacher: object = None, *, labelled: bool = True, **given: str) -> dict[str, str]:
    nodes = {key: parse(text) for key, text in given.items()}
    found = settled(nodes, vocabulary, schema, classification(), labelled=labelled, teacher=teacher)
    return {key: write(node) for key, node in found.items()}


@pytest.mark.parametrize("schema", [TABLE, DIGITS, PHOTOS, REVIEWS, TENSORS])
def test_every_family_that_auto_tries_builds_at_both_ends_a_student_of_the_data(schema: Schema) -> None:
    text = lines(schema, student="auto()")["student"]
    space = Space.of(parse(text), "student", vocabulary("student"))
    assert not space.empty
    built: list[str] = []

    def build(node: object) -> None:
        assert isinstance(node, Call)
        student = read(write(node), vocabulary("student"))
        if node.name != "timm":  # seconds each
            student(schema, 0)
        built.append(node.name)

    space.check(build)
    assert len(built) >= len(space.holes)


def test_what_is_left_out_is_filled_in_and_what_is_said_stays() -> None:
    assert lines(DIGITS, fit="fit(epochs=3)") == {
        "student": "cnn(width=integer(4, 64, log=True), depth=integer(2, 3))",
        "objective": "blend(kl(temperature=log(1, 8)), labels(), weight=between(0.5, 1))",
        "fit": "fit(epochs=3, lr=log(0.001, 0.02))",
    }
    said = {"student": "mlp()", "objective": "kl()", "fit": "fit(lr=0.01)"}
    assert lines(DIGITS, student="mlp()", objective="kl()", fit="fit(lr=0.01)") == said
    assert lines(DIGITS, student="mlp()", labelled=False)["objective"] == "kl(temperature=log(1, 8))"
    assert lines(TABLE, student="forest()")["fit"] == "fit()"  # trees have no such rate


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_default_objective_lies_within_its_space(kind: Kind) -> None:
    task, words = Task(kind, "metric"), vocabulary("objective")
    point = {"objective.kl.temperature": 2.0, "objective.temperature": 2.0, "objective.weight": 0.9}
    for labelled, text in ((True, task.objective), (False, task.objective_without_labels)):
        space = Space.of(parse(task.searched(labelled=labelled)), "objective", words)
        assert space.empty == (kind == "embedding" or (kind == "regression" and not labelled))
        assert repr(read(write(space.at(point)), words)) == repr(read(text, words))


def test_a_rate_is_as_high_as_the_students_bear() -> None:
    def rate(student: str) -> str:
        return lines(REVIEWS, student=student)["fit"]

    assert rate('shrink(hf("folder"), layers=2)') == "fit(lr=log(5e-05, 0.001))"
    assert rate('static_embedding(hf("folder"))') == "fit(lr=log(0.002, 0.02))"  # its encoder does not learn
    assert rate('choice(ngrams(), shrink(hf("folder"), layers=integer(1, 3)))') == "fit(lr=log(5e-05, 0.05))"


def test_auto_may_name_families() -> None:
    assert lines(TABLE, student='auto("forest")')["student"].startswith("forest(trees=integer(")
    assert lines(TABLE, student='choice(auto("mlp"), forest())')["student"].startswith("choice(mlp(width=integer(")
    assert lines(REVIEWS, teacher=object())["student"].startswith("ngrams(")  # what has no text names no folder
    assert repr(auto("mlp", "forest")) == 'auto("mlp", "forest")'


@pytest.mark.parametrize(
    ("schema", "text", "said"),
    [
        (TABLE, 'auto("cnn")', "auto('cnn'): there is no such student of a table"),
        (TABLE, 'auto("timm", "mlp")', "auto('timm')"),
        (REVIEWS, 'auto("shrink")', "without a folder that the teacher begins from"),
        (REVIEWS, 'auto("ngram")', "did you mean 'ngrams'?"),
        (Schema("text", texts=("text",), embeds=True), "auto()", "no student is known of texts that are to become vectors"),
    ],
)
def test_a_family_that_cannot_read_the_data_is_refused(schema: Schema, text: str, said: str) -> None:
    with pytest.raises(AttarError) as caught:
        lines(schema, student=text)
    assert said in str(caught.value)


def test_the_backbones_are_known_to_timm_and_small_ones_come_first() -> None:
    timm = pytest.importorskip("timm")
    assert set(BACKBONES) <= set(timm.list_models())
    text = lines(PHOTOS, student='auto("timm")')["student"]
    assert text.startswith('timm(choice("lcnet_035", ') and text.endswith("size=choice(64, 96, 128))")


@pytest.mark.parametrize(
    ("student", "fit", "said"),
    [
        ("mlp(width=integer(0, 8))", None, "student: mlp(width=0)"),
        ("mlp(widht=integer(4, 8))", None, "did you mean 'width'?"),
        ("mlp(width=integer(8, 4))", None, "student: integer(8, 4): low=8 is above high=4"),
        ("auto()", "fit(lr=log(0, 1))", "fit: log(0.0, 1.0): ratios need bounds above 0"),
        ("auto()", "fit(epochs=choice(2, 0))", "fit(epochs=0)"),
        ("ngrams(buckets=integer(8, 16))", None, "student: ngrams"),
    ],
)
def test_a_search_from_python_refuses_what_is_no_space_before_anything_is_written(
    tmp_path: Path, student: str, fit: str | None, said: str
) -> None:
    with pytest.raises(AttarError) as caught:
        search(attar.taught(attar.lightgbm(trees=2), at="teacher.txt"), student, small_table(60), fit=fit, out=tmp_path / "search")
    assert said in str(caught.value)
    assert not (tmp_path / "search").exists()
