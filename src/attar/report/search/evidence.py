"""What the recommendation rests on: the size curve, the finalists on rows that no choice had seen, the prices that were predicted."""

from __future__ import annotations

import math

from attar.certificate import digits, metric_name
from attar.report.drawing import LEFT, WIDTH, Axis, Drawing, ladder, plain_ticks, shorten
from attar.report.search.fronts import goal_name, won
from attar.report.words import interval, milliseconds, percent, significant, unit_row
from attar.searched import Finalist, Pricing, Searched

__all__ = ["finalists", "predicted", "sizes"]

RIGHT = WIDTH - 8


def sizes(s: Searched) -> Drawing | None:
    """Error against the number of parameters: what was found, the fitted curve with its 90 % band, the goal, the smallest that meets it."""
    c = s.curve
    if c is None or not c.points:
        return None
    top, bottom = 22.0, 232.0
    bad = sorted(e for _, e in c.points)
    most = max([c.goal, *(high for *_, high in c.line), bad[int(0.9 * (len(bad) - 1))]])
    least = min([c.goal, c.floor, bad[0], *(low for *_, low, _ in c.line)])
    across = Axis.around([float(p) for p, *_ in (*c.points, *c.line)], LEFT, RIGHT, pad=0.04, log=True)
    down = Axis.around([least, most], bottom, top, pad=0.05)
    d = Drawing("sizes", "Error against size", c.words, WIDTH, bottom + 40)
    frame = f'<rect x="{LEFT:g}" y="{top - 4:g}" width="{RIGHT - LEFT:g}" height="{bottom - top + 4:g}"/>'
    d.shapes.append(f'<clipPath id="sizes-c">{frame}</clipPath>')
    ladder(d, down, LEFT, RIGHT, _error_name(s))
    ticks = across.ticks(5)
    for tick in ticks:
        d.line(across(tick), top, across(tick), bottom, "grid")
        d.text(across(tick), bottom + 15, _short(tick), "tick", "middle")
    band = [(across(p), down(high)) for p, _, _, high in c.line] + [(across(p), down(low)) for p, _, low, _ in reversed(c.line)]
    if band:
        d.add("polygon", "band", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in band), clip_path="url(#sizes-c)")
        d.path([(across(p), down(e)) for p, e, _, _ in c.line], "curve bold c-student", clip_path="url(#sizes-c)")
    d.line(LEFT, down(c.goal), RIGHT, down(c.goal), "margin")
    d.text(RIGHT, down(c.goal) - 5, f"goal: {digits(c.goal)}", "small halo", "end")
    chance = dict(c.chance)
    for p, e in c.points:
        hover = f"{p:,} parameters: {digits(e)}" + (f"\nmeets the goal with probability {percent(chance[p])}" if p in chance else "")
        d.mark(across(p), down(min(e, down.high)), "disc", "point c-student", 3, hover)
    if c.smallest is not None and across.low <= c.smallest <= across.high:
        x = across(c.smallest)
        d.line(x, top, x, bottom, "zero")
        d.text(x, top - 9, f"smallest: {c.smallest:,}", "small strong", "end" if x > WIDTH / 2 else "start")
    d.text((LEFT + RIGHT) / 2, bottom + 34, "parameters (logarithmic)", "small", "middle")
    return d


def _error_name(s: Searched) -> str:
    return f"1 − {metric_name(s.metric)}" if s.better > 0 else metric_name(s.metric)


def _short(value: float) -> str:
    """A round number as an axis has it: 20,000 as 20k.

    >>> _short(500.0), _short(20000.0), _short(3e6)
    ('500', '20k', '3M')
    """
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


