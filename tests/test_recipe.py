"""Recipes: what a file may hold, where an error points to, and that a resolved recipe reads back to the same objects."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attar
from attar.errors import AttarError, DataError, NotationError, RecipeError, TrustError
from attar.notation import read, say, signature, write
from attar.recipe import KEYS, Recipe, load, vocabulary

GOOD = """\
# a comment on its own line
data: table("rows.csv", label="y")
task: classification(metric="auroc")

teacher: taught(lightgbm(trees=20), at="teacher.txt")
student: mlp(width=64, depth=3)
objective: blend(kl(temperature=2), labels(), weight=0.9)
fit: fit(epochs=3, seeds=2)
controls: ["labels", hard]
deploy: int8
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def written(folder: Path, text: str | bytes, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(folder: Path, text: str | bytes, **kwargs: Any) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load(written(folder, text), **kwargs).resolve(folder / "run")
    error = caught.value
    assert error.message.startswith(str(folder / "recipe.yaml"))
    assert len(str(error)) < 1000
    return error


def texts(recipe: Recipe) -> dict[str, str]:
    return {key: write(entry.node) for key, entry in recipe.entries.items()}


# --- what reads


def test_a_recipe_is_read_key_by_key_with_its_lines(folder: Path) -> None:
    recipe = load(written(folder, GOOD))
    assert list(recipe.entries) == ["data", "task", "teacher", "student", "objective", "fit", "controls", "deploy"]
    assert recipe.entries["teacher"].line == 5
    assert texts(recipe)["controls"] == '["labels", "hard"]'
    assert texts(recipe)["deploy"] == '"int8"'
    assert recipe.where("teacher") == f"{recipe.path}:5 (teacher)"
    assert recipe.where("budget") == f"{recipe.path} (budget)"


@pytest.mark.parametrize(
    "text",
    [
        "objective: kl(temperature=2)",
        "objective: 'kl(temperature=2)'  # a quoted value may be followed by a comment",
        'objective: "kl(temperature=2)"',
        "objective:\n  kl(\n    temperature=2)\n# the end",
        "objective: >\n  kl(temperature=2)\n",
        "---\nobjective: kl(temperature=2)\n...\n",
        "\ufeffobjective: kl(temperature=2)\r\n",
        "'objective': kl(temperature=2)",
    ],
)
def test_plain_quoted_and_folded_strings_are_one_and_the_same(folder: Path, text: str) -> None:
    assert texts(load(written(folder, text)))["objective"] == "kl(temperature=2)"


def test_a_hash_inside_quotes_is_part_of_the_value(folder: Path) -> None:
    recipe = load(written(folder, """data: 'table("a #1.csv", label="#y")'\n"""))
    assert texts(recipe)["data"] == 'table("a #1.csv", label="#y")'


# --- what does not


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("data: {path: a.csv}\n", 1, "no maps"),
        ("\ndata: table('a')\nstudent: {mlp: 1}\n", 3, "no maps"),
        ("data:\n  table: a.csv\n", 2, "no maps"),
        ("controls:\n  - labels\n  - hard\n", 2, "no lists of lines"),
        ("controls: [[a], {b: c}]\n", 1, "no maps"),
        ("{data: a}\n", 1, "lines of key: text"),
        ("- data\n", 1, "lines of key: text"),
        ("data\n", 1, "lines of key: text"),
        ("student: mlp()\nstudent: mlp(width=3)\n", 2, "stands already in line 1"),
        ("student: &s mlp()\n", 1, "no anchors"),
        ("student: mlp()\nteacher: *s\n", 2, "no anchors"),
        ("controls: [&a x, *a]\n", 1, "no anchors"),
        ("&x data: table()\n", 1, "no anchors"),
        ("student: !!python/object/apply:os.system mlp()\n", 1, "no tags"),
        ("student: ! mlp()\n", 1, "no tags"),
        ("fit: !!int 3\n", 1, "no tags"),
        ("!!map\ndata: x\n", 1, "no tags"),
        ("%YAML 1.1\n---\ndata: x\n", 1, "a directive"),
        ("data: a()\n---\nstudent: b()\n", 2, "a second document"),
        ("? [data]\n: x\n", 1, "no lists of lines"),
        ("<<: x()\n", 1, "no key '<<'"),
        ("objective: kl() # why not\n", 1, "the # cuts the value after 'kl()'"),
        ("task: classification()\ndata: table('a #1.csv')\n", 2, "the # cuts"),
        ("data: table('a',\n  'y') # two lines\n", 1, "the # cuts"),
        ("objective: # nothing\nstudent: mlp()\n", 1, "the # cuts"),
        ("objective:\nstudent: mlp()\n", 1, "there is no value"),
        ("objective: ''\n", 1, "there is no value"),
        ("data: table('a: b')\n", 1, "mapping values"),
        ("\tdata: x()\n", 1, "cannot start any token"),
        ("data: [\n", 2, "expected the node content"),
        ("data: 'x\n", 2, "unexpected end"),
        ("data: a\n b: c\n", 2, "mapping values"),
        ("student: mlp()\nobjectiv: kl()\n", 2, "no key 'objectiv'"),
        ("student: mlp()\nobjective: kl(temperature=)\n", 2, "does not read"),
        ("student: mlp()\nobjective: __import__('os').system('true')\n", 2, "'.' cannot stand here"),
        ("student: mlp()\nobjective: kl(\x00)\n", 2, "cannot stand in a recipe"),
        (b"student: mlp()\nobjective: kl(\xff)\n", 2, "not UTF-8"),
    ],
)
def test_yaml_beyond_plain_strings_is_refused_with_its_line(folder: Path, text: str | bytes, line: int, said: str) -> None:
    error = refusal(folder, text)
    assert said in error.message
    assert error.message.startswith(f"{folder / 'recipe.yaml'}:{line}")
    assert error.hint


