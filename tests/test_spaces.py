"""Spaces: found in a text, filled in again; what is refused, and where an error points to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.errors import AttarError, NotationError, RecipeError, StudentError
from attar.notation import Hole, Space, Value, parse, read, write
from attar.notation.spaces import SPACES, between, choice, integer, log
from attar.recipe import KEYS, SEARCHED, Entry, Recipe, load, vocabulary
from attar.signal import Schema
from attar.students import auto

EITHER = "choice(mlp(width=integer(8, 128, log=True), depth=choice(1, 2, 3)), lightgbm(trees=integer(20, 300)))"
GOAL = "blend(kl(temperature=log(1, 8)), labels(), weight=between(0.5, 1))"


def recipe_of(texts: Mapping[str, str]) -> Recipe:
    return Recipe(Path("search.yaml"), {key: Entry(key, 0, parse(text)) for key, text in texts.items()})


def space(text: str, key: str = "student") -> Space:
    return Space.of(parse(text), key, vocabulary(key))


def holes(text: str, key: str = "student") -> list[str]:
    return [hole.name for hole in space(text, key).holes]


# --- what is found


def test_a_hole_is_named_by_the_words_and_the_argument_that_lead_to_it() -> None:
    assert holes("mlp(width=integer(8, 128), depth=choice(1, 2))") == ["student.width", "student.depth"]
    assert holes("mlp(integer(8, 128), integer(1, 3))") == ["student.width", "student.depth"]  # by place
    assert holes(EITHER) == ["student", "student.mlp.width", "student.mlp.depth", "student.lightgbm.trees"]
    assert holes(GOAL, "objective") == ["objective.kl.temperature", "objective.weight"]
    assert holes("fit(lr=log(1e-3, 1e-2))", "fit") == ["fit.lr"]
    assert holes("shrink(hf(max_length=choice(32, 64)), layers=integer(1, 6))") == ["student.hf.max_length", "student.layers"]


def test_the_factor_of_a_term_is_its_weight() -> None:
    text = "between(0.1, 1) * kl(temperature=log(1, 8)) + choice(0.1, 0.2) * labels() + choice(mse(), jsd())"
    assert holes(text, "objective") == ["objective.kl.weight", "objective.kl.temperature", "objective.labels.weight", "objective"]


def test_names_that_would_be_alike_are_numbered() -> None:
    names = holes("kl(temperature=log(1, 2)) + kl(temperature=log(2, 4)) + kl(temperature=log(4, 8))", "objective")
    assert names == ["objective.kl.temperature", "objective.kl.temperature2", "objective.kl.temperature3"]


def test_a_space_within_an_item_is_asked_for_only_where_the_item_is_chosen() -> None:
    found = space(EITHER)
    net, trees = found.holes[0].texts
    assert [hole.within for hole in found.holes] == [(), (("student", net),), (("student", net),), (("student", trees),)]
    assert write(found.at({"student": trees, "student.lightgbm.trees": 50})) == "lightgbm(trees=50)"
    assert write(found.at({"student": net, "student.mlp.width": 16, "student.mlp.depth": "3"})) == "mlp(width=16, depth=3)"
    assert found.size == 121 * 3 + 281


def test_choices_within_choices_lead_on() -> None:
    found = space("choice(cnn(), choice(mlp(width=integer(1, 4)), forest()))")
    inner = "choice(mlp(width=integer(1, 4)), forest())"
    assert [hole.name for hole in found.holes] == ["student", "student2", "student.mlp.width"]
    point = {"student": inner, "student2": "mlp(width=integer(1, 4))", "student.mlp.width": 2}
    assert write(found.at(point)) == "mlp(width=2)"
    assert write(found.at({"student": "cnn()"})) == "cnn()"
    assert found.size == 1 + 4 + 1


def test_the_middle_is_by_ratio_where_ratios_count() -> None:
    texts = {"student": "mlp(width=integer(8, 128, log=True), depth=choice(1, 2, 3))", "objective": GOAL, "fit": "fit(lr=log(1e-3, 1e-1))"}
    middle = {name: value for space in recipe_of(texts).spaces().values() for name, value in space.middle().items()}
    assert middle == {
        "student.width": 32,
        "student.depth": "2",
        "objective.kl.temperature": 2.828,
        "objective.weight": 0.75,
        "fit.lr": 0.01,
    }


def test_a_point_makes_a_plain_recipe() -> None:
    recipe = recipe_of({"student": EITHER, "objective": GOAL, "fit": "fit(lr=log(1e-3, 1e-2), epochs=3)"})
    point = {
        "student": recipe.spaces()["student"].holes[0].texts[1],
        "student.lightgbm.trees": 40,
        "objective.kl.temperature": 2.0,
        "objective.weight": 0.9,
        "fit.lr": 0.005,
    }
    plain = recipe.at(point)
    assert repr(plain.value("student", "run")).startswith("lightgbm(trees=40, ")
    assert repr(plain.value("objective", "run")) == "0.9 * kl(temperature=2.0) + 0.1 * labels(smoothing=0.0)"
    assert plain.value("fit", "run").lr == 0.005
    assert all(space.empty for space in plain.spaces().values())
    assert plain.at({}) == plain


# --- what is refused


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("student", "mlp(width=integer(128, 8))", "integer(128, 8): low=128 is above high=8"),
        ("student", "mlp(width=integer(8, 8))", "hint: write 8"),
        ("student", "mlp(width=integer(8.5, 9))", "low of integer() takes a whole number, got 8.5"),
        ("student", "mlp(width=integer(8, 9, log=1))", "log of integer() takes True or False, got 1"),
        ("student", "mlp(width=integer(0, 9, log=True))", "ratios need bounds above 0, low is 0"),
        ("student", "mlp(width=integer(8))", "integer() needs 'high'"),
        ("student", "mlp(width=integer(8, hihg=9))", "did you mean 'high'?"),
        ("student", "mlp(width=choice())", "choice() is empty"),
        ("student", "mlp(width=choice(8))", "hint: write 8"),
        ("student", "mlp(width=choice(8, 9, 8))", "8 stands twice in choice()"),
        ("student", "mlp(width=choice(8, also=9))", "choice() has no argument 'also'"),
        ("student", "mlp(width=integer(choice(1, 2), 8))", "a space within integer()"),
        ("student", "mlp(dropout=between(0, log(0.1, 0.2)))", "a space within between()"),
        ("student", "mlp(widht=integer(8, 128))", "did you mean 'width'?"),
        ("student", "mlp(width=integr(8, 128))", "did you mean 'integer' or"),
        ("student", "mpl(width=integer(8, 128))", "did you mean 'mlp'?"),
        ("student", "mlp(width=integer(0, 8))", "mlp(width=0): at least 1 is needed"),
        ("student", "mlp(dropout=between(0.5, 1))", "mlp(dropout=1.0)"),
        ("student", "mlp(width=between(8, 128))", "width of mlp() takes a whole number, got 8.0"),
        ("student", "mlp(width=between(8, 128))", "hint: integer(8, 128)"),
        ("student", "mlp(width=log(7.5, 128.5))", "hint: integer(8, 128, log=True)"),
        ("student", "choice(mlp(width=between(8, 9)), lightgbm())", "hint: integer(8, 9)"),
        ("student", "mlp(depth=integer(1, 4), width=between(8, 99), dropout=0.1)", "hint: integer(8, 99)"),
        ("student", "mlp(width=between(8, 128), depth=between(1, 4))", "hint: integer(8, 128) and integer(1, 4)"),
        ("fit", "fit(epochs=between(0.5, 8))", "hint: integer(1, 8)"),
        ("student", "mlp(width=between(0.2, 0.8))", "hint: it is mlp("),
        ("student", 'mlp(width=choice(8, "wide"))', 'width of mlp() takes a whole number, got "wide"'),
        ("student", "choice(mlp(), kl())", "there is no word 'kl' here"),
        ("student", "integer(8, 128)", "student takes"),
        ("student", "mlp(width=integer(8, 128), depth=0)", "mlp(depth=0)"),
        ("student", "mlp(width=integer)", "write integer()"),
        ("objective", "kl(temperature=log(0, 8))", "hint: between(0.0, 8.0) counts differences"),
        ("objective", "kl(temperature=between(-1, 8))", "temperature"),
        ("objective", "kl() + between(0, 1)", "cannot be added"),
        ("fit", "fit(lr=log(1e-3, 1e-2), epochs=integer(0, 3))", "epochs=0"),
        ("fit", "fit(device=choice(\"cpu\", \"gpu9\"))", "gpu9"),
        ("fit", "fit(epochs=0)", "epochs=0"),
    ],
)  # fmt: skip
def test_what_is_no_space_is_refused_with_its_place(key: str, text: str, said: str) -> None:
    with pytest.raises(AttarError) as caught:
        recipe_of({key: text}).spaces()
    assert caught.value.message.startswith(f"search.yaml ({key}): ")
    assert said in str(caught.value)
    assert text[:60] in caught.value.message  # the text, with a caret below
    assert "^" in caught.value.message


def test_a_bound_is_refused_only_where_nothing_else_goes_with_it() -> None:
    text = 'hf(config="bert", tokenizer="tokens", width=choice(64, 96), heads=choice({}))'
    assert len(recipe_of({"student": text.format("2, 3")}).spaces()["student"].holes) == 2  # 3 heads divide 96
    with pytest.raises(AttarError, match="5 heads do not divide"):
        recipe_of({"student": text.format("2, 5")}).spaces()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"student.width": None}, "the point has no student.width"),
        ({"student.width": 129}, "student.width=129 lies outside of integer(8, 128)"),
        ({"student.width": 7}, "hint: a whole number from 8 to 128"),
        ({"student.width": 16.0}, "student.width=16.0 lies outside"),
        ({"student.width": True}, "student.width=True lies outside"),
        ({"student.depth": 2}, "student.depth=2 lies outside of choice(1, 2)"),
        ({"student.depth": "3"}, 'student.depth="3" lies outside of choice(1, 2)'),
        ({"student.widht": 16}, "did you mean 'student.width'"),
    ],
)
def test_a_point_that_is_none_of_the_space_is_refused(change: Mapping[str, Any], said: str) -> None:
    recipe = recipe_of({"student": "mlp(width=integer(8, 128), depth=choice(1, 2))"})
    point = {name: value for name, value in {"student.width": 8, "student.depth": "1", **change}.items() if value is not None}
    with pytest.raises(RecipeError) as caught:
        recipe.at(point)
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.5", 1.01, None, True])
def test_a_number_that_is_none_lies_outside(value: object) -> None:
    found = space("mlp(dropout=between(0, 1))")
    assert not found.contains({"student.dropout": value})
    with pytest.raises(NotationError, match="lies outside"):
        found.at({"student.dropout": value})


def test_data_and_teacher_take_no_space(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for line, said in (
        ('data: table(choice("a.csv", "b.csv"), label="y")', "data takes none"),
        ('teacher: taught(lightgbm(trees=integer(20, 300)), at="t")', "teacher takes none"),
    ):
        path.write_text(line + "\n")
        recipe = load(path)
        with pytest.raises(RecipeError, match=said) as caught:
            recipe.value(line.split(":")[0], tmp_path)
        assert caught.value.hint == "spaces are for student, objective, fit"
        assert caught.value.message.startswith(f"{path}:1 (")


def test_a_run_of_a_recipe_with_spaces_is_refused_and_the_search_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text('data: table("rows.csv", label="y")\nteacher: lightgbm("t.txt")\nstudent: mlp(width=integer(8, 128))\n')
    with pytest.raises(RecipeError) as caught:
        load(path).resolve(tmp_path)
    assert f"{path}:3 (student): integer(8, 128) is a space" in caught.value.message
    assert caught.value.hint == f"attar search {path}"


# --- any space, any point


NUMBERS = st.one_of(st.integers(-1000, 1000), st.floats(-1e6, 1e6, allow_nan=False))
LITERALS = st.one_of(NUMBERS, st.booleans(), st.none(), st.text(max_size=5))


def _said(value: Any) -> str:
    return write(Value(value))


@st.composite
def ranges(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["between", "log", "integer", "integer log"]))
    if kind.startswith("integer"):
        low = draw(st.integers(1 if "log" in kind else -50, 50))
        return f"integer({low}, {draw(st.integers(low + 1, 200))}{', log=True' * ('log' in kind)})"
    low = draw(st.floats(1e-6 if kind == "log" else -100, 10))
    return f"{kind}({low!r}, {low + draw(st.floats(1e-3, 10))!r})"


def trees(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    calls = st.builds(lambda a, b: f"word({a}, x={b})", values, values)
    choices = st.lists(values, min_size=2, max_size=3, unique_by=lambda t: write(parse(t))).map(lambda v: f"choice({', '.join(v)})")
    return st.one_of(
        calls,
        choices,
        st.builds("({} + {})".format, calls, values),
        st.builds("({} * {})".format, values, calls),
        st.builds("-{}".format, calls),
        st.builds("-choice({}, -{}, 2, -0.5, word() + word())".format, calls, calls),
        st.builds("[{}]".format, values),
    )


TEXTS = st.recursive(st.one_of(LITERALS.map(_said), ranges()), trees, max_leaves=12)


@st.composite
def points(draw: st.DrawFn, space: Space) -> dict[str, Any]:
    point: dict[str, Any] = {}
    for hole in space.holes:
        if hole.asked(point):
            point[hole.name] = draw(value_of(hole))
    return point


def value_of(hole: Hole) -> st.SearchStrategy[Any]:
    if hole.kind == "choice":
        return st.sampled_from(hole.texts)
    assert hole.low is not None
    assert hole.high is not None
    return st.integers(int(hole.low), int(hole.high)) if hole.kind == "integer" else st.floats(hole.low, hole.high)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.data())
def test_a_point_fills_every_hole_and_what_comes_out_reads_back(text: str, data: st.DataObject) -> None:
    found = Space.of(parse(text), "student")
    assert Space.of(parse(write(found.node)), "student") == found
    point = data.draw(points(found))
    assert found.contains(point)
    plain = found.at(point)
    assert parse(write(plain)) == plain
    assert Space.of(plain, "student").empty
    assert found.contains(found.middle())
    for missing in point:
        assert not found.contains({name: value for name, value in point.items() if name != missing})


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_point_of_a_recipe_resolves_and_reads_back(data: st.DataObject) -> None:
    recipe = recipe_of({"student": EITHER, "objective": GOAL, "fit": "fit(lr=log(1e-3, 2e-2))"})
    point = {name: value for space in recipe.spaces().values() for name, value in data.draw(points(space)).items()}
    for key in SEARCHED:
        said = repr(recipe.at(point).value(key, "run"))
        assert repr(read(said, vocabulary(key))) == said


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.data())
def test_the_size_of_a_space_is_the_number_of_its_points(text: str, data: st.DataObject) -> None:
    found = Space.of(parse(text), "student")
    if found.size is None:
        assert any(hole.kind in ("between", "log") for hole in found.holes)
    elif found.size <= 200:
        assert len(list(every(found, found.holes, {}))) == found.size


def every(space: Space, rest: tuple[Hole, ...], point: dict[str, Any]) -> Any:
    if not rest:
        yield point
        return
    hole, *others = rest
    if not hole.asked(point):
        yield from every(space, tuple(others), point)
        return
    assert hole.kind in ("choice", "integer")
    values = hole.texts if hole.kind == "choice" else range(int(hole.low or 0), int(hole.high or 0) + 1)
    for value in values:
        yield from every(space, tuple(others), {**point, hole.name: value})


# --- recipes


def test_auto_is_known_of_students_alone_and_builds_nothing() -> None:
    assert [key for key, what in KEYS.items() if what.rooms and "auto" in vocabulary(key)] == ["student"]
    with pytest.raises(StudentError, match="is a space"):
        auto()(Schema("table"), 0)


def test_the_text_of_a_search_reads_back_from_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        'data: table("rows.csv", label="y")\nstudent: \'choice(hf(choice("a", "b")), shrink(hf("b"), layers=integer(1, 3)))\'\n'
    )
    out = tmp_path / "runs" / "search"
    out.mkdir(parents=True)
    text = load(path).text(out)
    assert 'hf(choice("../../a", "../../b"))' in text
    (out / "recipe.yaml").write_text(text)
    again = load(out / "recipe.yaml")
    assert again.text(out) == text
    assert again.at(again.spaces()["student"].middle()).value("student", out).path == str(tmp_path / "a")


def test_a_setting_may_be_a_space() -> None:
    recipe = recipe_of({"student": "mlp(width=64)", "fit": "fit()"})
    changed = recipe.with_overrides(["student.width=integer(8, 128)", "fit.lr=log(1e-3, 1e-2)", "student.width.high=64"])
    assert {key: space.holes[0].text for key, space in changed.spaces().items()} == {"student": "integer(8, 64)", "fit": "log(0.001, 0.01)"}


# --- the words


def test_the_words_are_known_where_a_search_may_choose_and_nowhere_else() -> None:
    for key in (key for key, what in KEYS.items() if what.rooms):
        assert (set(SPACES) <= set(vocabulary(key))) == (key in SEARCHED)


def test_the_words_say_themselves_as_they_are_written() -> None:
    for word in (choice(1, "a", None), between(0.5, 1), log(1, 8), integer(1, 8), integer(8, 128, log=True)):
        assert read(repr(word), SPACES) == word


def test_bounds_from_python_are_checked_alike() -> None:
    for call in (lambda: choice(), lambda: choice(1), lambda: between(1, 0), lambda: between(0, math.inf), lambda: log(-1, 1)):
        with pytest.raises(NotationError):
            call()
