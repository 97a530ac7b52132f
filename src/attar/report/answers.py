"""The four questions that a certificate answers: each in a word, with the figure that the word rests on and its interval.

Nothing is said that the certificate does not hold, and what was not asked is named as such. A section that brings evidence of its own
adds its sentence to the function of the question that it belongs to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from attar.certificate import Certificate, Figure, digits, metric_name
from attar.certificate.harm import FDR
from attar.report.words import (
    by_class,
    bytes_of,
    control,
    interval,
    milliseconds,
    one,
    percent,
    percents,
    rounded,
    sentence_case,
    sentences,
    significant,
)

__all__ = ["Reply", "replies", "student_of"]

Tone = Literal["yes", "no", "unsure", "fact", "unasked"]

LOUD = re.compile(r"^[A-Z][A-Z-]+[^:]*: ")  # "NON-INFERIOR to the teacher: ": the page says it in its own way
BUDGET = re.compile(r"^(latency_ms|size_mb|parameters|memory_mb|rows_per_second) [≤≥] ")


@dataclass(frozen=True)
class Reply:
    """One question answered.

    tone: how it looks. word: the answer. figure: what it rests on, with its interval; "" where there is nothing. of: what that figure is.
    text: more, in sentences. to: the section that shows it.
    """

    question: str
    tone: Tone
    word: str
    figure: str
    of: str
    text: str
    to: str


def replies(c: Certificate, student: str = "") -> tuple[Reply, ...]:
    """The four questions in the order that a reader asks them. student: what it is, in the words of its recipe."""
    return (_helped(c), _differs(c), _costs(c, student), _replaces(c))


def student_of(recipe: str) -> str:
    """What the student is, in the words of a run's recipe; "" where it does not say so shortly.

    >>> student_of('data: table("a.csv")\\nstudent: mlp(width=64)\\n')
    'mlp(width=64)'
    """
    found = re.search(r"^student: (.{1,100})$", recipe, re.MULTILINE)
    return found[1].strip("'").replace("''", "'") if found else ""


# did it help?


def _helped(c: Certificate) -> Reply:
    """The control over which the least was gained, and what was gained over the others."""
    question, to = "Did distillation help?", "helped"
    if not c.against and c.quality:
        return Reply(question, "unasked", "Not asked", "", "", "No control was trained beside the student.", to)
    tone, word = {
        "helped": ("yes", "Yes"),
        "no difference": ("no", "No: no difference"),
        "hurt": ("no", "No: it hurt"),
        "insufficient evidence": ("unsure", "Insufficient evidence"),
    }[c.helped.answer]
    q = c.quality.get(c.claim["metric"])
    least = c.deciding
    if q is None or least is None or any(name not in q.gains for name in c.against):
        return Reply(question, tone, word, "", "", sentences([_quiet(c.helped.sentence)]), to)  # pyright: ignore[reportArgumentType] a str of the tones above
    others = [f"{interval(q.gains[name], difference=True)} over {control(name)}" for name in c.against if name != least]
    if c.helped.answer == "helped":
        word += ": better than each control" if others else f": better than {control(least)}"
    seeds = q.gains[least].n
    of = f"{_metric(c)} over {control(least)}, {seeds:,} seed{'s' if seeds != 1 else ''}"
    text = [
        _after_facts(c.against[least].sentence),
        ", ".join(others),
        "" if others else f"{control(least)} is the only control that was trained",
    ]
    return Reply(question, tone, word, interval(q.gains[least], difference=True), of, sentences(text), to)  # pyright: ignore[reportArgumentType] a str of the tones above


def _after_facts(sentence: str) -> str:
    """What a verdict says after its figures: how many rows or seeds would decide."""
    return sentence.partition(". ")[2]


# where does it differ?


def _differs(c: Certificate) -> Reply:
    """How like the teacher it answers as a whole, and where least."""
    question, to, f = "Where does the student differ from the teacher?", "differs", c.fidelity
    if (alike := one(f.get("similarity_correlation"))) is not None:
        word, figure, of = f"Similarities alike by {digits(alike)}", interval(f["similarity_correlation"]), "rank correlation of cosines"
        near = f.get("neighbour_overlap")
        text = [f"Of the 10 texts nearest to a text both name {percents(near)}"] if near is not None and one(near) is not None else []
    elif (agreement := one(f.get("agreement"))) is not None:
        word, figure, of = f"On {percent(1 - rounded(agreement))} of decisions", percents(f["agreement"]), "of decisions alike"
        text = [_given(c), _least_class(c)]
    elif (distance := one(f.get("mean_distance"))) is not None:
        word, figure, of = f"By {digits(distance)} on average", interval(f["mean_distance"]), "mean distance of their numbers"
        told = (("root_mean_square_distance", "root mean square"), ("correlation", "correlation"))
        text = [", ".join(f"{what} {interval(f[name])}" for name, what in told if one(f.get(name)) is not None)]
    else:
        return Reply(question, "unsure", "Not measured", "", "", "The certificate holds no figure of fidelity.", to)
    return Reply(
        question, "fact", word, figure, of, sentences([*text, *_harmed(c), *_elsewhere(c), *_corrupted(c), *_foreign(c), *_unasked(c)]), to
    )


def _given(c: Certificate) -> str:
    parts = [
        f"{percents(c.fidelity[name])} where the teacher {what}"
        for name, what in (
            ("agreement_teacher_right", "is right"),
            ("agreement_teacher_wrong", "is wrong"),
            ("agreement_teacher_positive", "says positive"),
        )
        if one(c.fidelity.get(name)) is not None
    ]
    return ", ".join(parts)


def _least_class(c: Certificate) -> str:
    known = [(e["agreement"]["value"], e) for e in by_class(c) if e["agreement"]["value"] is not None]
    if len(known) < 2:
        return ""
    _, least = min(known, key=lambda pair: pair[0])
    return f"Of classes the least is {percents(Figure(**least['agreement']))}, on “{least['name']}”"


def _elsewhere(c: Certificate) -> list[str]:
    """Where it is least like the teacher among rows from elsewhere."""
    first = next(iter(c.fidelity), None)
    found = [(value, name) for name, s in c.shift.items() if (value := one(s.fidelity.get(first or ""))) is not None]
    if first not in ("agreement", "similarity_correlation", "correlation") or not found:
        return []
    _, name = min(found)
    figure = c.shift[name].fidelity[first]
    return [f"On rows from elsewhere the least is {percents(figure) if first == 'agreement' else interval(figure)}, on “{name}”"]


def _corrupted(c: Certificate) -> list[str]:
    """How much more it suffers than the teacher from rows made worse on purpose."""
    found = c.corrupted
    if found is None or (more := one(found.error)) is None:
        return []
    worst = max((one(kind.error) or 0.0, name) for name, kind in found.kinds.items())[1]
    told = f"Under corruptions its errors are {significant(more, 2)}× the teacher’s{_between(found.error)}"
    return [told + (f", most under {worst.replace('_', ' ')}" if len(found.kinds) > 1 else "")]


def _foreign(c: Certificate) -> list[str]:
    """How well its confidence tells foreign rows, the worst-told set first."""
    found = [(by, name) for name, section in c.foreign.items() if (by := section.detectors.get("confidence", {}).get("auroc")) is not None]
    found = [(by, name) for by, name in found if one(by.student) is not None]
    if not found:
        return []
    by, name = min(found, key=lambda pair: one(pair[0].student) or 0.0)
    return [
        f"Its confidence tells foreign rows (“{name}”) with an AUROC of {interval(by.student)}, the teacher’s with {interval(by.teacher)}"
    ]


def _harmed(c: Certificate) -> list[str]:
    """Which declared groups and classes it serves worse."""
    families = c.harm.families if c.harm is not None else {}
    told = []
    for key, one_of, many in (("group", "group", "groups"), ("class", "class", "classes")):
        family = families.get(key)
        if family is None or not family.tested:
            continue
        worse = family.answered("worse")
        if not worse:
            told.append(f"Of {family.tested} {many if family.tested > 1 else one_of} none is shown to be served worse")
            continue
        named = ", ".join(f"“{cell.title}”" for cell in worse[:3]) + (", …" if len(worse) > 3 else "")
        told.append(
            f"{len(worse)} of {family.tested} {many} are served worse, at a false discovery rate of {FDR:.0%}: {named}".replace("%", " %")
        )
    return told


def _between(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f" [{significant(figure.low, 2)}, {significant(figure.high, 2)}]"


def _unasked(c: Certificate) -> list[str]:
    """What might differ, and was not looked at."""
    groups = c.harm is not None and "group" in c.harm.families
    looked = (
        ("rows from elsewhere", c.shift),
        ("corruptions", c.corrupted is not None),
        ("foreign rows", c.foreign),
        ("groups", groups),
    )
    absent = [what for what, there in looked if not there]
    return [f"Not asked: {', '.join(absent)}"] if absent else []


# what does it cost, and which is it?


def _costs(c: Certificate, recipe: str) -> Reply:
    """How much cheaper than the teacher, and which file was measured."""
    question, to = "What does it cost, and which student is this?", "cost"
    student, teacher, ratio = (c.cost.get(who, {}) for who in ("student", "teacher", "ratio"))
    head = [text for name, words in RATIOS.items() if (text := _times(ratio.get(name), *words))]
    figure = of = ""
    if (p95 := student.get("latency_p95_ms")) is not None and p95.value is not None:
        figure, of = milliseconds(p95.value, p95.low, p95.high), "for one row, 95th percentile"
        if (theirs := teacher.get("latency_p95_ms")) is not None and theirs.value is not None:
            of += f"; the teacher takes {milliseconds(theirs.value, theirs.low, theirs.high)}"
    text = []
    for name, what, write in (("batch_ms", "256 rows take {}", milliseconds), ("size_mb", "the file has {}", bytes_of)):
        if (mine := one(student.get(name))) is not None:
            other = one(teacher.get(name))
            text.append(what.format(write(mine) + (f", the teacher’s {write(other)}" if other else "")))
    if not (figure or text):
        return Reply(question, "unsure", "Not measured", "", "", "The certificate holds no figure of cost.", to)
    bounds = [r for r in c.requirements if BUDGET.match(r.what)]
    tone: Tone = "fact"
    if bounds:
        tone = "yes" if all(r.answer == "met" for r in bounds) else "no" if any(r.answer == "not met" for r in bounds) else "unsure"
        head = [{"yes": "Within budget", "no": "Over budget", "unsure": "Budget not measured"}[tone], *head[:1]]
    word = sentence_case(", ".join(head)) or "No figure of the teacher’s to compare with"
    return Reply(question, tone, word, figure, of, sentences(["; ".join(text), _which(c, recipe)]), to)


RATIOS = {"latency_p95_ms": ("faster", "slower", "fast"), "size_mb": ("smaller", "larger", "large")}


def _times(ratio: Figure | None, more: str, less: str, even: str) -> str:
    """How many times the student's figure the teacher's is, in words."""
    times = one(ratio)
    if times is None or times <= 0:
        return ""
    if 0.95 < times < 1.05:
        return f"as {even}"
    return f"{significant(max(times, 1 / times), 2)}× {more if times >= 1 else less}"


def _which(c: Certificate, recipe: str) -> str:
    """The file that was judged, so that it can be told from others."""
    student = c.identity["student"]
    facts = [*([recipe] if recipe else []), str((student.get("files") or {}).get(student.get("file"), {}).get("precision", ""))]
    if isinstance(t := student.get("temperature"), float | int) and t != 1:
        facts.append(f"fitted temperature {t:.3f}")
    name = f"it is {student['file']}" if student.get("file") else f"it is {student['text']}"
    return ", ".join([name, *(fact for fact in facts if fact), f"fingerprint {student['fingerprint'][:12]}"])


# may it take the teacher's place?


def _replaces(c: Certificate) -> Reply:
    """No worse by the margin, and what is guaranteed of the single row."""
    v, margin = c.non_inferior, f"{c.non_inferior.margin:.3g}" if c.non_inferior.margin else ""
    tone, word = {
        "yes": ("yes", f"Yes: worse by less than {margin}" if margin else "Yes"),
        "no": ("no", f"No: worse by more than {margin}" if margin else "No"),
    }.get(v.answer, ("unsure", "Insufficient evidence"))
    others = [r for r in c.requirements if not r.what.startswith("worse by less than ")]
    kept = c.guard is not None and c.guard.certified and not c.guard.broken and not _cascade_is_worse(c)
    if tone != "yes" and kept and all(r.answer == "met" for r in others):
        tone, word = "unsure", "Only behind its guard"
    if tone == "yes" and c.exit_code:
        tone, word = "no", "As good, but not as required"
        if all(r.answer != "not met" for r in c.requirements):
            tone, word = "unsure", "As good, but not all is shown that is required"
    figure = of = ""
    q = c.quality.get(c.claim["metric"])
    if v.difference is not None and v.difference.value is not None and q is not None:
        figure = interval(v.difference.turned(q.better), difference=True)
        of = f"{_metric(c)}, student − teacher; each end is a bound of 95 % confidence"
    return Reply(
        "May I put it in place of the teacher, under which guarantee?",
        tone,  # pyright: ignore[reportArgumentType] a str of the tones above
        word,
        figure,
        of,
        sentences([_quiet(v.sentence), *_guarantee(c)]),
        "replaces",
    )


def _cascade_is_worse(c: Certificate) -> bool:
    """Whether student and teacher together are shown to be worse than the teacher by the margin: alike decisions are not a like ranking."""
    metric = c.claim["metric"]
    apart = (c.guard.cascade if c.guard else {}).get(metric, {}).get("difference")
    if apart is None or metric not in c.quality or apart.high is None:
        return False
    high = apart.turned(c.quality[metric].better).high
    return high is not None and high < -(c.non_inferior.margin or 0.0)


def _guarantee(c: Certificate) -> list[str]:
    """What is promised of each answer, beyond the average over all rows."""
    g = c.guard
    if g is None:
        return ["No guard was fitted: it answers every row, and of the single answer nothing is guaranteed"]
    if not g.certified:
        return [f"No guard is certified for a {g.error} of {_whole(g.epsilon)}, so that of the single answer nothing is guaranteed"]
    by = {
        "decision": f" of each {'decision of the teacher' if g.target == 'teacher' else 'label'}",
        "answer": " of each answer that it gives",
    }.get(g.per, "")
    if columns := [of for of, parts in g.groups.items() if any(kept.bound is not None for kept in parts.values())]:
        by += f"{' and' if by else ''} of each group by {', '.join(columns)}"
    what = f"Guard: {g.error} of at most {_whole(g.epsilon)}{by} where the student answers, with {_whole(1 - g.delta)} confidence"
    told = [f"{what}; on test rows it answers {percents(g.whole.answered)}, with a {g.error} of {percents(g.whole.errors)}"]
    if g.foreign:
        most, some = max(g.foreign.items(), key=lambda item: item[1].answered.value or 0.0)
        also = f" ({percents(some.confident)} by its confidence alone)" if g.floor is not None else ""
        told.append(f"Of rows that are not of the task nothing is promised: of {most} it answers {percents(some.answered)}{also}")
    if g.broken:
        told.append(sentence_case(g.contradicted).replace("'", "’"))
    apart = g.cascade.get(c.claim["metric"], {}).get("difference")
    if apart is not None and one(apart) is not None:
        told.append(f"With the teacher for the rest, {_metric(c)} is {interval(apart, difference=True)} against the teacher alone")
    return told


def _whole(share: float) -> str:
    """A share that somebody chose, as they would write it: 5 %."""
    return f"{100 * share:.12g} %"


# words that several questions share


def _metric(c: Certificate) -> str:
    metric = c.claim["metric"]
    return metric_name(metric) + (" (less is better)" if metric in c.quality and c.quality[metric].better < 0 else "")


def _quiet(sentence: str) -> str:
    return LOUD.sub("", sentence)
