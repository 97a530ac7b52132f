"""The page of a search: what is recommended and why, the front, what was chosen, what the recommendation rests on."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from attar.certificate import digits, metric_name
from attar.files import write_atomic
from attar.report.pages import TEMPLATES, drawn, environment, markup
from attar.report.search import choices, evidence, tables
from attar.report.search.fronts import against, describe, won
from attar.report.search.leaderboard import ranked
from attar.report.words import interval, sentence_case, sentences
from attar.searched import Searched, front

__all__ = ["commands", "write_search_page"]

OWN = "sqlite:///study.db"  # the study of a search that is shared with nobody

LISTED = 1000  # trials in the page's own list, the best first


@dataclass(frozen=True)
class Reply:
    """One answer at the top: its tone (a class of the style sheet), the word, what it rests on, sentences."""

    question: str
    to: str
    tone: str
    word: str
    figure: str = ""
    of: str = ""
    text: str = ""


def write_search_page(s: Searched, out: Path) -> Path:
    """Write a search as `out`/search.html, one page that needs nothing else, and say where it is.

    Whatever is shown is escaped; the page's only script is its own, named by its digest, and shows the trial that is pointed at everywhere.
    Raises MissingExtra without jinja2.
    """
    script = (TEMPLATES / "search.js").read_text(encoding="utf-8")
    ahead = front(s.trials, s.better)
    page = (
        environment()
        .get_template("search.html")
        .render(
            script=markup(script),
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            name=_name(out.resolve()),
            s=s,
            facts=_facts(s),
            replies=replies(s),
            bounds=tables.bounds(s),
            commands=commands(s, out),
            pictures={
                "latency": drawn(against(s, "latency")),
                "size": drawn(against(s, "size")),
                "lanes": drawn(choices.lanes(s)),
                "importances": drawn(choices.importances(s)),
                "sizes": drawn(evidence.sizes(s)),
                "finalists": drawn(evidence.finalists(s)),
                "predicted": [(p.family, drawn(evidence.predicted(p, str(k)))) for k, p in enumerate(s.pricing) if p.held_out],
            },
            tables={
                "finalists": tables.finalists(s),
                "competitors": tables.competitors(s),
                "pricing": tables.pricing(s),
                "rungs": tables.rungs(s),
                "times": tables.times(s),
                "failures": tables.failures(s),
            },
            trials=[
                (t, "" if t.score is None else digits(t.score), *tables.costs(t.price), t in ahead, describe(t, s))
                for t in ranked(s)[:LISTED]
            ],
            states=tables.STATES,
            counts=", ".join(
                f"{count:,} {said}" for state, said in tables.STATES.items() if (count := sum(t.state == state for t in s.trials))
            ),
            listed=LISTED,
            metric=metric_name(s.metric),
            drew={"dear": any(t.state == "dear" for t in s.trials), "first": _on_first(s)},
            notes=[sentences([note]) for note in s.notes],
        )
    )
    write_atomic(out / "search.html", page)
    return out / "search.html"


def _name(out: Path) -> str:
    """What a search is called: after its folder, or after the run that it belongs to."""
    return out.parent.name if out.name == "search" else out.name


def _on_first(s: Searched) -> bool:
    """Whether all that could be put in place and is drawn stands on the rows that trials are scored on."""
    drawn = [c for c in (s.teacher, *s.competitors) if c.score is not None and (c.price.latency_ms or c.price.size_bytes)]
    return all(c.first is not None for c in drawn)


def commands(s: Searched, out: Path, recipe: str = "RECIPE") -> list[tuple[str, str]]:
    """(what for, command): what to do next with the search in folder `out`. recipe: the file that it was made from."""
    shared = f" --join {s.study}" if s.study and s.study != OWN else ""  # without it another study would begin, in the folder
    found = [("search on, with more --trials or --time", f"attar search {recipe} --out {out}{shared} --resume")]
    if s.winner is not None:
        found.insert(0, ("build the recommended student at full length, and certify it", f"attar run {recipe} --from {out}"))
    if s.study:
        found.append(("look at every trial (pip install optuna-dashboard)", f"optuna-dashboard {_study(s.study, out)}"))
    return found


def _study(study: str, out: Path) -> str:
    """What optuna-dashboard opens, as it is named from here: a file of the folder with the folder's name before it."""
    head, slashes, path = study.partition("sqlite:///")
    if slashes:
        return study if Path(path).is_absolute() else f"sqlite:///{out / path}"
    return study if "://" in head else str(out / study)