def finalists(s: Searched) -> Drawing | None:
    """Each finalist on the half that no choice had seen: its seeds, their mean with its interval, what that predicts on the test rows, and
    the score that it was chosen by."""
    rows = [f for f in s.finalists if f.score.value is not None]
    if not rows:
        return None
    teacher = s.teacher.score
    goal = None if teacher is None or teacher.value is None else teacher.value - s.better * s.margin
    ends = [x for f in rows for x in (f.score.value, f.score.low, f.score.high, f.before, *f.scores) if x is not None and math.isfinite(x)]
    ends += [x for f in rows if f.predicted is not None for x in (f.predicted.low, f.predicted.high) if x is not None and math.isfinite(x)]
    ends += [goal] if goal is not None else []
    ends += [teacher.value] if teacher is not None and teacher.value is not None else []
    across = Axis.around(ends, 14, WIDTH - 14)
    tall, top = 50.0, 24.0
    bottom = top + tall * len(rows)
    d = Drawing("finalists", "Finalists on the second half", "; ".join(_hover(f) for f in rows) + ".", WIDTH, bottom + 40)
    ticks = across.ticks(4)
    for tick, label in zip(ticks, plain_ticks(ticks), strict=True):
        d.line(across(tick), top, across(tick), bottom, "grid")
        d.text(across(tick), bottom + 15, label, "tick", "middle")
    for value, look, words, y in (
        (goal, "margin", goal_name(s), 8.0),
        (None if teacher is None else teacher.value, "rule c-teacher", "teacher", 19.0),
    ):
        if value is not None:
            d.line(across(value), y + 3, across(value), bottom, look)
            d.text(
                across(value) + (5 if across(value) < WIDTH / 2 else -5),
                y + 2,
                words,
                "small",
                "start" if across(value) < WIDTH / 2 else "end",
            )
    for k, f in enumerate(rows):
        y, alone = top + tall * k + 34, " on labels alone" if f.arm == "labels" else ""
        d.text(
            14,
            y - 16,
            shorten(f"{f.trial}{alone}  {f.student}", 330),
            "name halo strong" if won(s, f) else "name halo",
            hover=f"{f.student}\n{f.objective}\n{f.fit}",
        )
        for score in f.scores:
            if math.isfinite(score):
                d.mark(across(score), y + 7, "disc", "faint-mark c-student", 2.6, f"one seed: {digits(score)}")
        if math.isfinite(f.before):
            d.mark(across(f.before), y, "disc", "hollow c-unsure", 4, f"chosen by: {digits(f.before)}")
        if f.predicted is not None and f.predicted.low is not None and f.predicted.high is not None:
            d.line(across(f.predicted.low), y, across(f.predicted.high), y, "reach c-student")
        if f.score.low is not None and f.score.high is not None:
            d.line(across(f.score.low), y, across(f.score.high), y, "whisker c-student")
            for end in (f.score.low, f.score.high):
                d.line(across(end), y - 4, across(end), y + 4, "cap c-student")
        d.mark(across(f.score.value or 0.0), y, "diamond", "point c-student", 5, _hover(f))
    d.text(WIDTH / 2, bottom + 33, metric_name(s.metric) + ("" if s.better > 0 else ", less is better"), "small", "middle")
    return d


def _hover(f: Finalist) -> str:
    told = "" if f.predicted is None else f", predicted on the test rows {interval(f.predicted)}"
    alone = " on labels alone" * (f.arm == "labels")
    return f"trial {f.trial}{alone}: mean {interval(f.score)}{told}, chosen by {digits(f.before)}"


def predicted(p: Pricing, name: str) -> Drawing | None:
    """The predicted and measured latency of exports that the model was not fitted on; within the band it is off by a tenth at most."""
    pairs = [(a, b) for a, b in p.held_out if a > 0 and b > 0]
    if not pairs:
        return None
    unit, factor = unit_row([x for pair in pairs for x in pair], "ms", 1.0)
    side, left, top = 170.0, 38.0, 6.0
    flat = [x * factor for pair in pairs for x in pair]
    across, down = Axis.around(flat, left, left + side, log=True), Axis.around(flat, top + side, top, log=True)
    said = "; ".join(f"predicted {milliseconds(a)}, measured {milliseconds(b)}" for a, b in pairs[:12])
    d = Drawing(f"predicted-{name}", f"Predicted latency of {p.family}", said + ".", left + side + 8, top + side + 38)
    low, high = across.low, across.high
    d.shapes.append(f'<clipPath id="predicted-{name}-c"><rect x="{left:g}" y="{top:g}" width="{side:g}" height="{side:g}"/></clipPath>')
    corners = [(low, low * 0.9), (high, high * 0.9), (high, high * 1.1), (low, low * 1.1)]
    points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in corners)
    d.add("polygon", "band", points=points, clip_path=f"url(#predicted-{name}-c)")
    for tick in across.ticks(4):
        d.line(across(tick), top, across(tick), top + side, "grid")
        d.line(left, down(tick), left + side, down(tick), "grid")
        d.text(across(tick), top + side + 15, f"{tick:g}", "tick", "middle")
        d.text(left - 5, down(tick) + 4, f"{tick:g}", "tick", "end")
    d.line(across(low), down(low), across(high), down(high), "zero diagonal")
    for a, b in pairs:
        hover = f"predicted {milliseconds(a)}, measured {milliseconds(b)}: {significant(100 * (a / b - 1), 2)} %"
        d.mark(across(a * factor), down(b * factor), "disc", "point c-student", 3, hover)
    d.text(left + side / 2, top + side + 31, f"predicted, {unit}", "small", "middle")
    d.add("text", "small", "measured", transform=f"translate(8 {top + side / 2:g}) rotate(-90)", text_anchor="middle")
    return d
