from __future__ import annotations

import inspect

import attar.errors
from attar.errors import AttarError, MissingExtra, near


def test_an_error_shows_its_hint() -> None:
    assert str(AttarError("no column 'defualt'", hint="did you mean 'default'?")) == "no column 'defualt'\nhint: did you mean 'default'?"
    assert str(AttarError("broken")) == "broken"


def test_the_drawn_tree_is_the_tree() -> None:
    drawing = attar.errors.__doc__ or ""
    classes = [c for _, c in inspect.getmembers(attar.errors, inspect.isclass) if issubclass(c, AttarError)]
    drawn: list[tuple[int, str]] = []
    for line in drawing.splitlines():
        name = line.lstrip("│├└─ ").split(" ")[0]
        if name in {c.__name__ for c in classes}:
            depth = len(line) - len(line.lstrip("│├└─ "))
            while drawn and drawn[-1][0] >= depth:
                drawn.pop()
            parent = drawn[-1][1] if drawn else "Exception"
            assert getattr(attar.errors, name).__base__.__name__ == parent, name
            drawn.append((depth, name))
    assert all(c.__name__ in drawing for c in classes)


def test_a_missing_library_says_how_to_get_it() -> None:
    assert 'pip install "attar[trees]"' in str(MissingExtra("lightgbm", "trees"))


def test_near_words_are_offered_else_what_exists() -> None:
    assert near("kll", ["kl", "mse"]) == "did you mean 'kl'?"
    assert near("zzz", ["kl", "mse"]) == "known: kl, mse"
    assert near("zzz", []) == ""
