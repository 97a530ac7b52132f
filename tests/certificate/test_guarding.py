"""What a terminal shows of a guard."""

from __future__ import annotations

from attar.certificate.figures import Figure
from attar.certificate.guarding import Guarding, Kept, lines


def kept(errors: float, rows: int = 40) -> Kept:
    share = Figure.of(errors, errors, errors)
    return Kept(rows, Figure.of(1.0, 0.9, 1.0), share, share, 100, None, None)


def guarding(cells: int) -> Guarding:
    named = {f"i{i:03}": kept(i / 1000) for i in range(cells)}
    asked = 'guard(per="all")'
    return Guarding(asked, "certified", "it is certified", 0.05, 0.1, "teacher", "all", {}, 1000, kept(0.03), cells=named)


def test_of_many_cells_a_terminal_shows_those_with_the_most_errors() -> None:
    shown = [line for line in lines(guarding(150)) if "decides i" in line]
    assert [line.split("decides i")[1].split()[0] for line in shown] == [f"{i:03}" for i in range(149, 139, -1)]
    assert any(line.strip() == "… and 140 more, with fewer errors" for line in lines(guarding(150)))


def test_of_few_cells_it_shows_all() -> None:
    shown = lines(guarding(10))
    assert sum("decides i" in line for line in shown) == 10
    assert not any("more, with fewer" in line for line in shown)