@pytest.mark.parametrize(("key", "other"), [("shift", "corruptions()"), ("foreign", 'unlabelled("rows.csv")')])
def test_what_stands_for_data_is_said_in_words_of_a_recipe(folder: Path, key: str, other: str) -> None:
    with pytest.raises(AttarError) as found:
        load(written(folder, GOOD + f'{key}: ["x.csv"]\n')).resolve(folder / "run")
    assert f'{key} takes a list [...], each data such as table("rows.csv", label="y") or {other}, got ["x.csv"]' in str(found.value)


def test_an_unknown_key_names_its_near_neighbour(folder: Path) -> None:
    assert refusal(folder, "objectiv: kl()\n").hint == "did you mean 'objective'?"


@pytest.mark.parametrize("text", ["", "   \n", b"\xef\xbb\xbf", "\n\n"])
def test_an_empty_file_is_refused(folder: Path, text: str | bytes) -> None:
    assert "empty" in refusal(folder, text).message


def test_a_file_of_comments_has_no_data(folder: Path) -> None:
    error = refusal(folder, "# nothing\n")
    assert "no data and no teacher and no student" in error.message


def test_a_missing_file_names_a_near_one(folder: Path) -> None:
    written(folder, GOOD, "credit.yaml")
    with pytest.raises(RecipeError, match="no such file") as caught:
        load(folder / "credti.yaml")
    assert "credit.yaml" in caught.value.hint


def test_a_folder_is_no_recipe(folder: Path) -> None:
    with pytest.raises(RecipeError, match="not a file"):
        load(folder)


def test_a_recipe_of_a_megabyte_is_refused_unread(folder: Path) -> None:
    error = refusal(folder, "# " + "x" * 1_000_000 + "\n" + GOOD)
    assert "262,144 are allowed" in error.message


def test_a_value_of_a_hundred_kilobytes_is_refused(folder: Path) -> None:
    assert "10,000 are allowed" in refusal(folder, f'data: table("{"a" * 100_000}", label="y")\n').message


@pytest.mark.parametrize("value", ["[" * 1000 + "]" * 1000, "kl(" * 1000 + ")" * 1000, "'" + "[" * 1000 + "'"])
def test_a_thousand_nested_brackets_are_refused(folder: Path, value: str) -> None:
    assert "deeper than 32" in refusal(folder, f"objective: {value}\n").message


