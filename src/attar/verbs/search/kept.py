"""Prices that were measured, kept in a search's folder for whoever asks the same machine again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attar.certificate.plain import plain, whole
from attar.files import write_json
from attar.searched import Priced, Pricing
from attar.signal import Student
from attar.verbs.search.law import Laws
from attar.verbs.search.pricing import Prices

__all__ = ["FILE", "Identity", "again", "content_of", "differing", "keep", "prices_from", "read"]

FILE = "prices.json"

Identity = Mapping[str, str]


def content_of(prices: Prices) -> dict[str, Any]:
    """All that was measured, and the laws learnt from it, as JSON has it."""
    laws = {family: {name: _law(law) for name, law in vars(laws).items()} for family, laws in prices.families.items()}
    return {
        "pricings": plain(prices.pricings),
        "laws": laws,
        "exact": plain(prices.exact),
        "reference": prices.reference,
        "level": prices.level,
        "mood": prices.mood,
        "export": prices.export,
    }


def prices_from(content: Mapping[str, Any], empty: Prices) -> Prices:
    """The prices that `content_of` wrote, on these data. Raises AttributeError, KeyError, TypeError or ValueError where it is damaged."""
    empty.pricings = tuple(whole(Pricing, each) for each in content["pricings"])
    empty.families = {family: Laws.of(laws) for family, laws in content["laws"].items()}
    empty.exact = {text: whole(Priced, each) for text, each in content["exact"].items()}
    empty.reference, empty.level, empty.mood = str(content["reference"]), float(content["level"]), float(content["mood"])
    if empty.reference and not (empty.level > 0 and math.isfinite(empty.level)):
        raise ValueError(f"a reference that took {empty.level} ms")
    empty.export = None if content["export"] is None else float(content["export"])
    return empty


def keep(prices: Prices, of: Identity, path: Path) -> None:
    write_json(path, {"of": dict(of), **content_of(prices)})


def read(path: Path) -> Mapping[str, Any] | None:
    """What lies there; None where nothing does, or nothing that reads: then it is measured again."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("of"), dict):
            return found
    return None


def differing(content: Mapping[str, Any], of: Identity) -> list[str]:
    """In which parts of the identity kept prices are of something else: "machine was A, is B"."""
    was = content["of"]
    return [f"{name} was {was.get(name, 'not told')}, is {value}" for name, value in of.items() if was.get(name) != value]


def again(content: Mapping[str, Any], empty: Callable[[], Prices], student: Callable[[str], Student], most: float) -> Prices | float | None:
    """Kept prices, the reference measured anew beside them; by how many times it moved, where that is more than `most`; None of damage."""
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        prices = prices_from(content, empty())
        if not prices.reference:
            return None
        moved = prices.moved(student(prices.reference))
        return prices if 1 / most <= moved <= most else moved
    return None


def _law(law: Any) -> dict[str, Any] | None:
    return None if law is None else {"prices": law.prices.tolist(), "error": law.error, "spread": law.spread, "held_out": law.held_out}
