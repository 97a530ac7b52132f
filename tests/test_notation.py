"""Text ⇄ objects: what reads, what is refused and with which words, and that everything written reads back."""

from __future__ import annotations

import keyword
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.errors import DataError, NotationError
from attar.notation import (
    Call,
    InPath,
    List,
    Minus,
    Name,
    OutPath,
    Product,
    Sum,
    Value,
    located,
    map_paths,
    override,
    parse,
    read,
    resolve,
    say,
    signature,
    write,
)


# A toy vocabulary: terms that add and scale, builders, paths.
@dataclass(frozen=True)
class Term:
    text: str

    def __add__(self, other: object) -> Term:
        return Term(f"({self} + {other})") if isinstance(other, Term) else NotImplemented

    def __mul__(self, other: object) -> Term:
        return Term(f"({self} * {other})") if isinstance(other, float | int | Weight) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> Term:
        return Term(f"-{self}")

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Weight:
    start: float


@runtime_checkable
class Answers(Protocol):
    @property
    def fingerprint(self) -> str: ...

    def __call__(self, batch: int) -> int: ...


class Teacher:
    @property
    def fingerprint(self) -> str:
        raise AssertionError("checking an argument must not read a teacher's weights")

    def __call__(self, batch: int) -> int:
        return batch


def kl(temperature: float = 1.0, *, label: str = "") -> Term:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return Term(say("kl", temperature=temperature))


def labels(smoothing: float = 0.0) -> Term:
    return Term(say("labels", smoothing=smoothing))


def blend(a: Term, b: Term, weight: float | Weight = 0.5) -> Term:
    return Term(say("blend", a, b, weight=weight))


def ramp(start: float) -> Weight:
    return Weight(start)


def table(
    path: InPath,
    label: str,
    *,
    columns: list[str] | None = None,
    shape: tuple[int, int] = (0, 0),
    mode: Literal["auto", "strict", 3] = "auto",
) -> tuple[Any, ...]:
    return path, label, columns, shape, mode


def taught(builder: Callable[..., Any], at: OutPath = "teacher.txt") -> tuple[Any, str]:
    return builder, at


def trees(trees: int = 100, deep: bool = False) -> Callable[..., Any]:
    return lambda: (trees, deep)


def ensemble(*sources: Answers, weights: tuple[float, ...] = ()) -> tuple[Any, ...]:
    return sources, weights


def broken() -> None:
    raise DataError("no rows", hint="add some")


WORDS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (kl, labels, blend, ramp, table, taught, trees, ensemble, broken)
} | {"teacher": Teacher}  # fmt: skip


def refusal(text: str, **kwargs: Any) -> NotationError:
    with pytest.raises(NotationError) as caught:
        read(text, WORDS, **kwargs)
    return caught.value


# --- reading


def test_a_sum_of_weighted_terms_is_read_from_left_to_right() -> None:
    assert repr(read("0.9 * kl(temperature=4) + 0.1 * labels() + kl()", WORDS)) == (
        "(((kl(temperature=4.0) * 0.9) + (labels(smoothing=0.0) * 0.1)) + kl(temperature=1.0))"
    )


def test_weights_multiply_terms_on_either_side() -> None:
    assert repr(read("kl() * ramp(0.5)", WORDS)) == "(kl(temperature=1.0) * Weight(start=0.5))"
    assert repr(read("-kl()", WORDS)) == "-kl(temperature=1.0)"


def test_arguments_may_be_given_by_place_or_by_name() -> None:
    assert read('table("a.csv", "y")', WORDS) == read('table(label="y", path="a.csv")', WORDS)


def test_a_whole_number_stands_for_a_float_and_a_list_for_a_tuple() -> None:
    temperature = read("table('a', 'b', shape=[1, 2])", WORDS)[3]
    assert temperature == (1, 2)
    weights = read("ensemble(teacher(), teacher(), weights=[1, 0.5])", WORDS)[1]
    assert weights == (1.0, 0.5)
    assert all(type(w) is float for w in weights)


def test_checking_a_protocol_runs_no_property() -> None:
    sources, _ = read("ensemble(teacher())", WORDS)
    assert isinstance(sources[0], Teacher)


