"""What the students of a space cost, and whether any of them keeps the budget: asked before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from attar.errors import AttarError, RunError
from attar.identity import digest
from attar.notation import parse, resolve, write
from attar.progress import Event, Listener
from attar.signal import Student
from attar.verbs.search import kept
from attar.verbs.search.beginning import Begun
from attar.verbs.search.learning import Learning, room_beside
from attar.verbs.search.pricing import Prices
from attar.verbs.search.shapes import family_of
from attar.verbs.search.worker import over

__all__ = ["keep_prices", "need_some_within", "prices_of"]

DRAWN = 256  # students by which it is seen what the space costs
MEASURABLE = 24  # of them where each has to be exported and measured
BY_SHAPE = {"mlp", "cnn"}  # families whose prices depend on the schema alone: trees grow on the rows, and texts are as long as they are
MOVED = 1.25  # times longer or shorter the reference may take than when prices were measured


def prices_of(begun: Begun, seed: int, listen: Listener, workers: int) -> Prices | Learning:
    """What students of the space will cost: as measured before, where that is known of this machine; else learnt from some of them.

    With no budget nothing is dropped for its price, so that prices may come later: then they are learnt beside the first candidates.
    """
    empty = partial(_empty, begun, seed)
    of = _identity(begun, empty())
    for path, content in _places(begun):
        where = "the study that is shared" if path is None else str(path)
        if differ := kept.differing(content, of):
            if path is None or path.parent == begun.out:
                listen(Event("price", text=f"measured anew, for the prices in {where} are of something else: {'; '.join(differ)}"))
            continue
        found = _again(begun, content, empty)
        if isinstance(found, Prices):
            listen(Event("price", text=f"known from {where}: {len(found.exact):,} students measured there"))
            return found
        if found is not None:
            listen(Event("price", text=f"measured anew: the student that is the reference takes {found:.2g} times what it took in {where}"))
    learn = partial(_learnt, begun, seed)
    if begun.bounds or not room_beside(workers):
        return learn(listen)
    listen(Event("price", text="learnt in a process of its own, while the first candidates train: there is no budget to drop any for"))
    return Learning(learn, empty(), listen).start()


def keep_prices(begun: Begun, prices: Prices) -> None:
    """What was measured, in the search's folder; and, of a study that others join, in the study, for machines of the same kind."""
    of = _identity(begun, prices)
    kept.keep(prices, of, begun.out / kept.FILE)
    if begun.shared:
        with begun.place.open("student", trials=None, seconds=None) as ledger:
            ledger.keep("prices", {"of": of, **kept.content_of(prices)})


def _identity(begun: Begun, empty: Prices) -> dict[str, str]:
    """What prices are prices of, by name: where equal, what was measured once holds. empty: prices of which nothing is known yet."""
    bounds, data = begun.budget, begun.data
    families = {begun.spaces.design(point).family for point in (begun.spaces.middle(), *begun.spaces.priors("student"))}
    by_shape = families <= BY_SHAPE and data.schema.kind != "text"
    return {
        "machine": empty.where,
        "exported by": f"attar {metadata.version('attar')}, torch {metadata.version('torch')}",
        "threads": str(bounds.threads),
        "batch": f"{bounds.batch}, {bounds.many}",
        "precision": empty.drafts.precision,
        "guard": repr(begun.guard),
        "memory": "asked" if bounds.memory_mb is not None else "not asked",
        "task": repr(begun.task),
        "schema": digest(repr(data.schema)),
        "rows": "any" if by_shape else data.fingerprint,
        "space": write(begun.spaces.student.node),
    }


def _empty(begun: Begun, seed: int) -> Prices:
    how = {"precision": begun.job.deploy, "guard": begun.guard, "seed": seed, "student": partial(_student, begun)}
    return Prices.begun(begun.data, begun.task, bounds=begun.job.budget, **how)


def _learnt(begun: Begun, seed: int, listen: Listener) -> Prices:
    chance, spaces = random.Random(seed), begun.spaces
    students = [spaces.design(spaces.drawn(chance)).student for _ in range(DRAWN)]
    how = {"precision": begun.job.deploy, "seed": seed, "listen": listen}
    return Prices.learn(students, begun.data, begun.task, bounds=begun.job.budget, guard=begun.guard, **how)


def _places(begun: Begun) -> Iterator[tuple[Path | None, Mapping[str, Any]]]:
    """Where prices may lie, the nearest first: in the folder, in the study that is shared, in the folders beside."""
    own = begun.out / kept.FILE
    if (found := kept.read(own)) is not None:
        yield own, found
    if begun.shared:
        with begun.place.open("student", trials=None, seconds=None) as ledger:
            there = ledger.kept("prices")
        if there is not None:
            yield None, there
    beside = [path for path in begun.out.resolve().parent.glob(f"*/{kept.FILE}") if path.parent != begun.out.resolve()]
    for path in sorted(beside, key=lambda path: -path.stat().st_mtime):
        if (found := kept.read(path)) is not None:
            yield path, found


def _again(begun: Begun, content: Mapping[str, Any], empty: Any) -> Prices | float | None:
    try:
        return kept.again(content, empty, partial(_student, begun), MOVED)
    except AttarError:
        return None  # its student cannot be made any longer


def _student(begun: Begun, text: str) -> Student:
    return resolve(parse(text), begun.spaces.words("student"))


def need_some_within(begun: Begun, prices: Prices, seed: int) -> None:
    """Raise RunError where none of many students drawn from the space keeps the budget: what the cheapest would cost is said."""
    chance, spaces, left = random.Random(seed), begun.spaces, MEASURABLE
    first = spaces.priors("student")  # the smallest is among them
    excess: dict[str, dict[str, float]] = {}
    for at, design in enumerate(map(spaces.design, [*first, *(spaces.drawn(chance) for _ in range(DRAWN))])):
        if design.text not in excess:
            if at >= len(first) and family_of(design.student) not in prices.trusted and repr(design.student) not in prices.measured_already:
                if not left:
                    continue
                left -= 1
            excess[design.text] = over(begun.budget, prices.price(design.student))
            if all(value <= 0 for value in excess[design.text].values()):
                return
    text = min(excess, key=lambda text: max(excess[text].values()))
    worst = ", ".join(f"{name} {getattr(begun.budget, name) * (1 + value):.3g}" for name, value in excess[text].items() if value > 0)
    raise RunError(
        f"none of {len(excess)} students drawn from the space keeps {begun.budget!r}; the one nearest to it, {text}, has {worst}",
        hint="a larger budget, or a space that reaches smaller students",
    )