def _facts(s: Searched) -> list[tuple[str, str]]:
    """What one has to know to read the answers."""
    facts = [("trials", f"{len(s.trials):,}")]
    facts.append(("metric", metric_name(s.metric) + ("" if s.better > 0 else ", less is better")))
    facts.append(("margin", f"{s.margin:.3g}"))
    if s.rows:
        facts.append(("rows", ", ".join(f"{name} {count:,}" for name, count in s.rows.items())))
    if s.seconds:
        facts.append(("time", tables.minutes(sum(s.seconds.values())) + (f", {s.workers} workers" if s.workers > 1 else "")))
    return facts


def replies(s: Searched) -> list[Reply]:
    """The answers at the top: which student, whether anything else would do, how small it can be."""
    first = next((f for f in s.finalists if won(s, f)), None)
    text = " ".join(s.recommendation)
    if first is not None:
        teacher = f"the teacher {interval(s.teacher.score)}" if s.teacher.score is not None else "the teacher has no figure"
        of = f"{metric_name(s.metric)} on the second half, mean over seeds; {teacher}"
        if first.predicted is not None:
            of += f"; predicted on the test rows {interval(first.predicted)}"
        found = [Reply("Which student?", "front", "yes", first.student, interval(first.score), of, text)]
    elif s.winner is not None:
        trial = next((t for t in s.trials if won(s, t)), None)
        found = [Reply("Which student?", "front", "unsure", trial.student if trial else f"Trial {s.winner}", text=text)]
    elif s.trials and not s.recommendation:
        text = f"The search has not come to its end: {len(s.trials):,} trials so far."
        found = [Reply("Which student?", "front", "unasked", "Not known yet", text=text)]
    else:
        word = "No student is recommended" if s.trials else "Nothing was tried"
        found = [Reply("Which student?", "front", "no" if s.trials else "unasked", word, text=text)]
    return [*found, _else(s), _small(s)]


def _else(s: Searched) -> Reply:
    """Whether a competitor keeps the budget, if any, and comes within the margin of the teacher, by the middle of its interval."""
    question, to = "Would something simpler do?", "competitors"
    asked = [(c, c.score.value) for c in s.competitors if c.score is not None and c.score.value is not None]
    teacher = s.teacher.score.value if s.teacher.score is not None else None
    if not asked or teacher is None:
        return Reply(question, to, "unasked", "Not asked", text="No competitor was measured.")
    goal = teacher - s.better * s.margin
    fits = [(c, value) for c, value in asked if c.within]
    near = [c for c, value in fits if s.better * (value - goal) >= 0]
    kept = {True: ", within the budget", False: ", over the budget"} if s.bounds else {}
    said = [f"{c.name}: {interval(c.score)}{kept.get(c.within, '')}" for c, _ in asked if c.score is not None]
    text = sentences(said)
    if near:
        names = " and ".join(c.name for c in near)
        return Reply(
            question,
            to,
            "fact",
            sentence_case(names),
            text=f"{'Within the budget, and in' if s.bounds else 'In'} the margin by its mean. {text}",
        )
    word = (
        "Nothing else keeps the budget"
        if not fits
        else "What keeps the budget is outside the margin"
        if s.bounds
        else "All else is outside the margin"
    )
    return Reply(question, to, "fact", word, text=text)


def _small(s: Searched) -> Reply:
    question, to = "How small can it be?", "sizes"
    if s.curve is None:
        return Reply(question, to, "unasked", "Not known", text="There are too few trials of different sizes for a curve.")
    if s.curve.smallest is None:
        return Reply(question, to, "unsure", "No size that was tried is surely enough", text=sentences([s.curve.words]))
    return Reply(question, to, "fact", f"{s.curve.smallest:,} parameters", text=sentences([s.curve.words]))
