"""What the documents say is so: examples run, the README's code is the examples', trees name what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import attar

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "tests"))


def run(code: str, folder: Path) -> str:
    """Run `code` in a folder that sees the recipes; what it printed."""
    (folder / "recipes").symlink_to(ROOT / "recipes")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_readme_shows_the_example() -> None:
    shown = re.findall(r"```python\n(.*?)```", README, re.S)[0].strip()
    example = (ROOT / "examples" / "credit.py").read_text(encoding="utf-8").split('"""', 2)[2].strip()
    assert shown == example
    assert len(example.splitlines()) < 10


def test_the_example_runs_on_a_slice(tmp_path: Path) -> None:
    code = (ROOT / "examples" / "credit.py").read_text(encoding="utf-8")
    code = code.replace("trees=600", "trees=20").replace('goal, out="', 'goal, fit=attar.fit(epochs=2, seeds=2), out="')
    assert "agreement" in run(code, tmp_path)


def test_the_loop_of_ones_own_runs(tmp_path: Path) -> None:
    assert "kl" in run((ROOT / "examples" / "own_loop.py").read_text(encoding="utf-8"), tmp_path)


def test_contents_is_what_the_vocabulary_says() -> None:
    from contents import contents  # pyright: ignore[reportMissingImports] - beside this file, on the path above

    assert (ROOT / "CONTENTS.md").read_text(encoding="utf-8") == contents(), "run: python tests/contents.py"


def test_the_readme_names_every_room() -> None:
    house = README.split("## The house")[1].split("```")[1]
    for path in sorted((ROOT / "src" / "attar").iterdir()):
        if path.name.startswith("__"):
            continue
        assert path.name if path.suffix else f"{path.name}/" in house, path.name


def test_the_readme_names_the_set_up_commands() -> None:
    assert 'pip install -e ".[all]" && attar run recipes/credit.yaml' in README
    assert 'pip install -e ".[all,dev]" && pytest' in README


def test_the_objectives_of_the_readme_are_read() -> None:
    import attar.objective as words
    from attar.notation import Space, parse, resolve

    shown = re.findall(r"^objective: (.*?)(?:\s{2,}#.*)?$", README, re.M)
    assert len(shown) == 4
    for text in shown:
        space = Space.of(parse(text), "objective", vars(words))
        assert words.as_objective(resolve(space.at(space.middle()), vars(words))).terms


def test_the_readme_names_every_recipe() -> None:
    for path in (ROOT / "recipes").glob("*.yaml"):
        assert f"`{path.stem}`" in README or f"recipes/{path.name}" in README, path.name


@pytest.mark.parametrize("document", sorted(p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *ROOT.glob("*/**/*.md")]))
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{document} links to {target}"


def test_the_changelog_knows_this_version() -> None:
    assert f"## {attar.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_decision_is_listed() -> None:
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert f"]({path.name})" in listed