def test_an_input_path_is_joined_to_the_recipe_and_an_output_path_stays_relative_to_the_run() -> None:
    base, out = Path("recipes"), Path("runs/credit")
    assert read('table("../data/a.csv", "y")', WORDS, base=base, out=out)[0] == "data/a.csv"
    assert read('table("/data/a.csv", "y")', WORDS, base=base, out=out)[0] == "/data/a.csv"
    assert read('taught(trees(), at="./t.txt")', WORDS, base=base, out=out)[1] == "t.txt"
    assert read(f'taught(trees(), at="{Path.cwd()}/runs/credit/t.txt")', WORDS, base=base, out=out)[1] == "t.txt"


def test_a_default_input_path_is_relative_to_the_recipe_too() -> None:
    def rows(path: InPath = "rows.csv") -> str:
        return path

    assert read("rows()", {"rows": rows}, base=Path("recipes")) == "recipes/rows.csv"


def test_a_run_may_write_beside_itself_but_nowhere_else() -> None:
    assert read('taught(trees(), at="../shared.txt")', WORDS, out=Path("runs/x"))[1] == "../shared.txt"
    for path in ("../../evil.txt", "/etc/passwd"):
        assert "inside" in refusal(f'taught(trees(), at="{path}")', out=Path("runs/x")).hint


def test_the_whole_text_can_be_held_to_an_annotation() -> None:
    assert resolve(parse('["a", "b"]'), {}, hint=list[str]) == ["a", "b"]
    with pytest.raises(NotationError, match="a list"):
        resolve(parse('"a"'), {}, hint=list[str])


# --- refusing


@pytest.mark.parametrize("word", ["kll(temperature=2)", "blend(lables(), kl())", "tabel('a', 'y')", "TEACHER()"])
def test_an_unknown_word_names_its_near_neighbours(word: str) -> None:
    error = refusal(word)
    assert "there is no word" in error.message
    if word != "TEACHER()":
        assert "did you mean" in error.hint


def test_an_error_shows_the_text_with_carets_below_the_place() -> None:
    lines = refusal("blend(kll(temperature=2), labels())").message.splitlines()
    assert lines[1:] == ["  blend(kll(temperature=2), labels())", "        ^^^"]


def test_carets_stand_below_the_right_letters_after_wide_letters_and_in_a_long_text() -> None:
    lines = refusal("table('Ünïcödé–名', kll())").message.splitlines()
    assert lines[1][lines[2].index("^") :].startswith("kll")
    lines = refusal("blend(" + "kl() + " * 40 + "kll(), labels())").message.splitlines()
    assert lines[1][lines[2].index("^") :].startswith("kll")
    assert max(map(len, lines)) <= 80


def test_an_unknown_argument_says_what_was_meant_and_the_signature() -> None:
    error = refusal("kl(temprature=2)")
    assert "no argument 'temprature'" in error.message
    assert "did you mean 'temperature'?" in error.hint
    assert "kl(temperature: float = 1.0" in error.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kl("hot")', 'temperature of kl() takes a number, got "hot"'),
        ("kl(True)", "takes a number, got True"),
        ("kl(None)", "takes a number, got None"),
        ("kl([1])", "takes a number, got [1]"),
        ("trees(1.5)", "takes a whole number, got 1.5"),
        ("trees(True)", "takes a whole number, got True"),
        ("trees(deep=1)", "takes True or False, got 1"),
        ("table('a', 3)", "label of table() takes a text in quotes, got 3"),
        ("table(3, 'y')", "takes a path in quotes, got 3"),
        ("table('', 'y')", "takes a path in quotes"),
        ("table('a', 'y', columns='x')", "takes a list [...], each a text in quotes or None"),
        ("table('a', 'y', columns=['x', 1])", "takes a list"),
        ("table('a', 'y', shape=[1, 2, 3])", "takes a list [a whole number, a whole number]"),
        ("table('a', 'y', mode='strikt')", 'takes "auto" or "strict" or 3'),
        ("table('a', 'y', mode=True)", 'takes "auto" or "strict" or 3'),
        ("blend(kl(), 0.5)", "b of blend() takes a Term, got 0.5"),
        ("blend(kl(), labels(), weight=kl())", "takes a number or a Weight, got kl()"),
        ("ensemble(kl())", "takes an Answers, got kl()"),
        ("taught(3)", "takes a callable, got 3"),
    ],
)
def test_a_wrong_type_says_what_is_taken_and_what_was_given(text: str, said: str) -> None:
    assert said in refusal(text).message


