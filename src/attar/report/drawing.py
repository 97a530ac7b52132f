"""Drawings as SVG text: an axis, and the few shapes that pictures of a certificate are made of.

Colours and type are classes, which the page's style sheet fills in: so a drawing follows the page into the dark and onto paper.
Drawn by hand, and not by a plotting library, because the same picture must be legible 350 and 500 pixels wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["CHARACTER", "LEFT", "WIDTH", "Axis", "Drawing", "Point", "decimals_of", "ladder", "legend", "plain_ticks", "shorten"]

Point = tuple[float, float]
WIDTH = 380.0  # of a picture
LEFT = 58.0  # where the frame of a picture with numbers at its left begins
CHARACTER = 6.2  # mean width of a letter of the 11 pixel type that drawings use
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
LOG_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


@dataclass(frozen=True)
class Axis:
    """Numbers from low to high, drawn from `start` to `end` in pixels.

    >>> Axis(0, 10, 100, 200)(5)
    150.0
    >>> Axis(1, 100, 0, 200, log=True)(10)
    100.0
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, *, pad: float = 0.06, log: bool = False) -> Axis:
        """An axis that holds all values with a little room at both ends; values are finite, and positive where `log`."""
        found = [*values]
        low, high = min(found), max(found)
        if log:
            room = max((high / low) ** pad, 1.15)
            return cls(low / room, high * room, start, end, log=True)
        room = pad * (high - low) or 0.05 * abs(high) or 0.05
        return cls(low - room, high + room, start, end)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers on the axis, `most` at most.

        >>> Axis(0.03, 1.1, 0, 1).ticks()
        [0.25, 0.5, 0.75, 1.0]
        >>> Axis(0.8, 30, 0, 1, log=True).ticks()
        [1.0, 2.0, 5.0, 10.0, 20.0]
        """
        if self.log:
            return self._log_ticks(most)
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * next(s for s in STEPS if s * power >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]

    def _log_ticks(self, most: int) -> list[float]:
        found: list[float] = []
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in LOG_STEPS:
            inside = [round(s * 10.0**k, 12) for k in decades for s in steps if self.low <= s * 10.0**k <= self.high]
            if len(inside) <= most and len(inside) > len(found):
                found = inside
        if len(found) < 2:
            found = Axis(self.low, self.high, 0, 1).ticks(most)
        return found


@dataclass
class Drawing:
    """One picture: shapes in the order they are added; `svg` is its text.

    name: an id, unique on its page. title, description: what it shows, for those who do not see it.
    """

    name: str
    title: str
    description: str
    width: float
    height: float
    shapes: list[str] = field(default_factory=list)

    def add(self, tag: str, look: str = "", inside: str = "", hover: str = "", **attributes: float | str) -> None:
        """A shape of class `look`; `inside` is its text, `hover` what is said when it is pointed at. Both are escaped."""
        facts = {"class": look, **{k.replace("_", "-"): _number(v) for k, v in attributes.items()}}
        head = "".join(f' {k}="{escape(v)}"' for k, v in facts.items() if v)
        title = f"<title>{escape(hover)}</title>" if hover else ""
        self.shapes.append(f"<{tag}{head}>{title}{escape(inside)}</{tag}>" if title or inside else f"<{tag}{head}/>")

    def line(self, x1: float, y1: float, x2: float, y2: float, look: str) -> None:
        self.add("line", look, x1=x1, y1=y1, x2=x2, y2=y2)

    def text(self, x: float, y: float, words: str, look: str = "", anchor: str = "start", hover: str = "") -> None:
        self.add("text", look, words, hover, x=x, y=y, text_anchor="" if anchor == "start" else anchor)

    def path(self, points: Sequence[Point], look: str, clip_path: str = "", hover: str = "", trial: str = "") -> None:
        """A line through the points."""
        d = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        self.add("path", look, hover=hover, d=d, clip_path=clip_path, data_trial=trial)

    def cloud(self, points: Iterable[Point], look: str) -> None:
        """Many equal points, as one path: the style sheet's round line ends make them discs."""
        self.add("path", look, d="".join(f"M{_number(x)} {_number(y)}h0" for x, y in points))

    def mark(self, x: float, y: float, shape: str, look: str, size: float = 4, hover: str = "", trial: str = "") -> None:
        """A disc, square, triangle or diamond: who it is can be told without colour. trial: the number of the one that it stands for."""
        if shape == "disc":
            self.add("circle", look, hover=hover, cx=x, cy=y, r=size, data_trial=trial)
            return
        corners = {
            "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
            "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
            "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        }[shape]
        self.add(
            "polygon",
            look,
            hover=hover,
            points=" ".join(f"{_number(x + size * a)},{_number(y + size * b)}" for a, b in corners),
            data_trial=trial,
        )

    def svg(self) -> str:
        """The picture as text to put into a page."""
        head = f'<svg viewBox="0 0 {_number(self.width)} {_number(self.height)}" role="img" aria-labelledby="{self.name}-t {self.name}-d">'
        about = f'<title id="{self.name}-t">{escape(self.title)}</title><desc id="{self.name}-d">{escape(self.description)}</desc>'
        return head + about + "".join(self.shapes) + "</svg>"


def shorten(text: str, pixels: float) -> str:
    """The text, cut with … where it would be wider than so many pixels; its end is kept, for there names often differ.

    >>> shorten("rather long name 17", 80)
    'rather…e 17'
    """
    letters = max(5, int(pixels / CHARACTER))
    tail = letters // 3
    return text if len(text) <= letters else f"{text[: letters - tail - 1].rstrip()}…{text[-tail:].lstrip()}"


def ladder(d: Drawing, down: Axis, left: float, right: float, name: str) -> None:
    """Horizontal grid lines with their numbers, and the name of the axis along it."""
    ticks = down.ticks(5)
    for tick, label in zip(ticks, plain_ticks(ticks), strict=True):
        d.line(left, down(tick), right, down(tick), "grid")
        d.text(left - 6, down(tick) + 4, label, "tick", "end")
    d.add("text", "small", name, transform=f"translate(9 {(down.start + down.end) / 2:g}) rotate(-90)", text_anchor="middle")


def legend(names: Sequence[str]) -> tuple[list[tuple[float, float]], float]:
    """Where the entries of a legend begin, each with 20 pixels for its mark, and how high the legend is."""
    places, x, y = [], LEFT, 8.0
    for name in names:
        width = 26 + CHARACTER * len(name) + 12
        if x + width > WIDTH and x > LEFT:
            x, y = LEFT, y + 18
        places.append((x, y))
        x += width
    return places, y + 14


def plain_ticks(ticks: Sequence[float]) -> list[str]:
    """The ticks as texts, all with the same decimals."""
    if ticks and max(map(abs, ticks)) >= 1e5:
        return [f"{t:.3g}" for t in ticks]
    return [f"{t:.{decimals_of(ticks)}f}".replace("-", "−") for t in ticks]


def decimals_of(ticks: Sequence[float]) -> int:
    """As many decimals as tell all ticks apart and exactly."""
    return next((n for n in range(7) if all(abs(round(t, n) - t) < 1e-9 * max(1.0, abs(t)) for t in ticks)), 7)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{round(value, 1):g}"
