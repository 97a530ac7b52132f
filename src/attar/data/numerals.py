"""Text that stands for a number or a date."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["is_date", "is_number", "share"]

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_CODE = re.compile(r"\s*[+-]?0\d")  # 007 is a code: as a number it would lose its zeros
_DATE = re.compile(r"\s*(\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2}))([T ]\d{1,2}:\d{2}.*)?\s*")


def is_number(text: str) -> bool:
    """Whether a text is a decimal number, and not a code with leading zeros.

    >>> [is_number(t) for t in ("12", " -3.5e2", "007", "0.7", "1,5", "?")]
    [True, True, False, True, False, False]
    """
    return bool(_NUMBER.fullmatch(text)) and not _CODE.match(text)


def is_date(text: str) -> bool:
    """Whether a text looks like a date, with or without a time of day.

    >>> [is_date(t) for t in ("2005-09-30", "30.9.2005", "9/30/05 12:00", "2005-09", "2005.5", "12-14")]
    [True, True, True, True, False, False]
    """
    return bool(_DATE.fullmatch(text)) and not is_number(text)


def share(texts: Iterable[bool]) -> float:
    """The share of True, 0 for nothing."""
    answers = list(texts)
    return sum(answers) / len(answers) if answers else 0.0