def test_a_wrong_choice_names_the_near_one() -> None:
    assert refusal("table('a', 'y', mode='strikt')").hint == "did you mean 'strict'?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blend(kl())", "needs 'b'"),
        ("kl(1, 2)", "takes 1 argument by place"),
        ("kl(1, temperature=2)", "given twice"),
        ("kl(temperature=1, temperature=2)", "given twice"),
        ("teacher(1)", "takes no"),
        ("ensemble(sources=teacher())", "no argument 'sources'"),
    ],
)
def test_missing_surplus_and_double_arguments_are_refused(text: str, said: str) -> None:
    if text == "teacher(1)":
        said = "by name only"
    assert said in refusal(text).message


def test_a_bare_word_says_how_to_call_it() -> None:
    assert refusal("kl").hint == "write kl()"
    assert '"auto"' in refusal("table('a', 'y', mode=auto)").hint


@pytest.mark.parametrize(
    "text",
    ["kl() + 1", "2 * 3", "2 * 3 * kl()", "3 * [1]", '2 * "a"', '"a" + "b"', "[1] + [2]", "kl() * kl()", "True * kl()"],
)
def test_only_terms_add_and_only_weights_multiply(text: str) -> None:
    refusal(text)


def test_what_a_word_itself_refuses_gets_its_place() -> None:
    error = refusal("0.5 * labels() + kl(-1)")
    assert error.message.splitlines() == [
        "temperature must be positive, got -1.0",
        "  0.5 * labels() + kl(-1)",
        "                   ^^^^^^",
    ]


def test_an_error_of_a_word_keeps_its_class_and_hint() -> None:
    with pytest.raises(DataError, match=r"no rows\n  broken\(\)") as caught:
        read("broken()", WORDS)
    assert caught.value.hint == "add some"


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "(", "kl(", "kl)", "kl(1]", "kl(,)", "kl(1,,2)", "kl(a=)", "kl() labels()", "kl(1 2)", "kl();kl()",
        "kl.x", "kl().x", "kl()[0]", "kl()()", "(1, 2)", "()", "{}", "{1: 2}", "{1}", "kl(**{})", "kl(*[1])", "kl(**kl)",
        "1 - 2", "kl() - kl()", "+1", "1 / 2", "2 ** 3", "1 // 2", "1 % 2", "~1", "not kl()", "1 == 1", "1 < 2", "a if b else c",
        "kl() and kl()",
        "lambda: 1", "[x for x in kl()]", "(x for x in kl())", "kl(x for x in y)", "x := 1", "f'{kl()}'", "b'a'", "u'a'", "r'a'", '"a" "b"',
        "1j", "0x10", "0b1", "007", "1_", "1e999", "9223372036854775808", "9" * 5000, "1if 2else 3", "...", "kl(...)",
        "await kl()", "yield", "import os",
        "'abc", '"abc\n"', '"""a"""', "'\\d'", "'\\N{BULLET}'", "'\\x1'", "a\x00b", "'a\x00b'", "'\ud800'", "kl() # comment",
        "kl(\\\n)", "`kl`", "$x", "@x", "kl!",
        "--1", "--kl()", "-True", '-"a"', "-[1]", "-(-1)", "__import__('os')", "²",
    ],
)  # fmt: skip
def test_what_the_grammar_does_not_know_is_refused(text: str) -> None:
    refusal(text)


@pytest.mark.parametrize(
    "text",
    ["[" * 1000 + "]" * 1000, "kl(" * 1000 + ")" * 1000, "(" * 1000, "-" * 9000 + "1", "kl()" + "+kl()" * 1900, "[" + "1," * 4900 + "]"],
)
def test_a_deep_or_crowded_text_gives_one_short_error(text: str) -> None:
    error = refusal(text)
    assert len(str(error)) < 400


