"""What every page is made with: its templates, and what may stand in them unescaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attar.errors import MissingExtra
from attar.report.drawing import Drawing

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["TEMPLATES", "drawn", "environment", "markup"]

TEMPLATES = Path(__file__).parent / "templates"


def environment() -> Environment:
    """Where pages are found; whatever is put into one is escaped. Raises MissingExtra without jinja2."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise MissingExtra("jinja2", "report") from error
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def markup(text: str) -> Markup:
    """A text that attar wrote itself and that is not escaped: a style, a script, a picture. Raises MissingExtra without jinja2."""
    try:
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingExtra("jinja2", "report") from error
    return Markup(text)


def drawn(drawing: Drawing | None) -> Markup | None:
    """A picture as it stands in a page; `Drawing` escapes every text that it holds."""
    return None if drawing is None else markup(drawing.svg())
