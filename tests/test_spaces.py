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
from attar.notation import Call, Hole, Space, Value, parse, read, write
from attar.notation.spaces import SPACES, between, choice, integer, log
from attar.recipe import KEYS, SEARCHED, Recipe, load, of_texts, vocabulary
from attar.signal import Column, Schema
from attar.students import auto
from attar.task import OBJECTIVES, Kind, Task, classification

EITHER = "choice(mlp(width=integer(8, 128, log=True), depth=choice(1, 2, 3)), lightgbm(trees=integer(20, 300)))"
GOAL = "blend(kl(temperature=log(1, 8)), labels(), weight=between(0.5, 1))"


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
    middle = {name: value for space in of_texts(texts).spaces().values() for name, value in space.middle().items()}
    assert middle == {
        "student.width": 32,
        "student.depth": "2",
        "objective.kl.temperature": 2.828,
        "objective.weight": 0.75,
        "fit.lr": 0.01,
    }


def test_a_point_makes_a_plain_recipe() -> None:
    recipe = of_texts({"student": EITHER, "objective": GOAL, "fit": "fit(lr=log(1e-3, 1e-2), epochs=3)"})
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
        of_texts({key: text}).spaces()
    assert caught.value.message.startswith(key)
    assert said in str(caught.value)
    assert text[:60] in caught.value.message  # the text, with a caret below
    assert "^" in caught.value.message


def test_a_bound_is_refused_only_where_nothing_else_goes_with_it() -> None:
    text = 'hf(config="bert", tokenizer="tokens", width=choice(64, 96), heads=choice({}))'
    assert len(of_texts({"student": text.format("2, 3")}).spaces()["student"].holes) == 2  # 3 heads divide 96
    with pytest.raises(AttarError, match="5 heads do not divide"):
        of_texts({"student": text.format("2, 5")}).spaces()


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
    recipe = of_texts({"student": "mlp(width=integer(8, 128), depth=choice(1, 2))"})
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
    recipe = of_texts({"student": EITHER, "objective": GOAL, "fit": "fit(lr=log(1e-3, 2e-2))"})
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


# --- what data and words say of themselves


AGE = Column("age", "number", mean=40.0, std=10.0, median=39.0)
TABLE = Schema("table", (AGE,), classes=("no", "yes"))
DIGITS = Schema("images", shape=(1, 28, 28), pixel_mean=(33.0,), pixel_std=(78.0,), classes=tuple("0123456789"))
PHOTOS = Schema("images", shape=(3, 224, 224), pixel_mean=(99.0,) * 3, pixel_std=(50.0,) * 3, classes=("cat", "dog"))
TEXTS_ = Schema("text", texts=("text",), classes=("no", "yes"))


def opened(schema: Schema, student: str | None = "auto()", **more: str) -> Recipe:
    return of_texts({**({"student": student} if student else {}), **more}).opened(schema, classification())


def lines(recipe: Recipe) -> dict[str, str]:
    return {key: write(entry.node) for key, entry in recipe.entries.items()}


@pytest.mark.parametrize("schema", [TABLE, DIGITS, PHOTOS, TEXTS_, Schema("tensor", shape=(5,), classes=("no", "yes"))])
def test_auto_alone_is_a_search_whose_every_first_point_builds_a_student_of_the_data(schema: Schema) -> None:
    recipe = opened(schema)
    spaces = recipe.spaces()
    assert not any(space.empty for space in spaces.values())
    priors = recipe.priors()
    assert len(priors) == len({str(point) for point in priors}) >= 5
    for point in priors:
        assert all(space.contains(point) for space in spaces.values())
    built = {}
    for point in priors:
        plain = recipe.at(point)
        family = plain.entries["student"].node
        assert isinstance(family, Call)
        if family.name != "timm":  # seconds each
            built[family.name] = plain.value("student", "run")(schema, 0)
    assert built


def test_what_a_recipe_leaves_out_is_filled_in_for_a_search_and_what_it_says_stays() -> None:
    said = lines(opened(DIGITS, None, fit="fit(epochs=3)"))
    assert said["student"] == "cnn(width=integer(4, 64, log=True), depth=integer(2, 3))"
    assert said["objective"] == "blend(kl(temperature=log(1, 8)), labels(), weight=between(0.5, 1))"
    assert said["fit"] == "fit(epochs=3, lr=log(0.001, 0.02))"
    fixed = {"student": "mlp()", "objective": "kl()", "fit": "fit(lr=0.01)"}
    assert lines(of_texts(fixed).opened(DIGITS, classification())) == fixed
    unlabelled = of_texts({"student": "mlp()"}).opened(DIGITS, classification(), labelled=False)
    assert lines(unlabelled)["objective"] == "kl(temperature=log(1, 8))"
    assert lines(of_texts({"student": "forest()"}).opened(TABLE, classification()))["fit"] == "fit()"  # trees have no such rate


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_default_objective_holds_what_its_space_begins_from(kind: Kind) -> None:
    task = Task(kind, "metric")
    for labelled, text in ((True, task.objective), (False, task.objective_without_labels)):
        recipe = of_texts({"student": "mlp()", "objective": task.searched(labelled=labelled)})
        assert repr(recipe.at(recipe.priors()[0] if recipe.priors() else {}).value("objective", "run")) == repr(
            read(text, vocabulary("objective"))
        )