def test_a_text_of_a_megabyte_gives_one_short_error() -> None:
    error = refusal('table("' + "a" * 1_000_000 + '", "y")')
    assert "1,000,014 characters" in error.message
    assert len(str(error)) < 400


def test_thirty_two_levels_are_read_and_the_next_is_not() -> None:
    parse("[" * 32 + "]" * 32)
    with pytest.raises(NotationError, match="deeper than 32"):
        parse("[" * 33 + "]" * 33)


def test_no_text_makes_anything_but_a_notation_error() -> None:
    @given(st.text(st.sampled_from("kl(),=+*-[]\"'\\ \n1.e_xab#{}:é\x00"), max_size=60))
    def attempt(text: str) -> None:
        with suppress(NotationError):
            read(text, WORDS)

    attempt()


# --- writing

names = st.from_regex(r"[a-z][a-z_0-9]{0,6}", fullmatch=True).filter(lambda n: not keyword.iskeyword(n))
values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63) + 1, 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)
).map(Value)  # fmt: skip


@st.composite
def trees_of(draw: st.DrawFn, depth: int = 3) -> Any:
    """A tree in the form that `parse` gives: sums do not begin with a sum, a minus stands before no number."""

    def several(least: int) -> tuple[Any, ...]:
        return tuple(draw(trees_of(depth=depth - 1)) for _ in range(draw(st.integers(least, 3))))

    kind = draw(st.sampled_from([Value, Name] if depth == 0 else [Value, Name, List, Call, Sum, Product, Minus]))
    if kind is Value:
        return draw(values)
    if kind is Name:
        return Name(draw(names))
    if kind is Call:
        keywords = draw(st.lists(names, unique=True, max_size=2))
        return Call(draw(names), several(0), tuple((k, draw(trees_of(depth=depth - 1))) for k in keywords))
    items = several(0 if kind is List else 1 if kind is Minus else 2)
    if kind is List:
        return List(items)
    if kind is Minus:
        return items[0] if isinstance(items[0], Value | List | Minus) else Minus(items[0])
    if isinstance(items[0], kind):
        return items[0]
    return Sum(items) if kind is Sum else Product(items)


@given(trees_of())
def test_every_tree_that_is_written_reads_back_to_itself(node: Any) -> None:
    assert parse(write(node)) == node