def test_a_thousand_nested_maps_are_refused(folder: Path) -> None:
    assert "no maps" in refusal(folder, "objective: " + "{a: " * 1000 + "}" * 1000 + "\n").message


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("data: student:kl()\n\t #&*!|>-?{}[],'\"%@`\\x\x00é=1"), max_size=60))
def test_no_file_makes_anything_but_a_recipe_error(folder: Path, text: str) -> None:
    path = written(folder, text)
    try:
        load(path)
    except RecipeError as error:
        assert error.message.startswith(str(path))  # noqa: PT017  # any text may also be a recipe


# --- words


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("table(", "tabel(", 2, "did you mean 'table'"),
        ("classification(", "clasification(", 3, "did you mean 'classification'"),
        ("taught(", "tought(", 5, "did you mean 'taught'"),
        ("lightgbm(", "lightgmb(", 5, "did you mean 'lightgbm'"),
        ("mlp(", "mpl(", 6, "did you mean 'mlp'"),
        ("kl(", "kll(", 7, "did you mean 'kl'"),
        ("labels()", "lables()", 7, "did you mean 'labels'"),
        ("blend(", "belnd(", 7, "did you mean 'blend'"),
        ("fit(", "fitt(", 8, "did you mean 'fit'"),
        ("label=", "lable=", 2, "did you mean 'label'"),
        ("metric=", "metrik=", 3, "did you mean 'metric'"),
        ("trees=", "treez=", 5, "did you mean 'trees'"),
        ("width=", "widht=", 6, "did you mean 'width'"),
        ("temperature=", "temprature=", 7, "did you mean 'temperature'"),
        ("epochs=", "epoch=", 8, "did you mean 'epochs'"),
        ("int8", "int9", 10, "did you mean 'int8'"),
        ("width=64", 'width="64"', 6, 'takes a whole number, got "64"'),
        ("width=64", "width=64.5", 6, "takes a whole number, got 64.5"),
        ("temperature=2", 'temperature="hot"', 7, "got"),
        ('label="y"', "label=y", 2, 'a text stands in quotes: "y"'),
        ("labels()", "labels", 7, "write labels()"),
        ("labels()", "mlp()", 7, "there is no word 'mlp'"),
        ("labels()", "0.1", 7, "got 0.1"),
        ("fit(epochs=3, seeds=2)", "3", 8, "got 3"),
        ("hard]", "3]", 9, "a list"),
        ("mlp(width=64, depth=3)", "kl()", 6, "there is no word 'kl'"),
        ('taught(lightgbm(trees=20), at="teacher.txt")', "mlp()", 5, "taught"),
    ],
)
def test_a_wrong_word_or_value_is_named_with_its_line(folder: Path, old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    error = refusal(folder, GOOD.replace(old, new, 1))
    assert error.message.startswith(f"{folder / 'recipe.yaml'}:{line} (")
    assert said in str(error)


def test_what_a_word_refuses_is_told_with_its_line_and_keeps_its_class(folder: Path) -> None:
    with pytest.raises(AttarError) as caught:
        load(written(folder, GOOD.replace("temperature=2", "temperature=-2"))).resolve(folder / "run")
    assert caught.value.message.startswith(f"{folder / 'recipe.yaml'}:7 (objective): ")
    assert "-2" in caught.value.message


@pytest.mark.parametrize("key", [k for k, v in KEYS.items() if v.rooms])
def test_every_word_has_annotations_that_can_be_checked_and_a_first_sentence(key: str) -> None:
    for name, word in vocabulary(key).items():
        assert signature(name, word).startswith(f"{name}(")
        assert (word.__doc__ or "").strip(), f"{name} says nothing"


EITHER = {"hf"}  # words that need one of two arguments


@pytest.mark.parametrize("key", [k for k, v in KEYS.items() if v.rooms])
def test_every_word_that_needs_no_argument_reads_back_from_what_it_says_of_itself(key: str) -> None:
    words = vocabulary(key)
    for name, word in words.items():
        parameters = inspect.signature(word).parameters.values()
        if all(p.default is not p.empty for p in parameters) and name not in EITHER:
            said = repr(read(f"{name}()", words))
            assert repr(read(said, words)) == said


def test_no_recipe_can_trust_itself(folder: Path) -> None:
    text = GOOD.replace('taught(lightgbm(trees=20), at="teacher.txt")', 'estimator("teacher.pickle", trusted=True)')
    assert "no argument 'trusted'" in refusal(folder, text).message


def test_a_pickle_is_read_only_if_pickles_are_trusted(folder: Path) -> None:
    import pickle

    (folder / "teacher.pickle").write_bytes(pickle.dumps({"not": "a model"}))
    path = written(folder, GOOD.replace('taught(lightgbm(trees=20), at="teacher.txt")', 'estimator("teacher.pickle")'))
    with pytest.raises(TrustError, match="pickle") as caught:
        load(path).resolve(folder / "run")
    assert caught.value.message.startswith(f"{path}:5 (teacher): ")
    assert "--trust pickle" in caught.value.hint
    with pytest.raises(AttarError, match="no predict"):  # it was read
        load(path, trust=["pickle"]).resolve(folder / "run")


# --- foreign words


@pytest.fixture
def foreign() -> Iterator[types.ModuleType]:
    module = types.ModuleType("toy_words")

    def half() -> Any:
        """A term at half its weight."""
        return 0.5 * attar.kl()

    vars(module)["attar_words"] = {"objective": {"half": half}}
    sys.modules["toy_words"] = module
    yield module
    del sys.modules["toy_words"]


def test_a_foreign_word_is_known_only_if_its_package_is_trusted(folder: Path, foreign: types.ModuleType) -> None:
    text = GOOD.replace("blend(kl(temperature=2), labels(), weight=0.9)", "half() + labels()")
    assert "no word 'half'" in refusal(folder, text).message
    resolved = load(written(folder, text), trust=["toy_words"]).resolve(folder / "run")
    assert repr(resolved.values["objective"]) == repr(0.5 * attar.kl() + attar.labels())


def test_a_trusted_package_must_be_there_and_bring_words(folder: Path, foreign: types.ModuleType) -> None:
    path = written(folder, GOOD)
    for package, said in [("no_such_package_here", "No module named"), ("json", "no attar_words")]:
        with pytest.raises(TrustError, match=said):
            load(path, trust=[package]).resolve(folder / "run")
    foreign.attar_words["objective"]["kl"] = attar.kl
    with pytest.raises(TrustError, match="known already"):
        load(path, trust=["toy_words"]).resolve(folder / "run")


# --- resolving


def test_a_recipe_resolves_to_objects_and_its_text_reads_back_to_the_same(folder: Path) -> None:
    resolved = load(written(folder, GOOD)).resolve(folder / "runs" / "a")
    assert resolved.values["controls"] == ["labels", "hard"]
    assert resolved.values["deploy"] == "int8"
    text = resolved.text()
    (folder / "runs" / "a").mkdir(parents=True)
    again = load(written(folder / "runs" / "a", text)).resolve(folder / "runs" / "a")
    assert {k: repr(v) for k, v in again.values.items()} == {k: repr(v) for k, v in resolved.values.items()}
    assert again.text() == text


def test_a_resolved_text_writes_out_every_default_and_paths_from_the_run_folder(folder: Path) -> None:
    short = 'data: table("rows.csv", label="y")\nteacher: taught(lightgbm(), at="t.txt")\nstudent: mlp()\n'
    text = load(written(folder, short)).resolve(folder / "runs" / "a").text()
    lines = dict(line.split(": ", 1) for line in text.splitlines()[1:])
    assert list(lines) == ["data", "teacher", "student", "fit", "deploy"]
    assert '"../../rows.csv"' in lines["data"]
    assert 'at="t.txt"' in lines["teacher"]
    assert "width=" in lines["student"]
    assert "epochs=" in lines["fit"]
    assert lines["deploy"] == "float"


def test_other_data_are_a_list_whose_paths_follow_the_recipe(folder: Path) -> None:
    text = GOOD + 'shift: [table("rows.csv", label="y"), table("other.csv", label="y")]\n'
    nested = '[table("rows.csv", label="y", drop=["x"])]'
    assert len(load(written(folder, f"{GOOD}shift: '{nested}'\n")).resolve(folder / "run").values["shift"]) == 1
    with pytest.raises(RecipeError, match="expected ','") as bare:
        load(written(folder, f"{GOOD}shift: {nested}\n"))
    assert "single quotes" in bare.value.hint
    resolved = load(written(folder, text)).resolve(folder / "runs" / "a")
    assert [Path(data.path).name for data in resolved.values["shift"]] == ["rows.csv", "other.csv"]
    (folder / "runs" / "a").mkdir(parents=True)
    again = load(written(folder / "runs" / "a", resolved.text())).resolve(folder / "runs" / "a")
    assert again.text() == resolved.text()
    with pytest.raises(RecipeError, match=r"\(shift\)"):
        load(written(folder, GOOD + "shift: [mlp()]\n")).resolve(folder / "run")


def test_corruptions_stand_beside_other_data_and_their_words_are_checked(folder: Path) -> None:
    text = f'{GOOD}shift: \'[table("other.csv", label="y"), corruptions(kinds=["units", "missing"], severities=[1, 3])]\'\n'
    resolved = load(written(folder, text)).resolve(folder / "run")
    assert repr(resolved.values["shift"][1]) == 'corruptions(kinds=["units", "missing"], severities=[1, 3], rows=1000)'
    with pytest.raises(DataError, match=r"\(shift\).*there is no corruption 'unit'") as found:
        load(written(folder, f"{GOOD}shift: '[corruptions(kinds=[\"unit\"])]'\n")).resolve(folder / "run")
    assert "units" in found.value.hint
    with pytest.raises(DataError, match=r"\(shift\).*severity 9"):
        load(written(folder, f"{GOOD}shift: '[corruptions(severities=[9])]'\n")).resolve(folder / "run")
    with pytest.raises(RecipeError, match=r"\(data\)"):
        load(written(folder, GOOD.replace('table("rows.csv", label="y")', "corruptions()"))).resolve(folder / "run")


def test_foreign_rows_are_data_or_rows_without_labels(folder: Path) -> None:
    text = GOOD + 'foreign: [unlabelled("odd.csv"), table("rows.csv", label="y")]\n'
    resolved = load(written(folder, text)).resolve(folder / "runs" / "a")
    assert [Path(item.path).name for item in resolved.values["foreign"]] == ["odd.csv", "rows.csv"]
    (folder / "runs" / "a").mkdir(parents=True)
    again = load(written(folder / "runs" / "a", resolved.text())).resolve(folder / "runs" / "a")
    assert again.text() == resolved.text()
    with pytest.raises(RecipeError, match=r"\(foreign\)") as found:
        load(written(folder, GOOD + "foreign: [rotate(5)]\n")).resolve(folder / "run")
    assert "unlabelled(" in found.value.hint


# --- overrides


def test_settings_change_the_recipe_in_order(folder: Path) -> None:
    recipe = load(written(folder, GOOD)).with_overrides(
        [
            "student.width=32",
            "fit.epochs=9",
            "objective=kl()",
            "objective.temperature=3",
            "teacher.builder.trees=50",
            "data.path=other.csv",
            "task.metric=accuracy",
            "deploy=float",
            "controls=[labels]",
            "budget.size_mb=0.1",
        ]
    )
    assert texts(recipe) == {
        "data": 'table("other.csv", label="y")',
        "task": 'classification(metric="accuracy")',
        "teacher": 'taught(lightgbm(trees=50), at="teacher.txt")',
        "student": "mlp(width=32, depth=3)",
        "objective": "kl(temperature=3)",
        "fit": "fit(epochs=9, seeds=2)",
        "controls": '["labels"]',
        "deploy": '"float"',
        "budget": "budget(size_mb=0.1)",
    }


def test_an_error_after_a_setting_names_the_setting(folder: Path) -> None:
    recipe = load(written(folder, GOOD)).with_overrides(["student.width='a'"])
    with pytest.raises(RecipeError) as caught:
        recipe.resolve(folder / "run")
    assert caught.value.message.startswith(f"{recipe.path}:6 (student), --set student.width='a': width of mlp()")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("student.widht=3", "did you mean 'width'"),
        ("studnet.width=3", "did you mean 'student'"),
        ("student.width", "key.argument=text"),
        ("=3", "key.argument=text"),
        ("", "key.argument=text"),
        ("student=", "empty"),
        ("student=mlp(", "never closed"),
        ("objective.first.temprature=3", "did you mean 'temperature'"),
        ("require.margin=", "empty"),
        ("objective=" + "[" * 1000, "deeper than 32"),
    ],
)
def test_a_setting_that_does_not_fit_says_why(folder: Path, setting: str, said: str) -> None:
    with pytest.raises(NotationError) as caught:
        load(written(folder, GOOD)).with_overrides([setting])
    assert said in str(caught.value)
    assert caught.value.message.startswith(f"--set {setting}")