def test_a_rate_is_as_high_as_the_students_bear() -> None:
    def rate(student: str) -> str:
        return lines(of_texts({"student": student}).opened(TEXTS_, classification()))["fit"]

    assert rate('shrink(hf("folder"), layers=2)') == "fit(lr=log(5e-05, 0.001))"
    assert rate('static_embedding(hf("folder"))') == "fit(lr=log(0.002, 0.02))"  # its encoder does not learn
    both = of_texts({"student": 'choice(ngrams(), shrink(hf("folder"), layers=integer(1, 3)))'}).opened(TEXTS_, classification())
    assert lines(both)["fit"] == "fit(lr=log(5e-05, 0.05))"
    first = {point["student"][:6]: point["fit.lr"] for point in both.priors()}
    assert first == {"ngrams": 0.005, "shrink": 0.0002236}  # each at its own


def test_auto_may_name_families() -> None:
    assert lines(opened(TABLE, 'auto("forest")'))["student"].startswith("forest(trees=integer(")
    assert lines(opened(TABLE, 'choice(auto("mlp"), forest())'))["student"].startswith("choice(mlp(width=integer(")
    assert lines(of_texts({"student": "auto()"}, teacher=object()).opened(TEXTS_, classification()))["student"].startswith("ngrams(")
    for schema, text, said in (
        (TABLE, 'auto("cnn")', "auto('cnn'): there is no such student of a table"),
        (TEXTS_, 'auto("shrink")', "without a folder that the teacher begins from"),
        (TEXTS_, 'auto("ngram")', "did you mean 'ngrams'?"),
        (Schema("text", texts=("text",), embeds=True), "auto()", "no student is known of texts that are to become vectors"),
    ):
        with pytest.raises(AttarError) as caught:
            opened(schema, text)
        assert said in str(caught.value)


def test_the_first_points_are_the_defaults_of_the_words_at_the_temperatures_of_the_literature() -> None:
    recipe = opened(TABLE, "mlp(width=integer(8, 128, log=True), depth=choice(1, 2))")
    small, large, middle = ({"student.width": w, "student.depth": d} for w, d in ((8, "1"), (128, "2"), (64, "1")))
    ways = [(middle, 2.0, 0.9), (middle, 1.0, 0.9), (middle, 4.0, 0.9), (middle, 2.0, 1.0), (small, 1.0, 0.9), (large, 4.0, 0.9)]
    assert recipe.priors() == tuple(
        {**size, "objective.kl.temperature": t, "objective.weight": w, "fit.lr": 0.005} for size, t, w in ways
    )  # no depth 3, which is the default, but is not to be chosen


def test_temperatures_and_weights_become_tensors_for_a_cohort() -> None:
    text = "blend(kl(temperature=log(1, 8)), labels(smoothing=between(0, 0.2)), weight=choice(0.5, 0.9)) + between(0, 1) * jsd(beta=0.5)"
    recipe = of_texts({"objective": text})
    assert {hole.name.split(".", 1)[1]: hole.tensor for hole in recipe.spaces()["objective"].holes} == {
        "blend.kl.temperature": True,
        "blend.labels.smoothing": False,
        "blend.weight": True,
        "jsd.weight": True,
    }
    point = {
        "objective.blend.kl.temperature": 2.5,
        "objective.blend.labels.smoothing": 0.1,
        "objective.blend.weight": "0.9",
        "objective.jsd.weight": 0.25,
    }
    objective = recipe.tensors("objective", point, "run")
    assert sorted(round(float(value), 6) for name, value in objective.named_buffers() if name.endswith("value")) == [0.25, 0.9, 2.5]
    assert repr(objective) == repr(recipe.at(point).value("objective", "run"))
    with pytest.raises(RecipeError, match="lies outside"):
        recipe.tensors("objective", {**point, "objective.jsd.weight": 2.0}, "run")


def test_auto_is_known_of_students_alone_and_builds_nothing() -> None:
    assert [key for key, what in KEYS.items() if what.rooms and "auto" in vocabulary(key)] == ["student"]
    with pytest.raises(StudentError, match="is a space"):
        auto()(TABLE, 0)


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
    recipe = of_texts({"student": "mlp(width=64)", "fit": "fit()"})
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
