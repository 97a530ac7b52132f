"""The drawing of the floors is true: who may import whom, what is public, what a name is."""

from __future__ import annotations

import ast
import importlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

import attar

SRC = Path(attar.__file__).parent
FLOORS: list[list[str]] = [  # each floor's rooms; a room imports from floors below its own and from itself
    ["errors", "identity", "progress"],
    ["signal", "notation", "files"],
    ["functional", "statistics"],
    ["task", "store", "cost", "guards", "certificate", "reading", "loop", "tap", "ends", "replay"],
    ["searched"],
    ["pretrained"],
    ["objective", "sources", "students", "data"],
    ["cohort"],
    ["verbs.teach", "verbs.annotate", "verbs.distill", "verbs.export", "verbs.evaluate", "report"],
    ["verbs.run", "verbs.check"],
    ["verbs.show"],
    ["recipe"],
    ["verbs.search"],
    ["cli"],
    ["__main__"],
]
ANYTHING = ["testing"]  # may import everything and is imported by nothing
OPTIONAL = {
    "accelerate", "jinja2", "lightgbm", "matplotlib", "mlxtend", "onnx", "onnxmltools", "optuna", "onnxruntime", "onnxscript",
    "pandas", "PIL", "psycopg", "pyarrow", "skl2onnx", "sklearn", "sqlalchemy", "xgboost",
}  # fmt: skip


def modules() -> dict[str, Path]:
    names = {}
    for path in SRC.rglob("*.py"):
        parts = list(path.relative_to(SRC).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if parts:
            names[".".join(parts)] = path
    return names


def room(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "verbs" else parts[0]


def imports(path: Path) -> set[str]:
    """The modules of attar that a file imports, anywhere in it, without those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "attar":
            base = node.module.removeprefix("attar").lstrip(".")
            for alias in node.names:
                found.add(f"{base}.{alias.name}" if f"{base}.{alias.name}".lstrip(".") in modules() else base)
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("attar").lstrip(".") for a in node.names if a.name.split(".")[0] == "attar"}
    return {name.lstrip(".") for name in found}


def floor_of(name: str) -> int | None:
    return next((floor for floor, rooms in enumerate(FLOORS) if room(name) in rooms), None)


def test_every_module_has_a_floor() -> None:
    homeless = [n for n in modules() if floor_of(n) is None and room(n) not in ANYTHING and n != "verbs"]
    assert not homeless


def test_imports_go_down_only() -> None:
    wrong = []
    for name, path in modules().items():
        if room(name) in ANYTHING or name == "verbs":
            continue
        here = floor_of(name)
        assert here is not None
        for other in imports(path):
            if other == "":
                continue  # `from attar import __version__`
            if room(other) in ANYTHING:
                wrong.append(f"{name} imports {other}: nothing imports testing")
            elif room(other) != room(name):
                there = floor_of(other)
                if there is None or there >= here:
                    wrong.append(f"{name} (floor {here}) imports {other} (floor {there})")
    assert not wrong, "\n".join(wrong)


def test_optional_libraries_are_imported_when_used() -> None:
    wrong = []
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            wrong += [f"{name}: {n}" for n in names if n.split(".")[0] in OPTIONAL]
    assert not wrong


def test_no_attics() -> None:
    attics = {"utils", "util", "common", "helpers", "core", "manager", "misc"}
    assert not [n for n in modules() if attics & set(n.split("."))]


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in attar.__all__:
        value = getattr(attar, name)
        if name != "IGNORE":
            assert (value.__doc__ or "").strip() or name == "Student", name
    assert set(attar.__all__) == set(attar._HOME) | set(attar._ROOMS)  # pyright: ignore[reportPrivateUsage] what the package promises to hold


def test_every_module_says_in_one_line_what_it_is() -> None:
    for name, path in modules().items():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        assert first.endswith((".", ":")), f"{name}: {first!r}"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_verb_is_a_function_whatever_was_imported_before(seed: int) -> None:
    names = [f"attar.{n}" for n in modules() if n != "__main__"]
    random.Random(seed).shuffle(names)
    code = "import importlib, attar\n" + "\n".join(f"importlib.import_module({n!r})" for n in names)
    code += "\nfor v in ('teach','annotate','distill','export','evaluate','run','search'): assert callable(getattr(attar, v)), v"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_nothing_heavy_is_imported_before_a_verb_runs() -> None:
    code = (
        "import sys, attar, attar.cli\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pandas', 'sklearn', 'onnx', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_all_of_each_room_is_importable() -> None:
    for name in ("objective", "sources", "students", "data", "functional", "statistics", "testing"):
        package = importlib.import_module(f"attar.{name}")
        for word in package.__all__:
            assert hasattr(package, word), f"attar.{name}.{word}"