def test_nothing_can_be_set_within_what_the_recipe_does_not_say(folder: Path) -> None:
    text = 'data: table("rows.csv", label="y")\nteacher: taught(lightgbm(), at="t.txt")\nstudent: mlp()\n'
    with pytest.raises(NotationError, match="says nothing of task"):
        load(written(folder, text)).with_overrides(["task.metric=auroc"])


def test_a_foreign_text_that_say_wrote_survives_yaml(folder: Path) -> None:
    from attar.recipe import _scalar

    @settings(max_examples=100)
    @given(st.text(max_size=30))
    def attempt(value: str) -> None:
        text = say("table", value, label="it's: a #")
        assert texts(load(written(folder, f"data: {_scalar(text)}\n")))["data"] == text

    attempt()


def test_a_guard_is_a_line_that_reads_back_and_may_say_that_there_is_none(folder: Path) -> None:
    for line, said in (
        ('guard(epsilon=0.02, target="labels")', 'guard(epsilon=0.02, delta=0.1, target="labels", per="decision")'),
        ("guard(energy=0.99)", 'guard(epsilon=0.05, delta=0.1, target="teacher", per="decision", energy=0.99)'),
        ("unguarded()", "unguarded()"),
    ):
        resolved = load(written(folder, GOOD + f"guard: {line}\n")).resolve(folder / "run")
        assert repr(resolved.values["guard"]) == said
        assert f"guard: {said}\n" in resolved.text()
    with pytest.raises(AttarError, match=r"recipe.yaml:11 \(guard\): guard\(epsilon=2\) is not between 0 and 1"):
        load(written(folder, GOOD + "guard: guard(epsilon=2)\n")).resolve(folder / "run")
    assert "guard" not in load(written(folder, GOOD)).resolve(folder / "run").values


def test_a_cascade_is_a_teacher(folder: Path) -> None:
    text = GOOD.replace('taught(lightgbm(trees=20), at="teacher.txt")', 'cascade(onnx("student"), lightgbm("teacher.txt"))')
    error = refusal_of_any(folder, text)
    assert "no such file or folder" in error.message
    assert "student" in error.message


def refusal_of_any(folder: Path, text: str) -> AttarError:
    with pytest.raises(AttarError) as caught:
        load(written(folder, text)).resolve(folder / "run")
    return caught.value


def test_a_number_stands_as_it_is_and_comes_back(folder: Path) -> None:
    recipe = load(written(folder, GOOD + "show_rows: 4\n"))
    resolved = recipe.resolve(folder / "run")
    assert resolved.values["show_rows"] == 4
    assert "show_rows: 4\n" in resolved.text()
    assert recipe.with_overrides(["show_rows=7"]).resolve(folder / "run").values["show_rows"] == 7
    with pytest.raises(RecipeError, match=r"\(show_rows\)"):
        load(written(folder, GOOD + "show_rows: many\n")).resolve(folder / "run")