def test_one_and_one_point_zero_and_true_are_three_literals() -> None:
    assert len({Value(1), Value(1.0), Value(True), Value("1"), Value(None)}) == 5


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.lists(st.integers(-10, 10)), st.booleans())
def test_what_say_writes_reads_back_to_the_same_arguments(text: str, number: float, items: list[int], flag: bool) -> None:
    def word(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def echo(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, ...]:
        return a, b, c, d

    a, b, c, d = read(say("echo", text, number, c=items, d=flag), {"echo": echo})
    assert (a, c, d) == (text, items, flag)
    assert type(b) is float
    assert math.copysign(1, b) == math.copysign(1, number)
    assert b == number


def test_say_writes_numbers_of_numpy_paths_and_nested_words_plainly() -> None:
    assert say("f", np.float64(0.5), np.int64(3), Path("a/b"), (1, 2), x=Term("kl()"), y=None) == 'f(0.5, 3, "a/b", [1, 2], x=kl())'


def test_a_signature_shows_types_and_defaults() -> None:
    assert signature("taught", taught) == 'taught(builder: callable, at: path = "teacher.txt")'
    assert signature("ensemble", ensemble) == "ensemble(*sources: Answers, weights: tuple[float, ...] = [])"
    assert signature("kl", kl, types=False) == 'kl(temperature=1.0, label="")'


# --- changing


@pytest.mark.parametrize(
    ("text", "path", "value", "after"),
    [
        ("kl()", "temperature", "4", "kl(temperature=4)"),
        ("kl(2)", "temperature", "4", "kl(4)"),
        ("kl(temperature=2)", "temperature", "4", "kl(temperature=4)"),
        ("kl()", "", "labels()", "labels()"),
        ("taught(trees(600), at='t')", "builder.trees", "50", 'taught(trees(50), at="t")'),
        ("taught(builder=trees())", "builder.deep", "True", "taught(builder=trees(deep=True))"),
        ("table('a', 'y')", "path", "data/b.csv", 'table("data/b.csv", "y")'),
        ("table('a', 'y')", "label", "1", 'table("a", "1")'),
        ("table('a', 'y')", "mode", "strict", 'table("a", "y", mode="strict")'),
        ("table('a', 'y')", "mode", "3", 'table("a", "y", mode=3)'),
        ("table('a', 'y')", "columns", '["b"]', 'table("a", "y", columns=["b"])'),
        ("table('a', 'y')", "columns", "None", 'table("a", "y", columns=None)'),
        ("table('a', 'y', columns=['b', 'c'])", "columns.1", '"d"', 'table("a", "y", columns=["b", "d"])'),
        ("0.9 * kl() + 0.1 * labels()", "0.0", "0.8", "0.8 * kl() + 0.1 * labels()"),
        ("0.9 * kl() + 0.1 * labels()", "0.1.temperature", "3", "0.9 * kl(temperature=3) + 0.1 * labels()"),
        ("ensemble(teacher(), teacher())", "sources.1", "kl()", "ensemble(teacher(), kl())"),
        ("ensemble(teacher(), teacher())", "sources", "[kl()]", "ensemble(kl())"),
    ],
)
def test_an_override_changes_one_argument_in_the_tree(text: str, path: str, value: str, after: str) -> None:
    assert write(override(parse(text), path, value, WORDS)) == after


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("kl()", "temprature", "did you mean 'temperature'?"),
        ("kll()", "temperature", "did you mean 'kl'?"),
        ("taught(trees())", "builder.treez", "did you mean 'trees'?"),
        ("kl()", "temperature.x", "set temperature as a whole"),
        ("kl(2)", "temperature.x", "by name"),
        ("kl() + labels()", "2", "0 to 1"),
        ("kl() + labels()", "kl", "0 to 1"),
        ("ensemble()", "sources.0", "no part"),
    ],
)
def test_an_override_of_what_is_not_there_says_what_is(text: str, path: str, said: str) -> None:
    with pytest.raises(NotationError) as caught:
        override(parse(text), path, "1", WORDS)
    assert said in str(caught.value)


def test_every_path_of_a_tree_can_be_rewritten_by_what_it_is_relative_to() -> None:
    node = parse('taught(table("a.csv", "a.csv"), at="b.txt")')
    assert write(map_paths(node, WORDS, lambda path, of: f"{of}/{path}")) == 'taught(table("recipe/a.csv", "a.csv"), at="run/b.txt")'


def test_an_annotation_may_carry_a_note_that_is_no_path() -> None:
    def word(width: Annotated[int, "units"]) -> int:
        return width

    assert read("word(3)", {"word": word}) == 3
    with pytest.raises(NotationError, match="a whole number"):
        read("word('3')", {"word": word})


# ------------------------------------------------------------------------------------------------------------------------- packages


def test_a_path_into_a_package_leads_there_without_importing_it() -> None:
    assert located("package:pydoc_data/topics.py").exists()
    code = "import sys; from attar.notation import located; located('package:pydoc_data/topics.py'); print('pydoc_data' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
    assert located("data/rows.csv") == Path("data/rows.csv")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("package:no_such_package/model", "no package 'no_such_package' is installed\nhint: pip install no-such-package"),
        ("package:os.path/model", "'os.path' is no name of a package"),
        ("package:/etc", "'' is no name of a package"),
        ("package:json/../../secret", "leaves the package 'json'"),
        ("package:this/model", "no package 'this' is installed"),  # a module has no folder
    ],
)
def test_a_path_into_no_package_is_refused(path: str, says: str) -> None:
    with pytest.raises(NotationError, match=says):
        located(path)


def test_a_path_into_a_package_is_never_made_relative() -> None:
    def opened(path: InPath) -> str:
        return path

    words = {"opened": opened}
    assert read('opened("package:json/tool.py")', words, base=Path("/recipes")) == "package:json/tool.py"
    assert read('opened("tool.py")', words, base=Path("/recipes")) == "/recipes/tool.py"
    tree = map_paths(parse('opened("package:json/tool.py")'), words, lambda path, of: f"../{path}")
    assert write(tree) == 'opened("package:json/tool.py")'
