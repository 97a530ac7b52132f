"""Where a path leads: into the file system, or into an installed package."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from attar.errors import NotationError

__all__ = ["PACKAGE", "in_package", "located"]

PACKAGE = "package:"


def in_package(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads into an installed package: such a path is the same on every machine, and is never made relative."""
    return str(path).startswith(PACKAGE)


def located(path: str | os.PathLike[str]) -> Path:
    """The path itself; of "package:NAME/sub/folder" the folder inside the installed Python package NAME, found without importing it.

    Raises NotationError where no such package is installed, or the path leaves it. Whether anything lies there is for the reader to say.

    >>> located("package:json/tool.py").name, str(located("data/rows.csv"))
    ('tool.py', 'data/rows.csv')
    """
    text = str(path)
    if not in_package(text):
        return Path(path)
    name, _, rest = text.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier():  # a dotted name would have its parents imported
        raise NotationError(f"{text!r}: {name!r} is no name of a package", hint='"package:NAME/sub/folder", NAME as `import NAME` has it')
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise NotationError(f"{text!r}: no package {name!r} is installed", hint=f"pip install {name.replace('_', '-')}")
    home = Path(os.path.abspath(next(iter(spec.submodule_search_locations))))
    found = Path(os.path.normpath(home / rest))
    if not found.is_relative_to(home):
        raise NotationError(f"{text!r} leaves the package {name!r}", hint="name a folder inside it")
    return found
